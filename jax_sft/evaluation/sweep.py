"""The sweep: every snapshot of every run answers every benchmark, through one compiled engine.

All missing completions of a snapshot go through the engine as one stream, so that its slots stay full
from one benchmark to the next; meanwhile the next snapshot is read. Scoring follows, from the files.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import jax
from rich.console import Console

from jax_sft.checkpoints.presence import Presence
from jax_sft.config import BenchmarkConfig, ModelConfig, Run, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.drawing import draw_run
from jax_sft.evaluation.following import follow
from jax_sft.evaluation.items import find_benchmark, store_items
from jax_sft.evaluation.judge_asking import Chips
from jax_sft.evaluation.judge_units import Judging, judged_units
from jax_sft.evaluation.judging import check_sandbox
from jax_sft.evaluation.prompts import Voices, check_context, check_voice
from jax_sft.evaluation.score import Unit, score_units, units_with_completions
from jax_sft.evaluation.serving import Server, compare
from jax_sft.evaluation.settings import OURS
from jax_sft.evaluation.shares import ALONE, Share, Worker, expected_tokens, place_of, share_of_run
from jax_sft.evaluation.snapshots import snapshots_to_sweep
from jax_sft.evaluation.units import UnitToDraw, Work, check_drawn, find_unit, set_aside_steps
from jax_sft.generation.backend import Backend, MakeBackend, Scorer
from jax_sft.generation.divergence import Divergences
from jax_sft.generation.engine import Engine
from jax_sft.generation.likelihood import Likelihoods
from jax_sft.machine import wait_for_all
from jax_sft.options import SweepOptions
from jax_sft.sharding import make_generation_mesh
from jax_sft.study.document import differences, to_json
from jax_sft.study.folder import run_file, run_folder
from jax_sft.study.records import RunRecord
from jax_sft.tasks.task import get_task
from jax_sft.terminal import messages, results

DEFAULTS = SweepOptions()


class Sweep:
    """Generates for runs of one study; engines are made once for each model shape and shared by all."""

    def __init__(
        self,
        study: Study,
        benchmarks: Sequence[BenchmarkConfig],
        console: Console | None = None,
        make_backend: MakeBackend = Engine,
        worker: Worker = ALONE,
        judges: str = "",
        server: Server | None = None,
    ) -> None:
        """Loads the items of the benchmarks; UsageError when a file is missing or the mesh does not fit.

        `judges` names those that are to judge, as `--judges` does. Completions are drawn from the `server` if
        there is one.
        """
        self.study, self.worker, self._server = study, worker, server
        self.console = console or messages()
        self.engines: dict[tuple[ModelConfig, tuple[int, ...]], Backend] = {}
        self.scorers: dict[ModelConfig, tuple[Scorer, Divergences]] = {}
        self._make_backend = make_backend
        self.mesh = make_generation_mesh(study.evaluation.tensor)
        self.problems: list[str] = []
        """What could not be had, and why."""
        for b in benchmarks:
            if (ask := get_task(b.task).ask) not in ("generate", *(() if server else ("likelihood",))):
                raise UsageError(
                    f"benchmark {b.name}: its task {b.task} is asked by {ask}, which a "
                    f"{'server' if server else 'sweep'} cannot do; leave it out with --benchmarks"
                )
            if b.logprobs and ask != "generate":
                raise UsageError(
                    f"benchmark {b.name}: its task {b.task} draws no tokens whose log-probabilities could be "
                    "kept; set its logprobs to False"
                )
            if b.logprobs and server:
                raise UsageError(
                    f"benchmark {b.name}: a server gives no log-probabilities; set its logprobs to False"
                )
            check_sandbox(b.task, study.evaluation.allow_unsandboxed_code)
            check_drawn(study, b, server.name if server else OURS)
        if jax.process_index():
            wait_for_all("items written")
        self.asked = [(b, store_items(study, b, self.say)) for b in benchmarks]
        if not jax.process_index():
            wait_for_all("items written")
        self._voices = Voices(self.asked)
        self._other_tokens: set[str] = set()
        """Runs of which it was said."""
        self.judging = Judging(study, self.asked, judges)

    def share(self, run: str, steps: Sequence[int]) -> Share:
        """The worker's units of a run that will have snapshots at `steps`."""
        return share_of_run(self.worker, steps, expected_tokens(self.asked), place_of(self.study, run))

    def todo(self, run: Run, steps: Sequence[int], share: Share | None = None) -> Work:
        """What is still to do of the run's units at `steps`, or of a share of them.

        Finds bad input before any work is done.
        """
        voice = self._voices.of(run.tokens)
        presence = Presence(self.study, run.name)
        check_voice(self.study, run, presence.record, voice)
        self._compare_tokens(run)
        set_aside_steps(self.study, run, presence, self.say)
        todo: dict[int, list[UnitToDraw]] = {}
        for step in steps:
            for b, _ in self.asked:
                if share is not None and (step, b.name) not in share:
                    continue
                name = self._server.name if self._server else OURS
                unit = find_unit(self.study, presence.of(step, b.name), b, voice, self.say, name)
                if unit.file.missing():
                    check_context(b, unit.prompts, self.study.evaluation.context)
                    todo.setdefault(step, []).append(unit)
        complete = [step for step in steps if step not in todo]
        engine = self._server.backend(voice) if self._server else self._engine(run, voice.stops)
        scorer, comparer = self._scorers(run.model)
        return Work(run, voice.tokenizer, engine, scorer, comparer, todo, complete)

    def generate(self, work: Work) -> None:
        """Draw every missing completion that can be had; `problems` tells of the others."""
        draw_run(self.study, work, self.console, self.give_up)

    def judge(self, units: Sequence[Unit]) -> None:
        """Have judges judge what they have not judged yet, on the chips that drew; its engines are let go."""
        if self.judging.models:
            chips = Chips(self.mesh, self._make_backend, self.engines.clear)
            for problem in self.judging.judge(judged_units(self.study, units, self.say), chips, self.console):
                self.give_up(problem)

    def say(self, text: str) -> None:
        self.console.print(text, style="yellow")

    def give_up(self, problem: str) -> None:
        """Take note of what cannot be had, and say it."""
        self.problems.append(problem)
        self.say(problem)

    def _compare_tokens(self, run: Run) -> None:
        """Say once that the study now has other tokens than the run was trained with."""
        changed = differences(to_json(run.tokens), to_json(self.study.run(run.name).tokens))
        if changed and run.name not in self._other_tokens:
            self._other_tokens.add(run.name)
            self.say(
                f"run {run.name} is swept as it was trained; its tokens in the study changed: {changed[0]}"
            )

    def _engine(self, run: Run, stops: tuple[int, ...]) -> Backend:
        key = (run.model, stops)
        if key not in self.engines:
            self.engines[key] = self._make_backend(run.model, self.study.evaluation, stops, self.mesh)
        return self.engines[key]

    def _scorers(self, model: ModelConfig) -> tuple[Scorer, Divergences]:
        if model not in self.scorers:
            of = model, self.study.evaluation, self.mesh
            self.scorers[model] = Likelihoods(*of), Divergences(*of)
        return self.scorers[model]


