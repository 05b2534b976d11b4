"""The verbs of `jax-sft data`: sets built, pools verified, what a study trains on described and prepared."""

from dataclasses import dataclass, fields

from jax_sft.cli.flags import RunsFlags, chosen_runs, open_study
from jax_sft.cli.parse import parse_flags
from jax_sft.files import home
from jax_sft.options import BuildOptions, VerifyOptions
from jax_sft.study.check import validate
from jax_sft.terminal import messages, results


@dataclass(frozen=True)
class VerifyFlags(VerifyOptions):
    """How responses are judged, and which are kept."""

    benchmarks: tuple[str, ...] = ()
    """Files of benchmark items; queries that overlap with one are left out."""


@dataclass(frozen=True)
class DescribeFlags(RunsFlags):
    """Which runs, and where the page goes."""

    page: str = "data.html"
    """File of the page with plots."""


@dataclass(frozen=True)
class PrepareFlags(RunsFlags):
    """Which runs."""

    rebuild: bool = False
    """Prepare again what was prepared from another source, template or tokenizer."""


def data_build(words: list[str], args: list[str]) -> None:
    """Build a set of rows on disk, versioned and sharded."""
    options = parse_flags(BuildOptions, args)
    from jax_sft.sets.build import build

    name, folder = words
    results().print(f"set: {build(name, home(folder), options)}")


def data_verify(words: list[str], args: list[str]) -> None:
    """Judge the responses of a pool of queries, and keep the right ones.

    Queries that overlap with benchmark items and responses said twice are left out. Resumable.
    """
    flags = parse_flags(VerifyFlags, args)
    from jax_sft.sets.verify import verify

    options = VerifyOptions(**{each.name: getattr(flags, each.name) for each in fields(VerifyOptions)})
    pool, out = map(home, words)
    report = verify(pool, out, options, map(home, flags.benchmarks), messages())
    results().print(str(report))


def data_describe(words: list[str], args: list[str]) -> None:
    """Table and page of the lengths, traces, answers and behaviours of its sets."""
    flags = parse_flags(DescribeFlags, args)
    study = validate(open_study(words[0], flags))
    from jax_sft.sets.prepare import describe

    console = results()
    runs = [study.run(name) for name in chosen_runs(study, flags.runs)]
    describe(study, runs, home(flags.page), console)
    console.print(f"page: {flags.page}")


def data_prepare(words: list[str], args: list[str]) -> None:
    """Tokenise and lay out the rows before any accelerator waits for them."""
    flags = parse_flags(PrepareFlags, args)
    study = validate(open_study(words[0], flags))
    from jax_sft.sets.prepare import prepare

    prepare(study, [study.run(name) for name in chosen_runs(study, flags.runs)], results(), flags.rebuild)
