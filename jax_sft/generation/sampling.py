"""Choosing the next token: greedy or sampled, each slot with settings of its own, in one program.

A vocabulary has up to 151,936 entries, so nothing here sorts it or draws a random number for each of its
entries. It is looked at in blocks of 128 neighbours: a block is drawn by its probability, then a token of it
by its own (1,315 random numbers in place of 151,936). What top-k, top-p and min-p leave is all that lies at
or above a threshold, which is found by bisection on the bits of the numbers: exactly, among the few blocks
with the largest logits where it can be proven to lie there, and otherwise among all tokens of the few slots
in which it cannot.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jax_sft.config import Sampling
from jax_sft.sharding import BATCH_AXES, split_over

SAMPLER = 2
"""Version of what is drawn for a key; units that were drawn by another cannot be gone on with."""
BLOCK = 128
"""Neighbours in the vocabulary that are looked at together: the width of a TPU's registers."""
CANDIDATE_BLOCKS = 64
"""Blocks in which the threshold is looked for first: enough for every top-k up to it."""
SLOTS_THROUGH_ALL = 8
"""Slots whose thresholds are looked for among all tokens at once: the rows of a TPU's register."""
_SLOT_AXES = (*BATCH_AXES, "tensor")


class SlotSampling(NamedTuple):
    """Settings of each slot, arrays [B]; what `Sampling` says of them."""

    temperature_B: jax.Array
    top_p_B: jax.Array
    top_k_B: jax.Array
    min_p_B: jax.Array
    presence_B: jax.Array
    frequency_B: jax.Array


def slot_sampling(settings: Sequence[Sampling], at: Sequence[int], slots: int) -> SlotSampling:
    """Host arrays [slots] that hold the n-th settings in slot `at[n]`, and greedy ones elsewhere."""

    def column(name: str, dtype: type) -> Any:
        column_B: Any = np.zeros(slots, dtype)
        column_B[list(at)] = [getattr(setting, name) for setting in settings]
        return column_B

    return SlotSampling(
        column("temperature", np.float32),
        column("top_p", np.float32),
        column("top_k", np.int32),
        column("min_p", np.float32),
        column("presence_penalty", np.float32),
        column("frequency_penalty", np.float32),
    )


def penalises(setting: Sampling) -> bool:
    """Whether it needs to know what was drawn before."""
    return bool(setting.presence_penalty or setting.frequency_penalty)


def completion_key(seed: int, item: str, sample: int) -> np.ndarray:
    """Raw random key (uint32 [2]) of one completion, made from the seed, the item and the sample alone."""
    named = json.dumps([seed, item, sample]).encode()
    return np.frombuffer(hashlib.blake2b(named, digest_size=8).digest(), "<u4").astype(np.uint32)


def penalise(logits_BV: jax.Array, counts_BV: jax.Array, sampling: SlotSampling) -> jax.Array:
    """Logits less the presence penalty of each token drawn before and the frequency penalty of each time.

    `counts_BV` says how often each token was drawn in this completion: the prompt does not count, as with
    OpenAI's API.
    """
    counts_BV = counts_BV.astype(jnp.float32)
    present_BV = (counts_BV > 0).astype(jnp.float32)
    less_BV = sampling.presence_B[:, None] * present_BV + sampling.frequency_B[:, None] * counts_BV
    return logits_BV - less_BV


def log_probability(logits_BV: jax.Array, token_B: jax.Array) -> jax.Array:
    """Log-probability [B] of each token by the model itself: no temperature, penalty or filter."""
    chosen_B = jnp.take_along_axis(logits_BV, token_B[:, None], axis=-1)[:, 0]
    return chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)


def choose(logits_BV: jax.Array, keys_B2: jax.Array, count_B: jax.Array, sampling: SlotSampling) -> jax.Array:
    """Next token of each slot [B]; the draw for the n-th token of a completion uses its key and n alone.

    Each device of a mesh that is set sees to its own slots and waits for no other. Those that share a slot's
    weights (`tensor`) have a part of the vocabulary each: they part the slots among them instead.
    """
    mesh, rows = jax.sharding.get_abstract_mesh(), P(BATCH_AXES)
    tensor = 1 if mesh.empty else mesh.shape["tensor"]
    B, V = logits_BV.shape
    if tensor == 1 or V % tensor or B % math.prod(mesh.shape[axis] for axis in _SLOT_AXES):
        return split_over(_choose, rows, rows)(logits_BV, keys_B2, count_B, sampling)
    parts = P(_SLOT_AXES)
    in_specs = (P(BATCH_AXES, "tensor"), parts, parts, parts)
    return split_over(_choose_parted, in_specs, parts)(logits_BV, keys_B2, count_B, sampling)


def _choose_parted(
    logits_Bv: jax.Array, keys_b2: jax.Array, count_b: jax.Array, sampling: SlotSampling
) -> jax.Array:
    """Gives away most slots of its part of the vocabulary [B, v], to have all of it for its own [b, V]."""
    logits_bV = jax.lax.all_to_all(logits_Bv, "tensor", split_axis=0, concat_axis=1, tiled=True)
    return _choose(logits_bV, keys_b2, count_b, sampling)


