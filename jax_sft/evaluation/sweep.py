"""The sweep: every snapshot of every run answers every benchmark, through one compiled engine.

All missing completions of a snapshot go through the engine as one stream, so that its slots stay full
from one benchmark to the next; meanwhile the next snapshot is read. Scoring follows, from the files.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jax_sft.checkpoints.store import snapshot_store
from jax_sft.config import BenchmarkConfig, ModelConfig, Run, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.completions import CompletionsFile, check_settings
from jax_sft.evaluation.results import find_benchmark, score, store_items
from jax_sft.files import read_json
from jax_sft.generation.engine import Completion, Engine, Request
from jax_sft.layout import run_folder, unit_folder
from jax_sft.models.decoder import Params
from jax_sft.sharding import make_generation_mesh
from jax_sft.studies import run_from_json
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt, stop_ids
from jax_sft.tokens.templates import load_template
from jax_sft.tokens.tokenizer import Tokenizer

Prompts = dict[str, tuple[int, ...]]
"""Tokens of each item's prompt, by item id."""
EngineKey = tuple[ModelConfig, tuple[int, ...]]


@dataclass
class _Unit:
    """One (run, step, benchmark) that still misses completions."""

    benchmark: BenchmarkConfig
    file: CompletionsFile
    prompts: Prompts

    def requests(self) -> Iterator[Request]:
        """The missing completions; item ids carry the benchmark's name, which keeps their keys apart."""
        b = self.benchmark
        for item, sample in self.file.missing():
            yield Request(
                f"{b.name}/{item}",
                sample,
                self.prompts[item],
                b.max_new_tokens,
                b.temperature,
                b.top_p,
                b.top_k,
                b.min_p,
            )


@dataclass
class Work:
    """What a run's sweep has still to do: its snapshots in order, each with its units."""

    run: Run
    tokenizer: Tokenizer
    engine: Engine
    todo: list[tuple[int, list[_Unit]]]


class Sweep:
    """Generates for runs of one study; engines are made once for each model shape and shared by all."""

    def __init__(
        self, study: Study, benchmarks: Sequence[BenchmarkConfig], console: Console | None = None
    ) -> None:
        """Loads the items of the benchmarks; UsageError when a file is missing or the mesh does not fit."""
        self.study = study
        self.console = console or Console(stderr=True, soft_wrap=True)
        self.engines: dict[EngineKey, Engine] = {}
        self.mesh = make_generation_mesh(study.evaluation.tensor)
        for b in benchmarks:
            self._check_drawn(b)
        self.asked = [(b, store_items(study, b)) for b in benchmarks]

    def plan(self, run: Run, steps: Sequence[int]) -> Work:
        """What is still to do for the run's snapshots at `steps`; finds bad input before any work is done."""
        tokenizer = load_tokenizer(run.tokens)
        template = load_template(run.tokens, tokenizer)
        self._check_template(run, template.hash)
        prompts = {
            b.name: {
                item.id: tuple(render_prompt(tokenizer, template, item.messages).tolist()) for item in items
            }
            for b, items in self.asked
        }
        todo = []
        for step in steps:
            units = [self._unit(run, step, b, prompts[b.name]) for b, _ in self.asked]
            if missing := [unit for unit in units if unit.file.missing()]:
                todo.append((step, missing))
        self._check_room([unit for _, units in todo for unit in units])
        return Work(run, tokenizer, self._engine(run, stop_ids(tokenizer, template)), todo)

    def generate(self, work: Work) -> None:
        """Draw every missing completion; JaxSftError when no snapshot could be used."""
        for step, units, params in self._snapshots(work):
            by_name = {unit.benchmark.name: unit.file for unit in units}
            requests = [request for unit in units for request in unit.requests()]
            try:
                with _progress(self.console, f"{work.run.name} @ {step}", len(requests)) as advance:
                    for one in work.engine.generate(params, requests, self.study.evaluation.seed):
                        name, _, item = one.item.partition("/")
                        by_name[name].add(_row(replace(one, item=item), work.tokenizer))
                        advance(one.generated)
            finally:
                for unit in units:
                    unit.file.flush()

    def _snapshots(self, work: Work) -> Iterator[tuple[int, list[_Unit], Params]]:
        """Each snapshot's weights, the next being read meanwhile; an unsound one is named and passed over."""
        wanted, used = work.engine.abstract_params(), 0
        folder = run_folder(self.study, work.run.name)
        with snapshot_store(folder, read_only=True) as store, ThreadPoolExecutor(max_workers=1) as reader:

            def read(step: int) -> Params | str:
                return store.fault(step) or store.load(step, wanted, checked=True)

            ahead = reader.submit(read, work.todo[0][0]) if work.todo else None
            for index, (step, units) in enumerate(work.todo):
                assert ahead is not None
                params = ahead.result()
                if index + 1 < len(work.todo):
                    ahead = reader.submit(read, work.todo[index + 1][0])
                if isinstance(params, str):
                    self.console.print(f"[yellow]{store.folder / str(step)}: {params}; passed over")
                    continue
                used += 1
                yield step, units, params
        if work.todo and not used:
            raise JaxSftError(f"{store.folder}: no snapshot could be used; train run {work.run.name} again")

    def _unit(self, run: Run, step: int, b: BenchmarkConfig, prompts: Prompts) -> _Unit:
        expected = [(item, sample) for item in prompts for sample in range(b.samples)]
        folder = unit_folder(self.study, run.name, step, b.name)
        return _Unit(b, CompletionsFile(folder, expected, self._settings(b)), prompts)

    def _settings(self, b: BenchmarkConfig) -> dict[str, Any]:
        """All that a completion depends on besides snapshot, item and sample."""
        return {
            "max_new_tokens": b.max_new_tokens,
            "temperature": b.temperature,
            "top_p": b.top_p,
            "top_k": b.top_k,
            "min_p": b.min_p,
            "seed": self.study.evaluation.seed,
            "compute_dtype": self.study.evaluation.compute_dtype,
        }

    def _check_drawn(self, b: BenchmarkConfig) -> None:
        """One curve holds completions of one kind: all are drawn with the settings of the first."""
        for run in self.study.runs:
            evals = run_folder(self.study, run.name) / "evals"
            for step in sorted(evals.iterdir()) if evals.exists() else ():
                if check_settings(step / b.name, self._settings(b)):
                    return

    def _check_room(self, units: Sequence[_Unit]) -> None:
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

    def _engine(self, run: Run, stops: tuple[int, ...]) -> Engine:
        key = (run.model, stops)
        if key not in self.engines:
            self.engines[key] = Engine(run.model, self.study.evaluation, stops, self.mesh)
        return self.engines[key]

    def _check_template(self, run: Run, template_hash: str) -> None:
        path = run_folder(self.study, run.name) / "run.json"
        if read_json(path).get("template_hash") != template_hash:
            raise UsageError(
                f"run {run.name}: its chat template is not the one that it was trained with, by {path}; "
                "restore tokens.template and its options, or train the run again under another name"
            )


