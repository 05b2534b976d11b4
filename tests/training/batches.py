"""Random rows, packed by the loader or laid out plainly, one example a row; and training on them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_sft.config import DataConfig, ModelConfig, OptimizerConfig, Run, Study
from jax_sft.data.batches import BatchPlan, iterate
from jax_sft.data.rows import TokenisedRows
from jax_sft.training.placement import DeviceBatch, PackedRows, place_batch
from jax_sft.training.start import start_state
from jax_sft.training.step import TrainState, compile_step

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


def one_example_a_row(plan: BatchPlan, step: int) -> DeviceBatch:
    """The rows of a step unpacked, one example to a row, with token-mean weights; fill rows at the end."""
    rows, numbers = plan.rows, plan.rows_of_step(step)
    shape = (MICRO_BATCHES * plan.config.rows_per_micro_batch, plan.config.row_length)
    tokens, targets, positions, segments = (np.zeros(shape, np.int32) for _ in range(4))
    weights = np.zeros(shape, np.float32)
    for place, number in enumerate(numbers):
        part = slice(rows.offsets[number], rows.offsets[number + 1])
        ids, learnt = rows.tokens_N[part], rows.is_target_N[part]
        n = len(ids)
        tokens[place, :n], positions[place, :n], segments[place, :n] = ids, np.arange(n), 1
        targets[place, : n - 1], weights[place, : n - 1] = ids[1:], learnt[1:]
    weights /= weights.sum()
    micro = (x.reshape(MICRO_BATCHES, -1, shape[1]) for x in (tokens, targets, positions, segments, weights))
    return DeviceBatch(PackedRows(*map(jnp.asarray, micro)), jnp.asarray(MICRO_BATCHES))


def packed(plan: BatchPlan, step: int) -> DeviceBatch:
    """The rows of a step as the loader packs them, with unused micro-batches up to the same shape."""
    batch = plan.batch(step)
    assert batch.packed_rows < batch.rows, "nothing was packed"
    arrays = (batch.tokens_MRT, batch.targets_MRT, batch.positions_MRT, batch.segments_MRT, batch.weights_MRT)
    room = ((0, MICRO_BATCHES - len(batch.tokens_MRT)), (0, 0), (0, 0))
    return DeviceBatch(
        PackedRows(*(jnp.pad(x_MRT, room) for x_MRT in arrays)), jnp.asarray(batch.micro_batches)
    )


def train_steps(run: Run, plan: BatchPlan, mesh: Mesh) -> tuple[TrainState, list[float]]:
    """The state after all steps of the plan, from the run's first, and their losses."""
    losses = []
    with jax.set_mesh(mesh):
        state = start_state(Study("study", (run,)), run, mesh)
        step = compile_step(run, mesh, plan.total_steps)
        for batch in iterate(plan):
            state, metrics = step(state, place_batch(batch, mesh))
            losses.append(float(metrics["loss"]))
    return state, losses
