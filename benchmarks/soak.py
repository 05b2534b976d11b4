"""Many snapshots of one run: host memory, the time a save holds training up, and what training loses by it.

    python benchmarks/soak.py                    # 200 snapshots of 50 MB

The train step of a Qwen3 of 25 M parameters runs on one CPU device, a snapshot after each update; before that
the same steps without snapshots, and some saves that are waited for. Snapshots are deleted behind the run.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from etils import epath

from jax_sft.checkpoints.store import snapshot_store, to_snapshot
from jax_sft.config import DataConfig, ModelConfig, ParallelismConfig, Run, Study
from jax_sft.data.loader import BatchPlan
from jax_sft.data.rows import TokenisedRows
from jax_sft.models.flops import model_size
from jax_sft.sharding import make_mesh
from jax_sft.training.start import start_state
from jax_sft.training.step import compile_step, place_batch

MODEL = ModelConfig(
    vocab_size=8192,
    hidden_size=512,
    num_layers=6,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    mlp_size=1536,
    tie_embeddings=True,
)
DATA = DataConfig(batch_size=4, row_length=256, rows_per_micro_batch=4)
RUN = Run(model=MODEL, data=DATA, compute_dtype="float32")
WAITED = 5
KEPT = 3


def resident() -> float:
    """Megabytes of host memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.split("\n") if line.startswith("VmRSS:"))) / 1024


def random_rows() -> TokenisedRows:
    """Four rows of 256 tokens."""
    tokens_N = np.random.default_rng(0).integers(0, MODEL.vocab_size, 4 * 256).astype(np.int32)
    offsets = 256 * np.arange(5)
    is_target_N = np.arange(4 * 256) % 256 > 0
    return TokenisedRows(tokens_N, is_target_N, offsets, np.ones(4, np.float32))


def main() -> None:
    """Train without, then with snapshots, and print what they cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--snapshots", type=int, default=200)
    count = parser.parse_args().snapshots
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    plan = BatchPlan(random_rows(), DATA, 0, 1)
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(mesh):
        state = start_state(Study("soak", (RUN,)), RUN, mesh)
        step = compile_step(RUN, mesh, count)
        batch = place_batch(plan.batch(0), mesh)
        state = jax.block_until_ready(step(state, batch)[0])

        def train(steps: int) -> float:
            nonlocal state
            start = time.perf_counter()
            for _ in range(steps):
                state = step(state, batch)[0]
            jax.block_until_ready(state)
            return time.perf_counter() - start

        alone = train(count) / count
        held, memory = [], []
        with snapshot_store(epath.Path(folder)) as store:
            waited = []
            for number in range(WAITED):
                start = time.perf_counter()
                store.save(number, to_snapshot(state.params))
                store.wait()
                waited.append(time.perf_counter() - start)
            start = time.perf_counter()
            for number in range(WAITED, WAITED + count):
                state = jax.block_until_ready(step(state, batch)[0])
                before = time.perf_counter()
                store.save_later(number, to_snapshot(state.params))
                held.append(time.perf_counter() - before)
                memory.append(resident())
                if number >= KEPT:
                    shutil.rmtree(Path(folder) / "snapshots" / str(number - KEPT), ignore_errors=True)
            with_saves = (time.perf_counter() - start) / count
    size = 2 * model_size(MODEL).total / 1e6
    share = np.median(held) / np.median(waited)
    grown = memory[-1] / memory[9] - 1
    print(f"{count} snapshots of {size:.0f} MB; a step takes {alone:.2f} s")
    print(f"memory after 10 and at the end: {memory[9]:.0f} and {memory[-1]:.0f} MB ({grown:+.1%})")
    print(f"a save holds training up {np.median(held):.3f} s, {share:.0%} of what it takes if waited for")
    print(f"a step with a snapshot each: {with_saves:.2f} s ({with_saves / alone - 1:+.1%})")


if __name__ == "__main__":
    main()
