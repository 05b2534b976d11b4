"""The sweep: every snapshot of every run answers every benchmark, through one compiled engine.

All missing completions of a snapshot go through the engine as one stream, so that its slots stay full
from one benchmark to the next; meanwhile the next snapshot is read. Scoring follows, from the files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
from rich.console import Console

from jax_sft.checkpoints.presence import Presence
from jax_sft.config import BenchmarkConfig, ModelConfig, Run, Study, TokensConfig
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.completions import CompletionsFile, check_settings, set_aside
from jax_sft.evaluation.items import find_benchmark, store_items
from jax_sft.evaluation.judging import check_sandbox
from jax_sft.evaluation.score import score_units
from jax_sft.evaluation.snapshots import Snapshots, snapshots_to_sweep
from jax_sft.generation.backend import Backend, Completion, MakeBackend, Request
from jax_sft.generation.engine import Engine
from jax_sft.sharding import make_generation_mesh
from jax_sft.study.folder import (
    aside_folder,
    run_file,
    run_folder,
    unit_folder,
    unit_folders,
)
from jax_sft.study.provenance import Present
from jax_sft.study.records import CompletionLine, RunRecord, short_hash
from jax_sft.tasks.task import get_task
from jax_sft.terminal import messages, progress_of_completions
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt, stop_ids
from jax_sft.tokens.templates import load_template
from jax_sft.tokens.tokenizer import Tokenizer

Prompts = dict[str, tuple[int, ...]]
"""Tokens of each item's prompt, by item id."""


@dataclass(frozen=True)
class _Voice:
    """How a run reads and writes: its tokenizer, and every benchmark's prompts in its template."""

    tokenizer: Tokenizer
    template_hash: str
    stops: tuple[int, ...]
    prompts: dict[str, Prompts]


@dataclass
class _Unit:
    """One (run, step, benchmark) that still misses completions."""

    benchmark: BenchmarkConfig
    file: CompletionsFile
    prompts: Prompts

    def requests(self) -> Iterator[tuple[Request, str]]:
        """The missing completions, each with its item; the ids keep apart what several benchmarks ask."""
        b = self.benchmark
        for item, sample in self.file.missing():
            prompt = self.prompts[item]
            yield Request(f"{b.name}/{item}", sample, prompt, b.max_new_tokens, b.sampling), item