def _choose(
    logits_BV: jax.Array, keys_B2: jax.Array, count_B: jax.Array, sampling: SlotSampling
) -> jax.Array:
    greedy_B = likeliest(logits_BV)
    sampled_B = jax.lax.cond(
        jnp.any(sampling.temperature_B > 0),
        lambda: _draw(logits_BV, keys_B2, count_B, sampling),
        lambda: greedy_B,
    )
    return jnp.where(sampling.temperature_B > 0, sampled_B, greedy_B).astype(jnp.int32)


def likeliest(logits_BV: jax.Array) -> jax.Array:
    """The first token with the largest logit [B], in two simple passes, ten times as fast on a CPU."""
    V = logits_BV.shape[1]
    logits_BV = jax.lax.optimization_barrier(logits_BV)  # both passes see the same bits
    is_most_BV = logits_BV == logits_BV.max(axis=-1, keepdims=True)
    return jnp.where(is_most_BV, jnp.arange(V)[None], V - 1).min(axis=-1)


def _draw(logits_BV: jax.Array, keys_B2: jax.Array, count_B: jax.Array, sampling: SlotSampling) -> jax.Array:
    """A race: exponential times of rates w come in first with probability w / sum(w)."""
    temperature_B = jnp.where(sampling.temperature_B > 0, sampling.temperature_B, 1.0)
    scaled_BGN = in_blocks(logits_BV / temperature_B[:, None])
    filtered_B = (sampling.top_p_B < 1) | (sampling.top_k_B > 0) | (sampling.min_p_B > 0)
    least_B = jax.lax.cond(
        jnp.any(filtered_B),
        lambda: threshold(scaled_BGN, sampling),
        lambda: jnp.full_like(temperature_B, -jnp.inf),
    )
    G = scaled_BGN.shape[1]
    times_BX = jax.vmap(lambda key_2, count: exponential(key_2, count, G + BLOCK))(keys_B2, count_B)
    mass_BG = _weights(scaled_BGN, least_B).sum(axis=-1)
    block_B = jnp.argmax(mass_BG / times_BX[:, :G], axis=-1)
    row_BN = jnp.take_along_axis(scaled_BGN, block_B[:, None, None], axis=1)[:, 0]
    within_B = jnp.argmax(_weights(row_BN, least_B) / times_BX[:, G:], axis=-1)
    return block_B * BLOCK + within_B


def in_blocks(values_BV: jax.Array) -> jax.Array:
    """Neighbours together, [B, G, BLOCK]; the last block is filled up with -inf."""
    B, V = values_BV.shape
    if V % BLOCK:
        values_BV = jnp.pad(values_BV, ((0, 0), (0, -V % BLOCK)), constant_values=-jnp.inf)
    return values_BV.reshape(B, -1, BLOCK)


def _weights(values: jax.Array, least_B: jax.Array) -> jax.Array:
    """exp(value - largest) of each slot's values of at least `least_B`, 0 for others; shape [B, ...]."""
    axes = tuple(range(1, values.ndim))
    weights = jnp.exp(values - values.max(axis=axes, keepdims=True))
    return jnp.where(values >= jnp.expand_dims(least_B, axes), weights, 0.0)


def exponential(key_2: jax.Array, count: jax.Array, size: int) -> jax.Array:
    """Exponential numbers [size], positive and finite, fine enough for probabilities down to 2**-32."""
    key = jax.random.fold_in(jax.random.wrap_key_data(key_2, impl="threefry2x32"), count)
    bits = jax.random.bits(key, (size,), jnp.uint32)
    uniform = (bits.astype(jnp.float32) + 0.5) * jnp.float32(2**-32)
    return -jnp.log1p(-jnp.minimum(uniform, jnp.float32(1 - 2**-24)))


def threshold(values_BGN: jax.Array, sampling: SlotSampling) -> jax.Array:
    """The least value [B] that top-k, then top-p, then min-p allow; -inf where they allow all.

    Top-p keeps the fewest tokens whose probabilities, after top-k, reach p; min-p keeps those at least
    min_p times as likely as the likeliest (arXiv 2407.01082). The likeliest token always stays, and so do
    tokens as likely as the last one kept. `values_BGN` are logits after temperature, in blocks.
    """
    most_B = values_BGN.max(axis=(1, 2))
    total_B = jnp.exp(values_BGN - most_B[:, None, None]).sum(axis=(1, 2))
    if values_BGN.shape[1] <= CANDIDATE_BLOCKS:
        return _among_all(values_BGN, total_B, sampling)
    least_B, sure_B = among_candidates(values_BGN, total_B, sampling)
    return _rest_among_all(values_BGN, total_B, least_B, sure_B, sampling)


def _among_all(values_BGN: jax.Array, total_B: jax.Array, sampling: SlotSampling) -> jax.Array:
    """The threshold by all values."""
    nothing_B = jnp.full_like(total_B, -jnp.inf)
    return _least(values_BGN.reshape(len(total_B), -1), nothing_B, total_B, sampling)[0]


