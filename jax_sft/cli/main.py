"""The command line: one thin verb per stage; `jax-sft --help` lists them."""

import dataclasses
import difflib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Annotated, Any

import tyro

from jax_sft.cli.data import (
    BuildFlags,
    DescribeFlags,
    PrepareFlags,
    VerifyFlags,
    data_build,
    data_describe,
    data_prepare,
    data_verify,
)
from jax_sft.cli.flags import PlaceFlags, RunsFlags, UnitFlags, chosen_runs, chosen_units, number, open_study
from jax_sft.cli.parse import (
    flag_names,
    parse_evaluation_flags,
    parse_flags,
    parse_known_flags,
    parse_run_flags,
    print_help,
)
from jax_sft.config import EvaluationConfig, Run, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.machine import limit_arenas
from jax_sft.options import PlanOptions
from jax_sft.study.check import validate
from jax_sft.study.folder import run_file
from jax_sft.study.load import load_study

ACCELERATORS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*", "/dev/kfd")


@dataclass(frozen=True)
class TrainHelp(RunsFlags):
    """All that `jax-sft train` understands."""

    run: Annotated[Run, tyro.conf.arg(name="", help="Applied to each run that is trained.")] = field(
        default_factory=Run
    )


@dataclass(frozen=True)
class SweepHelp(UnitFlags):
    """All that `jax-sft sweep` understands."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True)
class PlanFlags(RunsFlags, PlanOptions):
    """Where things lie, which runs, on which TPUs, and how to plan them."""


@dataclass(frozen=True)
class PlanHelp(PlanFlags):
    """All that `jax-sft plan` understands."""

    run: Annotated[Run, tyro.conf.arg(name="", help="Applied to each run that is planned.")] = field(
        default_factory=Run
    )


def plan(words: list[str], args: list[str]) -> None:
    """Say whether the runs fit a TPU, how long they take and what they cost.

    Compiles the real train and decode steps for that TPU, without one. Every field of a run is a flag.
    """
    flags, rest = parse_known_flags(PlanFlags, args)
    study = open_study(words[0], flags)
    chosen = [study.run(name) for name in chosen_runs(study, flags.runs)]
    runs = [parse_run_flags(run, rest, flag_names(PlanFlags)) for run in chosen]
    validate(replace(study, runs=tuple({run.name: run for run in (*study.runs, *runs)}.values())))
    from jax_sft.planning import plan as planning

    planning.write_plan(study, runs, flags)


def train(words: list[str], args: list[str]) -> None:
    """Train the runs of a study, keeping a snapshot at every named step.

    Every field of a run is a flag and applies to each run that is trained. A run that is there already goes
    on from its last saved state.
    """
    flags, rest = parse_known_flags(RunsFlags, args)
    study = open_study(words[0], flags)
    chosen = chosen_runs(study, flags.runs)
    also = flag_names(RunsFlags)
    runs = [parse_run_flags(run, rest, also) if run.name in chosen else run for run in study.runs]
    picked = [changed for changed, run in zip(runs, study.runs, strict=True) if run.name in chosen]
    study = validate(replace(study, runs=tuple(runs)))
    from jax_sft.machine import join_processes
    from jax_sft.training import loop

    join_processes()
    for run in picked:
        loop.train(study, run)


def sweep(words: list[str], args: list[str]) -> None:
    """Generate with every snapshot on every benchmark, then score.

    What is finished is not done again; a killed sweep goes on where it was.
    """
    flags, rest = parse_known_flags(UnitFlags, args)
    study = open_study(words[0], flags)
    evaluation = parse_evaluation_flags(study.evaluation, rest, flag_names(UnitFlags))
    study = validate(replace(study, evaluation=evaluation))
    from jax_sft.evaluation import sweep as sweeping

    sweeping.sweep(study, *chosen_units(study, flags))


def score(words: list[str], args: list[str]) -> None:
    """Score the stored completions of a study again."""
    flags = parse_flags(UnitFlags, args)
    study = open_study(words[0], flags)
    from jax_sft.evaluation import score as results

    results.score(study, *chosen_units(study, flags))


def report(words: list[str], args: list[str]) -> None:
    """Write the report of a study.

    A page with curves, tables and completions, and beside it the figures and all the numbers.
    """
    study = open_study(words[0], parse_flags(PlaceFlags, args))
    from jax_sft.analysis.report.report import write_report

    write_report(study)


def quickstart(words: list[str], args: list[str]) -> None:
    """Train, sweep and report a whole study in miniature on this machine."""
    flags = parse_flags(PlaceFlags, args)
    study = open_study(str(_configs() / "quickstart.py"), flags)
    from jax_sft.analysis.report.report import write_report
    from jax_sft.evaluation import sweep as sweeping
    from jax_sft.training import loop

    for run in study.runs:
        loop.train(study, run)
    # The base is what its fine-tunings are at step 0.
    sweeping.sweep(study, [run.name for run in study.runs if run.init != "random"])
    write_report(study)


def export(words: list[str], args: list[str]) -> None:
    """Write one snapshot as a Hugging Face folder.

    It holds the safetensors, the config, the tokenizer and the chat template.
    """
    folder, step, target = words
    parse_flags(NoFlags, args)
    study = load_study(run_file(folder))
    from jax_sft.checkpoints.export import export_snapshot

    export_snapshot(study, study.runs[-1], number(step, "STEP"), target)


@dataclass(frozen=True)
class NoFlags:
    """A verb without flags."""


@dataclass(frozen=True)
class Verb:
    """A command: what it does, the words it needs, and the dataclass its help is made from."""

    do: Callable[[list[str], list[str]], None]
    words: tuple[str, ...]
    flags: type[Any]

    @property
    def name(self) -> str:
        """`train`, `data build`"""
        return self.do.__name__.replace("_", " ")

    @property
    def usage(self) -> str:
        """`jax-sft train STUDY`"""
        return " ".join(["jax-sft", self.name, *self.words])


VERBS = {
    verb.name: verb
    for verb in (
        Verb(plan, ("STUDY",), PlanHelp),
        Verb(train, ("STUDY",), TrainHelp),
        Verb(sweep, ("STUDY",), SweepHelp),
        Verb(score, ("STUDY",), UnitFlags),
        Verb(report, ("STUDY",), PlaceFlags),
        Verb(export, ("RUN_FOLDER", "STEP", "TARGET"), NoFlags),
        Verb(data_build, ("SET", "FOLDER"), BuildFlags),
        Verb(data_verify, ("POOL", "OUT"), VerifyFlags),
        Verb(data_describe, ("STUDY",), DescribeFlags),
        Verb(data_prepare, ("STUDY",), PrepareFlags),
        Verb(quickstart, (), PlaceFlags),
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    show = "--traceback" in args
    _name_the_platform()
    limit_arenas()
    try:
        return _dispatch([arg for arg in args if arg != "--traceback"])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if show:
            traceback.print_exc()
        known = isinstance(error, JaxSftError)
        line = (
            str(error)
            if known
            else f"{type(error).__name__}: {error}; run again with --traceback to see where"
        )
        print("error: " + " ".join(line.split()), file=sys.stderr)
        return error.exit_code if isinstance(error, JaxSftError) else 1


def _name_the_platform() -> None:
    """Where there is no accelerator, say so to JAX: libtpu, installed for `plan`, looks for a TPU noisily."""
    if not any(glob(pattern) for pattern in ACCELERATORS):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _dispatch(args: list[str]) -> int:
    group, verb_args = ("data ", args[1:]) if args[:1] == ["data"] else ("", args)
    if not verb_args or verb_args[0] in ("-h", "--help"):
        print(_overview(group))
        return 0 if verb_args else 2
    args = [group + verb_args[0], *verb_args[1:]]
    verb = VERBS.get(args[0])
    if verb is None:
        close = difflib.get_close_matches(args[0], VERBS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose {', '.join(VERBS)}"
        raise UsageError(f"unknown command {args[0]!r}; {hint}")
    if "-h" in args or "--help" in args:
        print_help(
            verb.flags, _help_defaults(verb, args[1:]), verb.usage, inspect.cleandoc(verb.do.__doc__ or "")
        )
        return 0
    words, rest = args[1 : 1 + len(verb.words)], args[1 + len(verb.words) :]
    if len(words) < len(verb.words) or any(word.startswith("-") for word in words):
        raise UsageError(f"write {verb.usage}, then the flags; see jax-sft {args[0]} --help")
    verb.do(words, rest)
    return 0


def _overview(group: str = "") -> str:
    """What there is to type; `data ` as the group leaves the verbs of `jax-sft data`."""
    whole = "Studies of reasoning fine-tuning: plan, train, sweep, report."
    lines = ["Sets of rows: build, verify, describe, prepare." if group else whole, "", "usage:"]
    for verb in [verb for name, verb in VERBS.items() if name.startswith(group)]:
        summary = (verb.do.__doc__ or "").splitlines()[0].rstrip(".")
        lines.append(f"  {verb.usage:<43}{summary}")
    lines += [
        "",
        "STUDY is a Python file in configs/, or the folder of a study made before.",
        f"Flags come last; `jax-sft {group}VERB --help` lists them, "
        f"`jax-sft {group}VERB STUDY --help` with its values.",
        "--traceback shows where an error arose. Exit code: 0 done, 1 failed, 2 wrong usage or input.",
    ]
    return "\n".join(lines)


def _help_defaults(verb: Verb, args: list[str]) -> Any:
    """The values help shows: those of the study's first run when a study is named, else the built-in ones."""
    if verb.words != ("STUDY",) or args[0].startswith("-"):
        return verb.flags()
    study = load_study(args[0])
    known = {field.name for field in dataclasses.fields(verb.flags)}
    values = {"run": study.runs[0], "evaluation": study.evaluation}
    return verb.flags(**{name: value for name, value in values.items() if name in known})


def _configs() -> Path:
    """The folder of ready studies: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent.parent
    return next(
        (place for place in (package / "configs", package.parent / "configs") if place.is_dir()), package
    )
