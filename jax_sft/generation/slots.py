"""What the device holds while generating, and the two programs that change it: refill and decode.

Both are pure functions of weights and slots. A slot is one row of every array here; nothing computed for a
slot depends on another slot.
"""

from dataclasses import replace
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_sft.config import ModelConfig
from jax_sft.generation.sampling import SlotSampling, choose, log_probability, penalise
from jax_sft.models import Params
from jax_sft.models.attention import Cached
from jax_sft.models.decoder import forward_cached, logits, prefill_rows
from jax_sft.models.kv_cache import KVCache, insert, make_cache
from jax_sft.packed import Rows
from jax_sft.sharding import BATCH_AXES

HEADS_TOGETHER = (0, 2, 1, 3)
"""Axes of a cache array [B, K, S, d] from major to minor."""


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

    cache: KVCache
    progress: Progress


@flax.struct.dataclass
class Refill:
    """Prompts to prefill, and what each slot starts with; one whose `prompt_B` is -1 goes on as it is."""

    tokens_RT: jax.Array
    """All but the last token of each prompt."""
    lengths_R: jax.Array
    """Tokens of each row; 0 where it is not used."""
    prompt_B: jax.Array
    """Row of its prompt among those prefilled."""
    token_B: jax.Array
    """Last token of its prompt."""
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


def empty_slots(config: ModelConfig, slots: int, context: int, dtype: jnp.dtype, counted: int = 0) -> Slots:
    """Slots that are all free, which count how often each of the first `counted` tokens comes."""
    integers_B = jnp.zeros(slots, jnp.int32)
    floats_B = jnp.zeros(slots, jnp.float32)
    progress = Progress(
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
    return Slots(make_cache(config, slots, context, dtype), progress)


def slot_shardings(slots: Slots, mesh: Mesh) -> Slots:
    """Layout over the mesh of (abstract) slots: slots over the data axes, key/value heads over tensor."""
    return Slots(
        jax.tree.map(lambda _: NamedSharding(mesh, P(BATCH_AXES, "tensor")), slots.cache),
        jax.tree.map(lambda _: NamedSharding(mesh, P(BATCH_AXES)), slots.progress),
    )


def slot_formats(slots: Slots, mesh: Mesh) -> Slots:
    """Layout of (abstract) slots over the mesh and in memory.

    On TPU the heads of a cached position lie side by side, as the decode loop writes them: in any other order
    the whole cache is copied when the loop is entered and when it is left.
    """
    shardings = slot_shardings(slots, mesh)
    if mesh.devices.flat[0].platform != "tpu":
        return shardings
    cache = jax.tree.map(lambda sharding: Format(Layout(HEADS_TOGETHER), sharding), shardings.cache)
    return Slots(cache, shardings.progress)


def refill(params: Params, slots: Slots, orders: Refill, config: ModelConfig, dtype: jnp.dtype) -> Slots:
    """Prefill prompts and let slots start from them.

    The last token of a prompt is the first that `decode` reads, so that every new token comes out of the one
    decode program.
    """
    R, T = orders.tokens_RT.shape
    positions_RT = jnp.broadcast_to(jnp.arange(T)[None], (R, T))
    segments_RT = (positions_RT < orders.lengths_R[:, None]).astype(jnp.int32)
    rows = Rows.to_read(orders.tokens_RT, positions_RT, segments_RT)
    _, kept = prefill_rows(params, config, rows, dtype)
    starts_B = orders.prompt_B >= 0
    row_B = jnp.maximum(orders.prompt_B, 0)
    cache = tuple(
        insert(layer, k_RKTd, v_RKTd, row_B, starts_B)
        for layer, k_RKTd, v_RKTd in zip(slots.cache, kept.k_BKSd, kept.v_BKSd, strict=True)
    )
    fresh = Progress(
        token_B=orders.token_B,
        position_B=orders.lengths_R[row_B],
        active_B=starts_B,
        count_B=jnp.zeros_like(orders.token_B),
        limit_B=orders.limit_B,
        keys_B2=orders.keys_B2,
        sampling=orders.sampling,
        logprobs_B=orders.logprobs_B,
        counts_BV=jnp.zeros_like(slots.progress.counts_BV),
    )

    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(starts_B.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

    return Slots(cache, jax.tree.map(pick, fresh, slots.progress))


def stop_slots(slots: Slots, stopped_B: jax.Array) -> Slots:
    """Slots of which those in `stopped_B` go on no more."""
    progress = slots.progress
    return Slots(slots.cache, replace(progress, active_B=progress.active_B & ~stopped_B))


def decode(
    params: Params, slots: Slots, config: ModelConfig, dtype: jnp.dtype, chunk: int, stop_ids: tuple[int, ...]
) -> tuple[Slots, Chunk]:
    """Decode up to `chunk` tokens in every active slot; ends early when none is active."""
    B = slots.progress.token_B.shape[0]
    made = Made(jnp.zeros((B, chunk), jnp.int32), jnp.zeros((B, chunk), jnp.float32))

    def one_token(carry: tuple[jax.Array, Slots, Made]) -> tuple[jax.Array, Slots, Made]:
        i, slots, made = carry
        at = slots.progress
        contexts = [Cached(layer, at.position_B) for layer in slots.cache]
        new = at.token_B[:, None], at.position_B[:, None]
        hidden_B1D, cache = forward_cached(params, config, *new, contexts, dtype)
        token_B, logprob_B = next_token(logits(params, config, hidden_B1D[:, 0]), at)
        made = Made(
            jax.lax.dynamic_update_slice(made.tokens_BC, token_B[:, None], (0, i)),
            jax.lax.dynamic_update_slice(made.logprobs_BC, logprob_B[:, None], (0, i)),
        )
        return i + 1, Slots(cache, advance(at, token_B, stop_ids)), made

    def go_on(carry: tuple[jax.Array, Slots, Made]) -> jax.Array:
        i, slots, _ = carry
        return (i < chunk) & slots.progress.active_B.any()

    _, after, made = jax.lax.while_loop(go_on, one_token, (jnp.zeros((), jnp.int32), slots, made))
    made_B = after.progress.count_B - slots.progress.count_B
    return after, Chunk(*made, made_B, after.progress.active_B)


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