def _rest_among_all(
    values_BGN: jax.Array, total_B: jax.Array, least_B: jax.Array, sure_B: jax.Array, sampling: SlotSampling
) -> jax.Array:
    """The thresholds, those that are not sure found among all values, SLOTS_THROUGH_ALL slots at a time."""
    R = min(SLOTS_THROUGH_ALL, len(total_B))
    unsure_first_B = jnp.argsort(sure_B, stable=True)
    unsure_count = (~sure_B).sum()

    def some(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        first, least_B = carry
        rows_R = jax.lax.dynamic_slice_in_dim(unsure_first_B, first, R)
        total_R, settings_R = jax.tree.map(lambda column_B: column_B[rows_R], (total_B, sampling))
        found_R = _among_all(values_BGN[rows_R], total_R, settings_R)
        return first + R, least_B.at[rows_R].set(jnp.where(sure_B[rows_R], least_B[rows_R], found_R))

    none = jnp.zeros((), unsure_count.dtype)
    return jax.lax.while_loop(lambda carry: carry[0] < unsure_count, some, (none, least_B))[1]


def among_candidates(
    values_BGN: jax.Array, total_B: jax.Array, sampling: SlotSampling
) -> tuple[jax.Array, jax.Array]:
    """The threshold by the blocks with the largest values alone, and whether that is proven [B].

    `total_B` is the sum over all tokens of exp(value - largest value).
    """
    top_BC, at_BC = jax.lax.top_k(values_BGN.max(axis=-1), CANDIDATE_BLOCKS)
    candidates_BCN = jnp.take_along_axis(values_BGN, at_BC[:, :, None], axis=1)
    return _least(candidates_BCN.reshape(len(total_B), -1), top_BC[:, -1], total_B, sampling)


def _least(
    values_BM: jax.Array, floor_B: jax.Array, total_B: jax.Array, sampling: SlotSampling
) -> tuple[jax.Array, jax.Array]:
    """The threshold by these values alone, and whether it is that of the whole vocabulary.

    They hold every value above `floor_B`, and the largest, for which `total_B` counts 1. A threshold of at
    least the floor rests on values that are all here.
    """
    most_B = values_BM.max(axis=-1)
    weights_BM = jnp.exp(values_BM - most_B[:, None])
    nothing_B = jnp.full_like(most_B, -jnp.inf)
    has_k_B, has_p_B = sampling.top_k_B > 0, sampling.top_p_B < 1

    def kth() -> tuple[jax.Array, jax.Array]:
        k_B = sampling.top_k_B.astype(jnp.float32)
        least_B = _reaching(values_BM, jnp.ones_like(weights_BM), k_B)
        above_BM = values_BM > least_B[:, None]
        # Of those as likely as the k-th, only so many count as make k.
        rest_B = (k_B - above_BM.sum(axis=-1)) * jnp.exp(least_B - most_B)
        mass_B = jnp.where(above_BM, weights_BM, 0.0).sum(axis=-1) + rest_B
        return jnp.where(has_k_B, least_B, -jnp.inf), jnp.where(has_k_B, mass_B, total_B)

    by_k_B, mass_B = jax.lax.cond(jnp.any(has_k_B), kth, lambda: (nothing_B, total_B))
    by_p_B = jax.lax.cond(
        jnp.any(has_p_B),
        lambda: jnp.where(has_p_B, _reaching(values_BM, weights_BM, sampling.top_p_B * mass_B), -jnp.inf),
        lambda: nothing_B,
    )
    by_ratio_B = most_B + jnp.log(sampling.min_p_B)
    least_B = jnp.minimum(jnp.maximum(jnp.maximum(by_k_B, by_p_B), by_ratio_B), most_B)
    sure_B = (~has_k_B | (by_k_B >= floor_B)) & (~has_p_B | (least_B >= floor_B))
    return least_B, sure_B


def _reaching(values_BM: jax.Array, weights_BM: jax.Array, target_B: jax.Array) -> jax.Array:
    """The largest t [B] for which the weights of the values >= t reach the target; -inf if none does.

    32 steps find the bits of t, the highest first. Sums of the same terms less some that are positive never
    round upwards of the whole, so that the search is sound in floating point too.
    """

    def step(i: jax.Array, ordered_B: jax.Array) -> jax.Array:
        tried_B = ordered_B | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        counted_BM = values_BM >= _as_float(tried_B)[:, None]
        reached_B = jnp.where(counted_BM, weights_BM, 0.0).sum(axis=-1)
        return jnp.where(reached_B >= target_B, tried_B, ordered_B)

    return _as_float(jax.lax.fori_loop(0, 32, step, jnp.zeros(target_B.shape, jnp.uint32)))


def _as_float(ordered: jax.Array) -> jax.Array:
    """Undoes the map of floats to unsigned integers that keeps their order; -inf for all below its own."""
    top, lowest = jnp.uint32(1 << 31), jnp.uint32(0x007FFFFF)
    ordered = jnp.maximum(ordered, lowest)
    return jax.lax.bitcast_convert_type(jnp.where(ordered >= top, ordered ^ top, ~ordered), jnp.float32)
