"""What the device holds while generating, and the programs that change it: prefill, decode, copies of pages.

All are pure functions of weights and slots. A slot is one row of every array of its progress, and its keys
and values are in the pages that the host gave it; nothing computed for a slot depends on another slot.
"""

from dataclasses import replace
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_sft.config import ModelConfig
from jax_sft.generation.sampling import SlotSampling, choose, log_probability, penalise
from jax_sft.models import Params
from jax_sft.models.decoder import forward_cached, logits
from jax_sft.models.memory import Layers, Memory, Orders
from jax_sft.sharding import BATCH_AXES


@flax.struct.dataclass
class Progress:
    """How far each slot has come."""

    token_B: jax.Array
    """Last token, not yet in the cache."""
    position_B: jax.Array
    """Its position."""
    active_B: jax.Array
    count_B: jax.Array
    """New tokens so far."""
    limit_B: jax.Array
    """New tokens at most."""
    keys_B2: jax.Array
    """Raw random key of the completion."""
    sampling: SlotSampling
    logprobs_B: jax.Array
    """Whether log-probabilities are wanted."""
    counts_BV: jax.Array
    """How often each token is among the new ones, as penalties need it; [B, 0] where none are possible."""


@flax.struct.dataclass
class Slots:
    """Everything about the sequences being decoded."""

    layers: Layers
    """Keys and values in pages."""
    progress: Progress


@flax.struct.dataclass
class Turn:
    """What changes before a chunk: slots in `starts_B` begin a sequence, those in `stops_B` end theirs."""

    starts_B: jax.Array
    stops_B: jax.Array
    table_BN: jax.Array
    """Pages of each slot's sequence, for all positions of the chunk."""
    token_B: jax.Array
    """Last token of the prompt of one that starts."""
    position_B: jax.Array
    """Its position: all before it are prefilled."""
    limit_B: jax.Array
    keys_B2: jax.Array
    sampling: SlotSampling
    logprobs_B: jax.Array


class Made(NamedTuple):
    """New tokens of the slots, and their log-probabilities; [B, C]."""

    tokens_BC: jax.Array
    logprobs_BC: jax.Array


@flax.struct.dataclass
class Chunk:
    """What one call of `decode` made: new tokens of slot b are tokens_BC[b, :made_B[b]]."""

    tokens_BC: jax.Array
    logprobs_BC: jax.Array
    """Of these, float32; 0 where they are not wanted."""
    made_B: jax.Array
    active_B: jax.Array
    """Whether the slot goes on."""


def empty_progress(slots: int, counted: int = 0) -> Progress:
    """Of slots that are all free, which count how often each of the first `counted` tokens comes."""
    integers_B = jnp.zeros(slots, jnp.int32)
    floats_B = jnp.zeros(slots, jnp.float32)
    return Progress(
        token_B=integers_B,
        position_B=integers_B,
        active_B=jnp.zeros(slots, bool),
        count_B=integers_B,
        limit_B=integers_B,
        keys_B2=jnp.zeros((slots, 2), jnp.uint32),
        sampling=SlotSampling(floats_B, floats_B, integers_B, floats_B, floats_B, floats_B),
        logprobs_B=jnp.zeros(slots, bool),
        counts_BV=jnp.zeros((slots, counted), jnp.uint16),
    )


def slot_shardings(slots: Slots, memory: Memory, mesh: Mesh) -> Slots:
    """Layout over the mesh of (abstract) slots: slots and pages over the data axes."""
    layers = jax.tree.map(lambda spec: NamedSharding(mesh, spec), memory.spec(slots.layers))
    return Slots(layers, jax.tree.map(lambda _: NamedSharding(mesh, P(BATCH_AXES)), slots.progress))


def prefill(
    params: Params, slots: Slots, orders: Orders, config: ModelConfig, memory: Memory, dtype: jnp.dtype
) -> Slots:
    """The slots after chunks of prompts have gone into pages.

    A prompt's last token stays behind: it is the first that `decode` reads, so that every new token comes out
    of the one decode program.
    """
    positions_RC = orders.start_R[:, None] + jnp.arange(orders.tokens_RC.shape[1])[None]
    contexts = memory.prompts(slots.layers, orders)
    _, layers = forward_cached(params, config, orders.tokens_RC, positions_RC, contexts, dtype)
    return Slots(layers, slots.progress)