@dataclass
class Work:
    """What a run's sweep has still to do: its snapshots in order, each with its units."""

    run: Run
    tokenizer: Tokenizer
    engine: Backend
    todo: dict[int, list[_Unit]]
    complete: list[int]
    """Steps of which nothing is missing."""


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
        self._voices: dict[str, _Voice] = {}
        self.problems: list[str] = []
        """What could not be had, and why."""
        for b in benchmarks:
            if (ask := get_task(b.task).ask) != "generate":
                raise UsageError(
                    f"benchmark {b.name}: its task {b.task} is asked by {ask}, which a sweep cannot do yet; "
                    "leave it out with --benchmarks"
                )
            check_sandbox(b.task, study.evaluation.allow_unsandboxed_code)
            self._check_drawn(b)
        self.asked = [(b, store_items(study, b, self._say)) for b in benchmarks]

    def todo(self, run: Run, steps: Sequence[int]) -> Work:
        """What is still to do for the run's snapshots at `steps`; finds bad input before any work is done."""
        voice = self._voice(run.tokens)
        presence = Presence(self.study, run.name)
        self._check_template(run, presence.record, voice.template_hash)
        self._set_aside_steps(run, presence)
        todo: dict[int, list[_Unit]] = {}
        for step in steps:
            units = [self._unit(presence.of(step, b.name), b, voice.prompts[b.name]) for b, _ in self.asked]
            if missing := [unit for unit in units if unit.file.missing()]:
                todo[step] = missing
        self._check_context([unit for units in todo.values() for unit in units])
        complete = [step for step in steps if step not in todo]
        return Work(run, voice.tokenizer, self._engine(run, voice.stops), todo, complete)

    def generate(self, work: Work) -> None:
        """Draw every missing completion that can be had; `problems` tells of the others."""
        snapshots = Snapshots(self.study, work.run.name, work.engine.abstract_params(), self.give_up)
        for step, params in snapshots.read(list(work.todo)):
            units = work.todo[step]
            asked = [(unit, request, item) for unit in units for request, item in unit.requests()]
            owners = {(request.id, request.sample): (unit.file, item) for unit, request, item in asked}
            work.engine.load(params)
            answers = work.engine.generate((request for _, request, _ in asked), self.study.evaluation.seed)
            try:
                with (
                    progress_of_completions(self.console, f"{work.run.name} @ {step}", len(asked)) as advance,
                    jax.transfer_guard("disallow"),
                ):
                    for request, completion in answers:
                        file, item = owners[request.id, request.sample]
                        file.add(_line(item, request.sample, completion, work.tokenizer))
                        advance(completion.token_count)
            finally:
                for unit in units:
                    unit.file.flush()
        snapshots.examine(work.complete)

    def _say(self, text: str) -> None:
        self.console.print(text, style="yellow")

    def give_up(self, problem: str) -> None:
        """Take note of what cannot be had, and say it."""
        self.problems.append(problem)
        self._say(problem)

    def _set_aside_steps(self, run: Run, presence: Presence) -> None:
        """Units at steps that the run no longer has do not count."""
        steps = presence.record.snapshot_steps if presence.record else ()
        for step, benchmark, folder in list(unit_folders(self.study, run.name)):
            if steps and step not in steps:
                aside = aside_folder(self.study, run.name, step, benchmark)
                target = set_aside(folder, aside)
                self._say(f"{folder}: run {run.name} has no step {step} now; set aside as {target}")

    def _voice(self, tokens: TokensConfig) -> _Voice:
        """Made once for all runs that read and write alike."""
        key = repr(tokens)
        if key not in self._voices:
            tokenizer = load_tokenizer(tokens)
            template = load_template(tokens, tokenizer)
            prompts = {
                b.name: {
                    item.id: tuple(render_prompt(tokenizer, template, item.messages).tolist())
                    for item in items
                }
                for b, items in self.asked
            }
            self._voices[key] = _Voice(tokenizer, template.hash, stop_ids(tokenizer, template), prompts)
        return self._voices[key]

    def _unit(self, present: Present, b: BenchmarkConfig, prompts: Prompts) -> _Unit:
        place = self.study, present.run, present.step, b.name
        hashes = {item: short_hash(str(prompt).encode()) for item, prompt in prompts.items()}
        record = present.as_unit(self._settings(b), hashes)
        file = CompletionsFile(unit_folder(*place), aside_folder(*place), record, b.samples, self._say)
        return _Unit(b, file, prompts)

    def _settings(self, b: BenchmarkConfig) -> dict[str, Any]:
        """All that a completion depends on besides snapshot, item and sample."""
        return {
            "max_new_tokens": b.max_new_tokens,
            **asdict(b.sampling),
            "seed": self.study.evaluation.seed,
            "compute_dtype": self.study.evaluation.compute_dtype,
        }

    def _check_drawn(self, b: BenchmarkConfig) -> None:
        """One curve holds completions of one kind: all are drawn with the settings of the first."""
        for run in self.study.runs:
            for _, name, folder in unit_folders(self.study, run.name):
                if name == b.name and check_settings(folder, self._settings(b)):
                    return

    def _check_context(self, units: Sequence[_Unit]) -> None:
        """The longest prompt of every benchmark must leave room for its completion."""
        context = self.study.evaluation.context
        for unit in units:
            item, prompt = max(unit.prompts.items(), key=lambda pair: len(pair[1]))
            need = len(prompt) + unit.benchmark.max_new_tokens
            if need > context:
                raise UsageError(
                    f"benchmark {unit.benchmark.name}: item {item!r} has a prompt of {len(prompt)} tokens, "
                    f"which with max_new_tokens {unit.benchmark.max_new_tokens} does not fit "
                    f"evaluation.context {context}; raise it to {need} or lower max_new_tokens"
                )

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


def _line(item: str, sample: int, completion: Completion, tokenizer: Tokenizer) -> CompletionLine:
    text = tokenizer.decode(list(completion.tokens))
    return CompletionLine(item, sample, text, completion.token_count, completion.finish)
