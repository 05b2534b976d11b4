"""The verbs of `jax-sft`: what each is told, and the one call that does it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from jax_sft.cli.data import (
    DescribeFlags,
    PrepareFlags,
    VerifyFlags,
    data_build,
    data_describe,
    data_prepare,
    data_verify,
)
from jax_sft.cli.flags import (
    PlaceFlags,
    RunsFlags,
    UnitFlags,
    chosen_runs,
    chosen_units,
    number,
    open_study,
    with_chosen_runs,
    with_models,
    with_run_flags,
)
from jax_sft.cli.parse import flag_names, parse_evaluation_flags, parse_flags, parse_known_flags
from jax_sft.config import EvaluationConfig, Run, Study, replace
from jax_sft.errors import JaxSftError
from jax_sft.files import home
from jax_sft.options import BuildOptions, ChatOptions, JudgeOptions, PlanOptions, SweepOptions
from jax_sft.study.check import validate
from jax_sft.study.folder import run_file
from jax_sft.study.load import load_study
from jax_sft.terminal import results

Flags = TypeVar("Flags", bound=UnitFlags)


@dataclass(frozen=True)
class TrainHelp(RunsFlags):
    """All that `jax-sft train` understands."""

    run: Annotated[Run, tyro.conf.arg(name="", help="Applied to each run that is trained.")] = field(
        default_factory=Run
    )


@dataclass(frozen=True)
class SweepFlags(UnitFlags, SweepOptions):
    """Where things lie, which units, and how to sweep them."""


@dataclass(frozen=True)
class SweepHelp(SweepFlags):
    """All that `jax-sft sweep` understands."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True)
class ScoreFlags(UnitFlags):
    """Where things lie, which units, and whether to measure the paper's protocol on them."""

    traps: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what the paper's protocol, and each of its traps alone, would change; write nothing."""
    judges: str = ""
    """Only these judges judge what they have not judged, comma-separated; `none`: none do."""


@dataclass(frozen=True)
class ScoreHelp(ScoreFlags):
    """All that `jax-sft score` understands."""

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


@dataclass(frozen=True)
class NoFlags:
    """A verb without flags."""


def plan(words: list[str], args: list[str]) -> None:
    """Say whether the runs fit a TPU, how long they take and what they cost.

    Compiles the real train and decode steps for that TPU, without one. Every field of a run is a flag.
    """
    flags, rest = parse_known_flags(PlanFlags, args)
    study = open_study(words[0], flags)
    study, runs = with_run_flags(study, chosen_runs(study, flags.runs), rest, flag_names(PlanFlags))
    import jax

    from jax_sft.planning import plan as planning

    jax.config.update("jax_platforms", "cpu")  # a plan leaves the accelerators of this machine alone
    planning.write_plan(study, runs, flags)


def train(words: list[str], args: list[str]) -> None:
    """Train the runs of a study, keeping a snapshot at every named step.

    Every field of a run is a flag and applies to each run that is trained. A run that is there already goes
    on from its last saved state.
    """
    flags, rest = parse_known_flags(RunsFlags, args)
    study = open_study(words[0], flags)
    study, runs = with_run_flags(study, chosen_runs(study, flags.runs), rest, flag_names(RunsFlags))
    from jax_sft.machine import join_processes
    from jax_sft.training import loop

    join_processes()
    for run in runs:
        loop.train(study, run)


def sweep(words: list[str], args: list[str]) -> None:
    """Generate with every snapshot on every benchmark, then score.

    What is finished is not done again; a killed sweep goes on where it was. Started on every host of a slice,
    each host does a share by itself; so does each of several workers (--worker).
    """
    study, flags = _with_evaluation_flags(words[0], args, SweepFlags)
    study = with_models(study, chosen_runs(study, flags.runs))
    from jax_sft.evaluation import sweep as sweeping
    from jax_sft.machine import join_processes

    join_processes()
    sweeping.sweep(study, *chosen_units(study, flags), flags)


def score(words: list[str], args: list[str]) -> None:
    """Score the stored completions of a study again.

    Models that judge are asked first about what they have not judged.
    """
    study, flags = _with_evaluation_flags(words[0], args, ScoreFlags)
    from jax_sft.evaluation import score as scoring
    from jax_sft.evaluation.judge_units import judge_stored

    if flags.traps:
        from jax_sft.evaluation.traps import measured_traps

        results(120).print(measured_traps(study, *chosen_units(study, flags)))
    else:
        problems = judge_stored(study, *chosen_units(study, flags), flags.judges)
        scoring.score(study, *chosen_units(study, flags))
        if problems:
            raise JaxSftError("; ".join(problems))


def judge(words: list[str], args: list[str]) -> None:
    """Judge completions from anywhere by the rules of the benchmarks, or (--page) by a model.

    CASES holds a JSON object a line: {id, task, reference, completion, finish}. OUT gets the same lines with
    metrics, answered, answer and the form in which it stood. A model is given {request, completion}, and its
    metrics, grade and outputs are added; with a label on the lines, how far it agrees with that is said.
    """
    options = parse_flags(JudgeOptions, args)
    options.check()
    cases, out = map(home, words)
    if options.page:
        from jax_sft.evaluation.judge_labelled import judge_by_model

        results(120).print(judge_by_model(cases, out, options))
        return
    from jax_sft.evaluation.judge_cases import judge_cases

    for table in judge_cases(cases, out, options):
        results(120).print(table)


def report(words: list[str], args: list[str]) -> None:
    """Write the report of a study.

    A page with curves, tables and completions, and beside it the figures and all the numbers.
    """
    flags = parse_flags(RunsFlags, args)
    study = with_chosen_runs(open_study(words[0], flags), flags.runs)
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

    export_snapshot(study, study.runs[-1], number(step, "STEP"), home(target))


def chat(words: list[str], args: list[str]) -> None:
    """Talk with a snapshot in the terminal, or with two side by side.

    What is typed is one turn a line; /help lists what else can be said. Where the input is no terminal, its
    lines are the turns.
    """
    folder, step = words
    options = parse_flags(ChatOptions, args)
    options.check()
    snapshots = [(folder, number(step, "STEP"))]
    if options.beside:
        snapshots.append((options.beside[0], number(options.beside[1], "--beside")))
    from jax_sft.evaluation import chat as chatting

    chatting.chat(snapshots, options)


def _with_evaluation_flags(path: str, args: list[str], kind: type[Flags]) -> tuple[Study, Flags]:
    """The study, checked, with the evaluation's flags applied, and the verb's own flags."""
    flags, rest = parse_known_flags(kind, args)
    study = open_study(path, flags)
    evaluation = parse_evaluation_flags(study.evaluation, rest, flag_names(kind))
    return validate(replace(study, evaluation=evaluation)), flags


def _configs() -> Path:
    """The folder of ready studies: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent.parent
    return next(
        (place for place in (package / "configs", package.parent / "configs") if place.is_dir()), package
    )


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
        Verb(score, ("STUDY",), ScoreHelp),
        Verb(judge, ("CASES", "OUT"), JudgeOptions),
        Verb(report, ("STUDY",), RunsFlags),
        Verb(export, ("RUN_FOLDER", "STEP", "TARGET"), NoFlags),
        Verb(chat, ("RUN_FOLDER", "STEP"), ChatOptions),
        Verb(data_build, ("SET", "FOLDER"), BuildOptions),
        Verb(data_verify, ("POOL", "OUT"), VerifyFlags),
        Verb(data_describe, ("STUDY",), DescribeFlags),
        Verb(data_prepare, ("STUDY",), PrepareFlags),
        Verb(quickstart, (), PlaceFlags),
    )
}