def sweep(
    study: Study,
    runs: Sequence[str],
    steps: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
    console: Console | None = None,
) -> None:
    """Generate what is missing for the named runs (by default at all steps, on all benchmarks), then score.

    Everything that can be wrong with the input is found before the first completion is drawn.
    """
    known = [run.name for run in study.runs]
    for name in runs:
        if name not in known:
            raise UsageError(f"study {study.name}: no run {name!r}; it has {', '.join(known)}")
    names = list(dict.fromkeys(benchmarks or [b.name for b in study.benchmarks]))
    sweeper = Sweep(study, [find_benchmark(study, name) for name in names], console)
    chosen = [trained_run(study, name) for name in dict.fromkeys(runs)]
    works = [sweeper.plan(run, snapshots_to_sweep(study, run, steps)) for run in chosen]
    for work in works:
        sweeper.generate(work)
    score(study, runs, steps, names)


def trained_run(study: Study, name: str) -> Run:
    """The run as it was trained, flags included: what run.json says; JaxSftError when it is not trained."""
    path = run_folder(study, name) / "run.json"
    if not path.exists():
        raise JaxSftError(f"{path}: no such file; train run {name} first")
    return run_from_json(read_json(path)["run"], str(path))


def snapshots_to_sweep(study: Study, run: Run, steps: Sequence[int] | None) -> list[int]:
    """Steps of the run's finished snapshots, or those asked for; an error names what is absent."""
    folder = run_folder(study, run.name)
    present: list[int] = []
    if (folder / "snapshots").exists():
        with snapshot_store(folder, read_only=True) as store:
            present = store.steps()
    if not present:
        raise JaxSftError(f"{folder}: has no snapshots; train run {run.name} first")
    absent = sorted(set(steps or []) - set(present))
    if absent:
        there = ", ".join(map(str, present))
        raise UsageError(f"run {run.name}: has no snapshot at step {absent[0]}; there are {there}")
    return sorted(set(steps or present))


def _row(completion: Completion, tokenizer: Tokenizer) -> dict[str, str | int]:
    return {
        "item": completion.item,
        "sample": completion.sample,
        "completion": tokenizer.decode(list(completion.tokens)),
        "tokens": completion.generated,
        "finish": completion.finish,
    }


@contextmanager
def _progress(console: Console, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over completions with tokens per second; one line at the end where there is no terminal."""
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} tokens/s"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(name, total=total, rate="-")
    start, tokens, done = time.perf_counter(), 0, 0

    def advance(generated: int) -> None:
        nonlocal tokens, done
        tokens, done = tokens + generated, done + 1
        rate = tokens / (time.perf_counter() - start)
        bar.update(task, advance=1, rate=f"{rate:,.0f}")

    with bar:
        yield advance
    if not console.is_terminal:
        seconds = time.perf_counter() - start
        console.print(f"{name}: {done} completions, {tokens / seconds:,.0f} tokens/s, {seconds:.1f} s")