def turned(at: Progress, turn: Turn) -> Progress:
    """Progress once slots have started and stopped."""
    fresh = Progress(
        token_B=turn.token_B,
        position_B=turn.position_B,
        active_B=turn.starts_B,
        count_B=jnp.zeros_like(turn.token_B),
        limit_B=turn.limit_B,
        keys_B2=turn.keys_B2,
        sampling=turn.sampling,
        logprobs_B=turn.logprobs_B,
        counts_BV=jnp.zeros_like(at.counts_BV),
    )

    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(turn.starts_B.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

    stopped = replace(at, active_B=at.active_B & ~turn.stops_B)
    return jax.tree.map(pick, fresh, stopped)


class Decoding(NamedTuple):
    """What the decode program was compiled for."""

    config: ModelConfig
    memory: Memory
    dtype: jnp.dtype
    chunk: int
    stop_ids: tuple[int, ...]


def decode(params: Params, slots: Slots, turn: Turn, how: Decoding) -> tuple[Slots, Chunk]:
    """Decode up to `chunk` tokens in every active slot; ends early when none is active."""
    start = turned(slots.progress, turn)
    B = start.token_B.shape[0]
    desk = how.memory.open(slots.layers, turn.table_BN, start.position_B, start.active_B, how.chunk)
    made = Made(jnp.zeros((B, how.chunk), jnp.int32), jnp.zeros((B, how.chunk), jnp.float32))
    Carry = tuple[jax.Array, Layers, Progress, Made]

    def one_token(carry: Carry) -> Carry:
        i, changed, at, made = carry
        contexts = desk.contexts(changed, i, at.position_B, at.active_B)
        new = at.token_B[:, None], at.position_B[:, None]
        hidden_B1D, changed = forward_cached(params, how.config, *new, contexts, how.dtype)
        token_B, logprob_B = next_token(logits(params, how.config, hidden_B1D[:, 0]), at)
        made = Made(
            jax.lax.dynamic_update_slice(made.tokens_BC, token_B[:, None], (0, i)),
            jax.lax.dynamic_update_slice(made.logprobs_BC, logprob_B[:, None], (0, i)),
        )
        return i + 1, changed, advance(at, token_B, how.stop_ids), made

    def go_on(carry: Carry) -> jax.Array:
        return (carry[0] < how.chunk) & carry[2].active_B.any()

    first = jnp.zeros((), jnp.int32), desk.start, start, made
    _, changed, after, made = jax.lax.while_loop(go_on, one_token, first)
    made_B = after.count_B - start.count_B
    layers = desk.close(changed, start.position_B, made_B)
    return Slots(layers, after), Chunk(*made, made_B, after.active_B)


def next_token(logits_BV: jax.Array, at: Progress) -> tuple[jax.Array, jax.Array]:
    """Token of each slot [B], and its log-probability where that is wanted, else 0."""
    penalised_BV = logits_BV
    if at.counts_BV.shape[1]:
        penalised_BV = penalise(logits_BV, at.counts_BV, at.sampling)
    token_B = choose(penalised_BV, at.keys_B2, at.count_B, at.sampling)
    wanted = (at.logprobs_B & at.active_B).any()
    nothing_B = jnp.zeros(token_B.shape, jnp.float32)
    return token_B, jax.lax.cond(wanted, lambda: log_probability(logits_BV, token_B), lambda: nothing_B)


def advance(at: Progress, token_B: jax.Array, stop_ids: tuple[int, ...]) -> Progress:
    """Progress after one more token; a slot ends with a stop token or at its limit, and then stands still."""
    count_B = at.count_B + at.active_B
    stopped_B = (token_B[:, None] == jnp.asarray(stop_ids, jnp.int32)[None, :]).any(axis=1)
    counts_BV = at.counts_BV
    if counts_BV.shape[1]:
        counts_BV = counts_BV.at[jnp.arange(token_B.shape[0]), token_B].add(at.active_B.astype(jnp.uint16))
    return replace(
        at,
        token_B=jnp.where(at.active_B, token_B, at.token_B),
        position_B=at.position_B + at.active_B,
        active_B=at.active_B & ~stopped_B & (count_B < at.limit_B),
        count_B=count_B,
        counts_BV=counts_BV,
    )