def sweep(
    study: Study,
    runs: Sequence[str],
    steps: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
    options: SweepOptions = DEFAULTS,
    console: Console | None = None,
) -> None:
    """Generate what is missing for the named runs (by default at all steps, on all benchmarks), then score.

    Everything that can be wrong with the input is found before the first completion is drawn. What is damaged
    or stale on disk is named, set aside and drawn or scored again; what cannot be had, because a snapshot is
    unsound or a scorer fails, is a JaxSftError after all the rest is done. With several workers, or processes
    of one job, each does its share of the units and no more.
    """
    options.check()
    worker = Worker.parse(options.worker).host(jax.process_index(), jax.process_count())
    known = [run.name for run in study.runs]
    for name in runs:
        if name not in known:
            raise UsageError(f"study {study.name}: no run {name!r}; it has {', '.join(known)}")
    names = list(dict.fromkeys(benchmarks or [b.name for b in study.benchmarks]))
    configs = [find_benchmark(study, name) for name in names]
    server = Server.of(options, runs, steps)
    if options.check_backend and server:
        run = trained_run(study, runs[0])
        results(120).print(compare(study, run, (steps or [0])[0], configs, server, options))
        return
    sweeper = Sweep(study, configs, console, worker=worker, judges=options.judges, server=server)
    rounds = _rounds(sweeper, list(dict.fromkeys(runs)), steps, options)
    try:
        problems = _sweep_rounds(sweeper, rounds, runs, steps, options)
    except Exception:
        wait_for_all("swept")  # a process that left would take the others of its job with it
        raise
    wait_for_all("swept")
    if problems:
        raise JaxSftError(
            f"not all could be had: {'; '.join(problems)}; mend the cause, then the same command goes on"
        )


def _rounds(
    sweeper: Sweep, runs: Sequence[str], steps: Sequence[int] | None, options: SweepOptions
) -> Iterator[dict[str, list[int]]]:
    """Snapshots to sweep by run: all that there are, or as they come."""
    if options.follow:
        mine = partial(_steps_of_share, sweeper, steps)
        yield from follow(sweeper.study, runs, mine, options.follow_timeout, sweeper.say)
        return
    found = {}
    for name in runs:
        try:
            found[name] = snapshots_to_sweep(sweeper.study, trained_run(sweeper.study, name), steps)
        except UsageError:
            raise
        except JaxSftError as error:  # not trained, or damaged: the other runs are swept
            sweeper.give_up(str(error))
    yield found


def _steps_of_share(
    sweeper: Sweep, steps: Sequence[int] | None, run: str, planned: Sequence[int]
) -> list[int]:
    """Steps at which the worker has units of a run; UsageError when `steps` names one that will not come."""
    for step in steps or ():
        if step not in planned:
            there = ", ".join(map(str, planned))
            raise UsageError(f"run {run}: will have no snapshot at step {step}; planned are {there}")
    return sorted({step for step, _ in sweeper.share(run, steps or planned)})


def _sweep_rounds(
    sweeper: Sweep,
    rounds: Iterator[dict[str, list[int]]],
    runs: Sequence[str],
    steps: Sequence[int] | None,
    options: SweepOptions,
) -> list[str]:
    """Sweep and score round after round; what could not be had, in words."""
    study, problems = sweeper.study, list[str]()
    names = [b.name for b, _ in sweeper.asked]
    for found in rounds:
        works, units = [], set[Unit]()
        for name, present in found.items():
            record = RunRecord.read(run_folder(study, name))
            planned = steps or (record and record.snapshot_steps) or ()
            share = sweeper.share(name, sorted({*planned, *present}))
            units.update((name, step, benchmark) for step, benchmark in share if step in present)
            works.append(sweeper.todo(trained_run(study, name), present, share))
        while works:
            sweeper.generate(works.pop(0))
        everything = sweeper.worker == ALONE and not options.follow
        only = None if everything else units
        sweeper.judge(units_with_completions(study, runs, steps, names, only))
        problems += score_units(study, runs, steps, names, only)[1]
    return [*sweeper.problems, *problems]


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
