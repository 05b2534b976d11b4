"""Many snapshots of one run: host memory, the time a save holds training up, and what training loses by it.

    python benchmarks/soak.py                    # 200 snapshots of 50 MB

The train step of a Qwen3 of 25 M parameters runs on one CPU device, a snapshot after each update; before that
some saves that are waited for. Then rounds of a few steps, by turns with one snapshot and without. Snapshots
are deleted behind the run.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from etils import epath

from jax_sft.checkpoints.store import Store, snapshot_store, to_snapshot
from jax_sft.config import DataConfig, ModelConfig, ParallelismConfig, Run, Study
from jax_sft.data.batches import Batches
from jax_sft.data.rows import TokenisedRows
from jax_sft.machine import limit_arenas
from jax_sft.models.size import model_size
from jax_sft.sharding import make_mesh
from jax_sft.training.placement import place_batch
from jax_sft.training.start import start_state
from jax_sft.training.step import abstract_state, compile_step

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


class Training:
    """The state, and the steps that move it on."""

    def __init__(self, count: int) -> None:
        mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
        self._mesh = mesh
        with jax.set_mesh(mesh):
            wanted = abstract_state(RUN, mesh)
            self.state = start_state(Study("soak", (RUN,)), RUN, wanted)
            self._step = compile_step(RUN, wanted, count)
            self._batch = place_batch(Batches(random_rows(), DATA, 0, 1).batch(1), mesh)
        self.steps(1)

    def steps(self, count: int) -> float:
        """Seconds of so many steps."""
        start = time.perf_counter()
        with jax.set_mesh(self._mesh):
            for _ in range(count):
                self.state = self._step(self.state, self._batch)[0]
            jax.block_until_ready(self.state)
        return time.perf_counter() - start


def save(store: Store, number: int, training: Training) -> float:
    """Start a snapshot and delete an old one; seconds that training is held up."""
    start = time.perf_counter()
    store.save_later(number, to_snapshot(training.state.params))
    seconds = time.perf_counter() - start
    shutil.rmtree(Path(store.folder) / str(number - KEPT), ignore_errors=True)
    return seconds


def waited_for(store: Store, training: Training) -> float:
    """Seconds of a save that is waited for, the median of some."""
    seconds = []
    for number in range(WAITED):
        start = time.perf_counter()
        store.save(number, to_snapshot(training.state.params))
        store.wait()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def slowed(store: Store, training: Training, first: int, rounds: int, every: int) -> float:
    """Seconds of `every` steps that begin with a snapshot over those without: medians of rounds of both."""
    without, with_one = [], []
    for number in range(first, first + rounds):
        without.append(training.steps(every))
        start = time.perf_counter()
        save(store, number, training)
        training.steps(every)
        with_one.append(time.perf_counter() - start)
    return float(np.median(with_one) / np.median(without) - 1)


def main() -> None:
    """Train with a snapshot after every step, then with fewer, and print what they cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--snapshots", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--every", type=int, default=4)
    flags = parser.parse_args()
    count, rounds, every = flags.snapshots, flags.rounds, flags.every
    limit_arenas()  # as the program does
    training = Training(count + 2 * rounds * every + 1)
    with tempfile.TemporaryDirectory() as folder, snapshot_store(epath.Path(folder)) as store:
        waited = waited_for(store, training)
        held, memory = [], []
        for number in range(WAITED, WAITED + count):
            training.steps(1)
            held.append(save(store, number, training))
            memory.append(resident())
        more = slowed(store, training, WAITED + count, rounds, every)
    size = 2 * model_size(MODEL).total / 1e6
    grown = memory[-1] / memory[9] - 1
    share = np.median(held) / waited
    print(f"{count} snapshots of {size:.0f} MB, one a step of {training.steps(5) / 5:.2f} s")
    print(f"memory after 10 and at the end: {memory[9]:.0f} and {memory[-1]:.0f} MB ({grown:+.1%})")
    print(f"a save holds training up {np.median(held):.4f} s, {share:.1%} of the {waited:.3f} s it takes")
    print(f"a snapshot every {every} steps: {more:+.1%} time")


if __name__ == "__main__":
    main()
