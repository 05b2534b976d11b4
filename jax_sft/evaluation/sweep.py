"""The sweep: every snapshot of every run answers every benchmark, through one compiled engine.

All missing completions of a snapshot go through the engine as one stream, so that its slots stay full
from one benchmark to the next; meanwhile the next snapshot is read. Scoring follows, from the files.
"""

from collections.abc import Sequence

from rich.console import Console

from jax_sft.checkpoints.presence import Presence
from jax_sft.config import BenchmarkConfig, ModelConfig, Run, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.drawing import draw_run
from jax_sft.evaluation.items import find_benchmark, store_items
from jax_sft.evaluation.judging import check_sandbox
from jax_sft.evaluation.prompts import Voices, check_context
from jax_sft.evaluation.score import score_units
from jax_sft.evaluation.snapshots import snapshots_to_sweep
from jax_sft.evaluation.units import Unit, Work, check_drawn, find_unit, set_aside_steps
from jax_sft.generation.backend import Backend, MakeBackend
from jax_sft.generation.engine import Engine
from jax_sft.sharding import make_generation_mesh
from jax_sft.study.folder import run_file, run_folder
from jax_sft.study.records import RunRecord
from jax_sft.tasks.task import get_task
from jax_sft.terminal import messages


class Sweep:
    """Generates for runs of one study; engines are made once for each model shape and shared by all."""

    def __init__(
        self,
        study: Study,
        benchmarks: Sequence[BenchmarkConfig],
        console: Console | None = None,
        make_backend: MakeBackend = Engine,
    ) -> None:
        """Loads the items of the benchmarks; UsageError when a file is missing or the mesh does not fit."""
        self.study = study
        self.console = console or messages()
        self.engines: dict[tuple[ModelConfig, tuple[int, ...]], Backend] = {}
        self._make_backend = make_backend
        self.mesh = make_generation_mesh(study.evaluation.tensor)
        self.problems: list[str] = []
        """What could not be had, and why."""
        for b in benchmarks:
            if (ask := get_task(b.task).ask) != "generate":
                raise UsageError(
                    f"benchmark {b.name}: its task {b.task} is asked by {ask}, which a sweep cannot do yet; "
                    "leave it out with --benchmarks"
                )
            check_sandbox(b.task, study.evaluation.allow_unsandboxed_code)
            check_drawn(study, b)
        self.asked = [(b, store_items(study, b, self._say)) for b in benchmarks]
        self._voices = Voices(self.asked)

    def todo(self, run: Run, steps: Sequence[int]) -> Work:
        """What is still to do for the run's snapshots at `steps`; finds bad input before any work is done."""
        voice = self._voices.of(run.tokens)
        presence = Presence(self.study, run.name)
        self._check_template(run, presence.record, voice.template_hash)
        set_aside_steps(self.study, run, presence, self._say)
        todo: dict[int, list[Unit]] = {}
        for step in steps:
            for b, _ in self.asked:
                prompts = voice.prompts[b.name]
                unit = find_unit(self.study, presence.of(step, b.name), b, prompts, self._say)
                if unit.file.missing():
                    check_context(b, prompts, self.study.evaluation.context)
                    todo.setdefault(step, []).append(unit)
        complete = [step for step in steps if step not in todo]
        return Work(run, voice.tokenizer, self._engine(run, voice.stops), todo, complete)

    def generate(self, work: Work) -> None:
        """Draw every missing completion that can be had; `problems` tells of the others."""
        draw_run(self.study, work, self.console, self.give_up)

    def _say(self, text: str) -> None:
        self.console.print(text, style="yellow")

    def give_up(self, problem: str) -> None:
        """Take note of what cannot be had, and say it."""
        self.problems.append(problem)
        self._say(problem)

    def _engine(self, run: Run, stops: tuple[int, ...]) -> Backend:
        key = (run.model, stops)
        if key not in self.engines:
            self.engines[key] = self._make_backend(run.model, self.study.evaluation, stops, self.mesh)
        return self.engines[key]

    def _check_template(self, run: Run, record: RunRecord | None, template_hash: str) -> None:
        if record is None or record.template_hash != template_hash:
            raise UsageError(
                f"run {run.name}: its chat template is not the one that it was trained with, by "
                f"{run_file(run_folder(self.study, run.name))}; restore tokens.template and its options, or "
                "train the run again under another name"
            )


def sweep(
    study: Study,
    runs: Sequence[str],
    steps: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
    console: Console | None = None,
) -> None:
    """Generate what is missing for the named runs (by default at all steps, on all benchmarks), then score.

    Everything that can be wrong with the input is found before the first completion is drawn. What is damaged
    or stale on disk is named, set aside and drawn or scored again; what cannot be had, because a snapshot is
    unsound or a scorer fails, is a JaxSftError after all the rest is done.
    """
    known = [run.name for run in study.runs]
    for name in runs:
        if name not in known:
            raise UsageError(f"study {study.name}: no run {name!r}; it has {', '.join(known)}")
    names = list(dict.fromkeys(benchmarks or [b.name for b in study.benchmarks]))
    sweeper = Sweep(study, [find_benchmark(study, name) for name in names], console)
    works = []
    for name in dict.fromkeys(runs):
        try:
            run = trained_run(study, name)
            present = snapshots_to_sweep(study, run, steps)
        except UsageError:
            raise
        except JaxSftError as error:  # not trained, or damaged: the other runs are swept
            sweeper.give_up(str(error))
        else:
            works.append(sweeper.todo(run, present))
    for work in works:
        sweeper.generate(work)
    problems = [*sweeper.problems, *score_units(study, runs, steps, names)[1]]
    if problems:
        raise JaxSftError(
            f"not all could be had: {'; '.join(problems)}; mend the cause, then the same command goes on"
        )


def trained_run(study: Study, name: str) -> Run:
    """The run as it was trained, flags included: what its record says; JaxSftError when it is not trained."""
    folder = run_folder(study, name)
    try:
        record = RunRecord.read(folder)
    except UsageError as error:
        raise JaxSftError(f"{error}; restore it, or train run {name} again") from None
    if record is None:
        raise JaxSftError(f"{run_file(folder)}: no such file; train run {name} first")
    return record.run
