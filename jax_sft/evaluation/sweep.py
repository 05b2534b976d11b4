"""The sweep: every snapshot of every run answers every benchmark, through one compiled engine.

All missing completions of a snapshot go through the engine as one stream, so that its slots stay full
from one benchmark to the next; meanwhile the next snapshot is read. Scoring follows, from the files.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jax_sft.checkpoints.store import load_snapshot, snapshot_store
from jax_sft.config import BenchmarkConfig, ModelConfig, ParallelismConfig, Run, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.benchmarks.base import Item
from jax_sft.evaluation.completions import CompletionsFile
from jax_sft.evaluation.results import score, store_items
from jax_sft.files import read_json
from jax_sft.generation.engine import Completion, Engine, Request
from jax_sft.layout import run_folder, unit_folder
from jax_sft.models.decoder import Params
from jax_sft.sharding import make_mesh
from jax_sft.tokens.rendering import render_prompt, stop_ids
from jax_sft.tokens.templates import load_template
from jax_sft.tokens.tokenizer import Tokenizer, load_tokenizer

EngineKey = tuple[ModelConfig, tuple[int, ...]]


@dataclass
class _Unit:
    """One (run, step, benchmark) that still misses completions."""

    benchmark: BenchmarkConfig
    file: CompletionsFile
    prompts: dict[str, tuple[int, ...]]

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


class Sweep:
    """Generates for runs of one study; engines are made once for each model shape and shared by all."""

    def __init__(self, study: Study, console: Console | None = None) -> None:
        self.study = study
        self.console = console or Console(stderr=True)
        self.engines: dict[EngineKey, Engine] = {}
        self.mesh = make_mesh(ParallelismConfig(tensor=study.evaluation.tensor))

    def generate(self, run: Run, steps: Sequence[int], benchmarks: Sequence[BenchmarkConfig]) -> None:
        """Draw every missing completion of the run's snapshots at `steps`."""
        tokenizer = load_tokenizer(run.tokens)
        template = load_template(run.tokens, tokenizer)
        self._check_template(run, template.hash)
        engine = self._engine(run, stop_ids(tokenizer, template))
        items = {b.name: store_items(self.study, b) for b in benchmarks}
        prompts = {
            name: {item.id: tuple(render_prompt(tokenizer, template, item.messages).tolist()) for item in of}
            for name, of in items.items()
        }
        todo = [(step, units) for step in steps if (units := self._units(run, step, benchmarks, items, prompts))]
        folder = run_folder(self.study, run.name)
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = [reader.submit(load_snapshot, folder, todo[0][0], engine.abstract_params())] if todo else []
            for i, (step, units) in enumerate(todo):
                params = ahead.pop().result()
                if i + 1 < len(todo):
                    ahead.append(reader.submit(load_snapshot, folder, todo[i + 1][0], engine.abstract_params()))
                self._stream(run, step, units, engine, params, tokenizer)

    def _units(
        self,
        run: Run,
        step: int,
        benchmarks: Sequence[BenchmarkConfig],
        items: dict[str, list[Item]],
        prompts: dict[str, dict[str, tuple[int, ...]]],
    ) -> list[_Unit]:
        units = []
        for b in benchmarks:
            expected = [(item.id, sample) for item in items[b.name] for sample in range(b.samples)]
            file = CompletionsFile(unit_folder(self.study, run.name, step, b.name), expected)
            if file.missing():
                units.append(_Unit(b, file, prompts[b.name]))
        return units

    def _stream(
        self, run: Run, step: int, units: list[_Unit], engine: Engine, params: Params, tokenizer: Tokenizer
    ) -> None:
        by_name = {unit.benchmark.name: unit for unit in units}
        requests = [request for unit in units for request in unit.requests()]
        try:
            with _progress(self.console, f"{run.name} @ {step}", len(requests)) as advance:
                for completion in engine.generate(params, requests, self.study.evaluation.seed):
                    name, _, item = completion.item.partition("/")
                    by_name[name].file.add(_row(replace(completion, item=item), tokenizer))
                    advance(completion.generated)
        finally:
            for unit in units:
                unit.file.flush()

    def _engine(self, run: Run, stops: tuple[int, ...]) -> Engine:
        key = (run.model, stops)
        if key not in self.engines:
            self.engines[key] = Engine(run.model, self.study.evaluation, stops, self.mesh)
        return self.engines[key]

    def _check_template(self, run: Run, template_hash: str) -> None:
        path = run_folder(self.study, run.name) / "run.json"
        if not path.exists():
            raise JaxSftError(f"{path}: no such file; train run {run.name} first")
        if read_json(path)["template_hash"] != template_hash:
            raise UsageError(f"run {run.name}: the chat template is not the one it was trained with ({path})")


def sweep(study: Study, runs: list[str], steps: list[int] | None, benchmarks: list[str] | None) -> None:
    """Generate what is missing for the named runs (at the named steps and benchmarks, all by default), then score."""
    sweeper = Sweep(study)
    chosen = choose_benchmarks(study, benchmarks)
    for name in runs:
        run = study.run(name)
        sweeper.generate(run, snapshots_to_sweep(study, run, steps, sweeper.console), chosen)
    score(study, runs, steps, [b.name for b in chosen])


def choose_benchmarks(study: Study, names: list[str] | None) -> list[BenchmarkConfig]:
    """The study's benchmarks of those names (all by default); UsageError for an unknown one."""
    known = {b.name: b for b in study.benchmarks}
    for name in names or []:
        if name not in known:
            raise UsageError(f"study {study.name} has no benchmark {name!r}; it has {', '.join(known)}")
    return [known[name] for name in names] if names else list(study.benchmarks)


def snapshots_to_sweep(study: Study, run: Run, steps: list[int] | None, console: Console) -> list[int]:
    """Finished, sound snapshots of a run, in order; an unsound one is named and passed over."""
    folder = run_folder(study, run.name)
    if not (folder / "snapshots").exists():
        raise JaxSftError(f"{folder}: has no snapshots; train run {run.name} first")
    store = snapshot_store(folder, read_only=True)
    present = store.steps()
    absent = sorted(set(steps or []) - set(present))
    if absent:
        raise UsageError(f"run {run.name} has no snapshot at step {absent[0]}; there are {present}")
    sound = []
    for step in steps or present:
        fault = store.fault(step)
        if fault:
            console.print(f"[yellow]{store.folder / str(step)}: {fault}; passed over")
        else:
            sound.append(step)
    return sorted(sound)


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
