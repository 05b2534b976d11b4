"""Flags that several verbs share, and what they choose of a study."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from jax_sft.cli.parse import parse_run_flags
from jax_sft.config import ModelConfig, Run, Study, replace
from jax_sft.errors import UsageError
from jax_sft.study.check import validate
from jax_sft.study.load import load_study
from jax_sft.study.patterns import matching
from jax_sft.study.starts import parse_init

ROOT_HELP = "Write below this folder (local or gs://) instead of the study's own root."
DATA_ROOT_HELP = "Look up the study's data and benchmark files in this folder."
RUNS_HELP = "Only these runs of the study, comma-separated names or patterns ('Qwen3-*'); empty means all."


@dataclass(frozen=True)
class PlaceFlags:
    """Where things lie."""

    root: Annotated[str, tyro.conf.arg(help=ROOT_HELP)] = ""
    data_root: Annotated[str, tyro.conf.arg(help=DATA_ROOT_HELP)] = ""


@dataclass(frozen=True)
class RunsFlags(PlaceFlags):
    """Where things lie, and which runs."""

    runs: Annotated[str, tyro.conf.arg(help=RUNS_HELP)] = ""


@dataclass(frozen=True)
class UnitFlags(RunsFlags):
    """Where things lie, and which units (run, step, benchmark)."""

    steps: str = ""
    """Only these snapshot steps, comma-separated, for example `0,10`; empty means all there are."""
    benchmarks: str = ""
    """Only these benchmarks of the study, comma-separated names or patterns; empty means all."""


def open_study(path: str, flags: PlaceFlags) -> Study:
    """The study at `path`, with the places that the flags name."""
    study = load_study(path)
    return replace(study, root=flags.root or study.root, data_root=flags.data_root or study.data_root)


def chosen_runs(study: Study, names: str) -> list[str]:
    """The runs that `--runs` names, all by default; UsageError for a name or pattern that means none."""
    known = [run.name for run in study.runs]
    return matching(names, known, "--runs") or known


def with_chosen_runs(study: Study, names: str) -> Study:
    """The study with the runs that `--runs` names and those that they start from, and no others."""
    wanted = set(chosen_runs(study, names))
    for run in reversed(study.runs):  # a run comes after the one that it starts from
        if run.name in wanted and (start := parse_init(run.init)):
            wanted.add(start.run)
    return replace(study, runs=tuple(run for run in study.runs if run.name in wanted))


def chosen_units(study: Study, flags: UnitFlags) -> tuple[list[str], list[int] | None, list[str] | None]:
    """Runs, steps and benchmarks as the evaluation expects them; None means all."""
    known = [benchmark.name for benchmark in study.benchmarks]
    benchmarks = matching(flags.benchmarks, known, "--benchmarks", "benchmark")
    return chosen_runs(study, flags.runs), numbers(flags.steps, "--steps") or None, benchmarks or None


def with_run_flags(
    study: Study, names: Collection[str], args: Sequence[str], also: Sequence[str]
) -> tuple[Study, list[Run]]:
    """The study, checked, with the flags in `args` applied to the named runs, and these runs.

    `also` names flags that others have read.
    """
    if not any(arg.partition("=")[0] == "--init" for arg in args):
        study = with_models(study, names)  # so that `--model.…` changes the model of the start weights
    runs = tuple(parse_run_flags(run, args, also) if run.name in names else run for run in study.runs)
    chosen = [place for place, run in enumerate(study.runs) if run.name in names]
    study = replace(study, runs=runs)
    study = validate(with_models(study, [runs[place].name for place in chosen]))
    return study, [study.runs[place] for place in chosen]


def with_models(study: Study, names: Collection[str]) -> Study:
    """The study with the models that the named runs leave to their start weights."""
    if all(run.init == "random" or run.model != ModelConfig() for run in study.runs):
        return study
    from jax_sft.models.weights import read  # late, because it brings jax

    return read.with_models(study, names)


def number(text: str, word: str) -> int:
    """`10` as a number; UsageError naming the word of the command line that it stands for."""
    if not text.strip().isdecimal():
        raise UsageError(f"{word}: {text!r} is not a step; write one number such as 10")
    return int(text)


def numbers(text: str, flag: str) -> list[int]:
    """`0,10` as numbers; UsageError naming the flag."""
    pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
    for piece in pieces:
        if not piece.isdecimal():
            raise UsageError(f"{flag}: {piece!r} is not a step; write numbers such as 0,10")
    return [int(piece) for piece in pieces]
