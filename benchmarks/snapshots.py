"""A sweep of nine snapshots over six benchmarks: what is compiled, and how soon the next snapshot answers.

    python benchmarks/snapshots.py              # a Qwen3 of 25 M random parameters
    python benchmarks/snapshots.py --layers 24  # of 77 M

The snapshots are random and saved as training saves them; then a sweep like any other, in one process. For
each change of snapshot: seconds from the last token of the one to the first program given to the device for
the next, and how much of that was waiting for the next to be read.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jax_sft.checkpoints.store import snapshot_store, to_snapshot
from jax_sft.config import (
    BenchmarkConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Run,
    Sampling,
    SnapshotConfig,
    Study,
    TokensConfig,
    replace,
)
from jax_sft.evaluation.snapshots import Snapshots
from jax_sft.evaluation.sweep import Sweep
from jax_sft.generation import engine as engine_file
from jax_sft.generation.engine import Engine
from jax_sft.models.params import init_plain
from jax_sft.models.size import model_size
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.training.loop import prepare
from jax_sft.training.start import write_record

MODEL = ModelConfig(
    vocab_size=load_tokenizer(TokensConfig()).vocab_size,
    hidden_size=512,
    num_layers=8,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    mlp_size=1536,
    qk_norm=True,
)
SNAPSHOTS = 9
SAMPLED = Sampling(temperature=1.0, top_p=0.95)
MINIATURE = {"miniature": True}
BENCHMARKS = (
    BenchmarkConfig("reasoning", "miniature", limit=8, max_new_tokens=24),
    BenchmarkConfig("long", "miniature", limit=6, max_new_tokens=64),
    BenchmarkConfig("refusals", "miniature_safety", limit=8, max_new_tokens=16),
    BenchmarkConfig("countdown", limit=8, max_new_tokens=32, options=MINIATURE),
    BenchmarkConfig("sampled", "countdown", limit=4, samples=3, max_new_tokens=32, sampling=SAMPLED),
    BenchmarkConfig(
        "filtered", "countdown", limit=4, samples=2, max_new_tokens=24, sampling=Sampling(0.7, 0.9, 20, 0.01)
    ),
)
COMPILED = "/jax/core/compile/backend_compile_duration"


class Times:
    """When what happened, by what the program itself calls."""

    def __init__(self) -> None:
        """Stands between the sweep and its parts from now on."""
        self.read: list[float] = []
        self.loads: list[tuple[float, float]] = []
        self.firsts: list[float] = []
        self.lasts: list[float] = []
        self.compiled: list[int] = []
        self._compilations, self._first = 0, True
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        self._after(Snapshots, "_load", lambda _: self.read.append(time.perf_counter()))
        self._after(Engine, "load", self._loaded, timed=True)
        self._before(Engine, "_dispatch", self._dispatched)
        self._after(engine_file, "on_host", lambda _: self._came())

    def _heard(self, event: str, _: float, **__: Any) -> None:
        self._compilations += event == COMPILED

    def _loaded(self, begun: float) -> None:
        self.loads.append((begun, time.perf_counter()))
        self._first = True

    def _dispatched(self) -> None:
        if self._first:
            self.firsts.append(time.perf_counter())
            self.lasts.append(0.0)
            self.compiled.append(0)
        self._first = False

    def _came(self) -> None:
        self.lasts[-1] = time.perf_counter()
        self.compiled[-1] = self._compilations

    @staticmethod
    def _after(owner: Any, name: str, note: Callable[[float], None], timed: bool = False) -> None:
        plain = getattr(owner, name)

        def noted(*args: Any) -> Any:
            begun = time.perf_counter() if timed else 0.0
            result = plain(*args)
            note(begun)
            return result

        setattr(owner, name, noted)

    @staticmethod
    def _before(owner: Any, name: str, note: Callable[[], None]) -> None:
        plain = getattr(owner, name)

        def noted(*args: Any) -> Any:
            note()
            return plain(*args)

        setattr(owner, name, noted)


def saved_study(root: str, model: ModelConfig) -> tuple[Study, list[int]]:
    """A study whose run has its snapshots."""
    steps = list(range(SNAPSHOTS))
    run = Run(
        name="run",
        model=model,
        compute_dtype="float32",
        data=DataConfig(
            source="miniature_base", rows=64, batch_size=8, row_length=64, rows_per_micro_batch=8
        ),
        snapshots=SnapshotConfig(schedule=", ".join(map(str, steps))),
    )
    shape = EvaluationConfig(slots=8, context=192, chunk=8, compute_dtype="float32")
    study = Study("nine", (run,), BENCHMARKS, shape, root=root)
    with snapshot_store(write_record(study, run, prepare(study, run), steps)) as store:
        for step in steps:
            store.save(step, to_snapshot(init_plain(model, jax.random.key(step), np.float32)))
    return study, steps


def main() -> None:
    """Sweep, then print what was compiled and a line for each change of snapshot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=MODEL.num_layers)
    model = replace(MODEL, num_layers=parser.parse_args().layers)
    with tempfile.TemporaryDirectory() as root:
        study, steps = saved_study(root, model)
        times = Times()
        sweeper = Sweep(study, BENCHMARKS, Console(file=io.StringIO()))
        sweeper.generate(sweeper.todo(study.runs[0], steps))
    [engine] = sweeper.engines.values()
    assert isinstance(engine, Engine)
    programs = {name: getattr(engine, name)._cache_size() for name in ("_decode", "_prefill", "_copy")}
    print(f"{len(steps)} snapshots of {model_size(model).total / 1e6:.0f} M, {len(BENCHMARKS)} benchmarks")
    print(f"compiled: {', '.join(f'{name[1:]} {count}' for name, count in programs.items())}")
    print(f"decode traced {engine.decode_compilations} time(s)")
    print(
        f"programs of all kinds compiled after the first snapshot: {times.compiled[-1] - times.compiled[0]}"
    )
    print("| snapshot | to the first program, s | of it waiting for the read | putting on the device |")
    print("| --- | --- | --- | --- |")
    for number in range(1, len(steps)):
        last, first = times.lasts[number - 1], times.firsts[number]
        begun, ended = times.loads[number]
        waited = max(0.0, min(times.read[number], begun) - last)
        print(f"| {steps[number]} | {first - last:.3f} | {waited:.3f} | {ended - begun:.3f} |")


if __name__ == "__main__":
    main()
