"""Random rows, packed by the loader or laid out plainly, one example a row; and training on them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_sft.config import DataConfig, ModelConfig, OptimizerConfig, Run, Study
from jax_sft.data.batches import Batches, iterate
from jax_sft.data.rows import TokenisedRows
from jax_sft.packed import Rows, empty_rows
from jax_sft.training.placement import DeviceBatch, place_batch
from jax_sft.training.start import start_state
from jax_sft.training.step import TrainState, abstract_state, compile_step

MODEL = ModelConfig(
    vocab_size=96,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_size=48,
    qk_norm=True,
)
MICRO_BATCHES = 3
DATA = DataConfig(batch_size=20, row_length=64, rows_per_micro_batch=8)
RUN = Run(
    compute_dtype="float32", model=MODEL, data=DATA, optimizer=OptimizerConfig(learning_rate=3e-3), seed=3
)


def random_rows(count: int = 160, longest: int = 64, seed: int = 0) -> TokenisedRows:
    """Rows of random tokens, short ones and long ones, each with a prompt and a response."""
    rng = np.random.default_rng(seed)
    lengths_E = np.clip(rng.lognormal(3.2, 0.7, count).astype(int), 2, longest)
    return TokenisedRows(
        tokens_N=rng.integers(0, MODEL.vocab_size, lengths_E.sum()).astype(np.int32),
        is_target_N=np.concatenate([np.arange(n) >= rng.integers(1, n) for n in lengths_E]),
        offsets=np.concatenate([[0], np.cumsum(lengths_E)]),
        advantage_E=np.ones(count, np.float32),
    )


def one_example_a_row(batches: Batches, step: int) -> DeviceBatch:
    """The rows of a step unpacked, one example to a row, with token-mean weights; fill rows at the end."""
    source, numbers = batches.rows, batches.rows_of_step(step)
    shape = (MICRO_BATCHES * batches.config.rows_per_micro_batch, batches.config.row_length)
    rows = empty_rows(shape)
    for place, number in enumerate(numbers):
        part = slice(source.offsets[number], source.offsets[number + 1])
        ids, learnt = source.tokens_N[part], source.is_target_N[part]
        n = len(ids)
        rows.tokens[place, :n], rows.positions[place, :n], rows.segments[place, :n] = ids, np.arange(n), 1
        rows.targets[place, : n - 1], rows.weights[place, : n - 1] = ids[1:], learnt[1:]
    rows.weights[:] /= rows.weights.sum()
    micro_batches = Rows(*(jnp.asarray(x.reshape(MICRO_BATCHES, -1, shape[1])) for x in rows))
    return DeviceBatch(micro_batches, jnp.asarray(MICRO_BATCHES))


def packed(batches: Batches, step: int) -> DeviceBatch:
    """The rows of a step as the loader packs them, with unused micro-batches up to the same shape."""
    batch = batches.batch(step)
    assert batch.packed_row_count < batch.row_count, "nothing was packed"
    room = ((0, MICRO_BATCHES - len(batch.rows.tokens)), (0, 0), (0, 0))
    rows = jax.tree.map(lambda x_MRT: jnp.pad(x_MRT, room), batch.rows)
    return DeviceBatch(rows, jnp.asarray(batch.micro_batches))


def train_steps(run: Run, batches: Batches, mesh: Mesh) -> tuple[TrainState, list[float]]:
    """The state after all steps of the batches, from the run's first, and their losses."""
    losses = []
    with jax.set_mesh(mesh):
        wanted = abstract_state(run, mesh)
        state = start_state(Study("study", (run,)), run, wanted)
        step = compile_step(run, wanted, batches.total_steps)
        for batch in iterate(batches):
            state, metrics = step(state, place_batch(batch, mesh))
            losses.append(float(metrics["loss"]))
    return state, losses
