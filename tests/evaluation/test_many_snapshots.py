"""One process sweeps snapshot after snapshot: what it holds of the last is what it held of the first."""

import gc
import io
from pathlib import Path
from typing import Any

import jax
import pytest
from rich.console import Console

from jax_sft.checkpoints.store import snapshot_store
from jax_sft.config import ParallelismConfig, SnapshotConfig, replace
from jax_sft.evaluation.sweep import Sweep
from jax_sft.generation.engine import Engine
from jax_sft.models import Params
from jax_sft.sharding import make_mesh
from jax_sft.training.loop import prepare
from jax_sft.training.start import write_record
from tests.evaluation.tiny import BENCHMARKS, EVALUATION, FIRST, MODEL, completion_files, random_params, study

WIDER = replace(MODEL, hidden_size=256, mlp_size=1024)
"""1.9 million parameters: a copy of the weights that stays shows beside what else a process takes."""
COUNT = 100
MEGABYTE = 1 << 20


def resident() -> int:
    """Bytes of host memory of this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.split("\n") if line.startswith("VmRSS:")))


def held_by_device() -> int:
    """Bytes of all arrays that are alive."""
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


@pytest.mark.slow
def test_memory_is_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of 7.6 MB as read; each copy that stayed would be seen in both numbers."""
    schedule = SnapshotConfig(schedule="every 1")
    data = replace(FIRST.data, rows=8 * COUNT)
    run = replace(FIRST, model=WIDER, data=data, snapshots=schedule)
    of = study(tmp_path, runs=(run,), benchmarks=(replace(BENCHMARKS[0], limit=2, max_new_tokens=4),))
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    monkeypatch.setattr("jax_sft.evaluation.sweep.make_generation_mesh", lambda _: mesh)
    wanted = Engine(WIDER, EVALUATION, (), mesh).abstract_params()
    steps = list(range(1, COUNT + 1))
    weights = [random_params(wanted, seed) for seed in (1, 2)]
    with snapshot_store(write_record(of, run, prepare(of, run), steps)) as store:
        for step in steps:
            store.save(step, weights[step % 2])
    del weights
    seen, before = list[tuple[int, int]](), held_by_device()
    load = Engine.load

    def loaded(self: Engine, params: Params) -> Any:
        load(self, params)
        seen.append((resident(), held_by_device()))

    monkeypatch.setattr(Engine, "load", loaded)
    sweeper = Sweep(of, of.benchmarks, Console(file=io.StringIO()))
    sweeper.generate(sweeper.todo(run, steps))
    assert len(completion_files(tmp_path)) == len(seen) == COUNT
    copy = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(wanted))
    assert {device for _, device in seen} == {before + copy}, "the next is read into the host's memory"
    early = max(host for host, _ in seen[2 : 2 + COUNT // 4])
    assert seen[-1][0] - early < 40 * MEGABYTE + 2 * copy
