"""Choosing the next token: greedy or sampled, each slot with settings of its own, in one program."""

import hashlib
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class SlotSampling(NamedTuple):
    """Settings of each slot, arrays [B]."""

    temperature_B: jax.Array
    """0 is greedy."""
    top_p_B: jax.Array
    """1 keeps all."""
    top_k_B: jax.Array
    """0 keeps all."""
    min_p_B: jax.Array
    """0 keeps all."""


def completion_key(seed: int, item: str, sample: int) -> np.ndarray:
    """Raw random key (uint32 [2]) of one completion, made from the seed, the item and the sample alone."""
    named = json.dumps([seed, item, sample]).encode()
    return np.frombuffer(hashlib.blake2b(named, digest_size=8).digest(), "<u4").astype(np.uint32)


def choose(logits_BV: jax.Array, keys_B2: jax.Array, count_B: jax.Array, sampling: SlotSampling) -> jax.Array:
    """Next token of each slot [B]; the draw for the n-th token of a completion uses its key and n alone."""
    greedy_B = jnp.argmax(logits_BV, axis=-1)
    sampled_B = jax.lax.cond(
        jnp.any(sampling.temperature_B > 0),
        lambda: _draw(logits_BV, keys_B2, count_B, sampling),
        lambda: greedy_B,
    )
    return jnp.where(sampling.temperature_B > 0, sampled_B, greedy_B).astype(jnp.int32)


def _draw(logits_BV: jax.Array, keys_B2: jax.Array, count_B: jax.Array, sampling: SlotSampling) -> jax.Array:
    temperature_B1 = jnp.where(sampling.temperature_B > 0, sampling.temperature_B, 1.0)[:, None]
    scaled_BV = logits_BV / temperature_B1
    filtered = (sampling.top_p_B < 1) | (sampling.top_k_B > 0) | (sampling.min_p_B > 0)
    scaled_BV = jax.lax.cond(jnp.any(filtered), lambda: keep_likely(scaled_BV, sampling), lambda: scaled_BV)

    def noise(key_2: jax.Array, count: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(key_2, impl="threefry2x32"), count)
        return jax.random.gumbel(key, logits_BV.shape[1:], jnp.float32)

    return jnp.argmax(scaled_BV + jax.vmap(noise)(keys_B2, count_B), axis=-1)


def keep_likely(logits_BV: jax.Array, sampling: SlotSampling) -> jax.Array:
    """Logits with all but the tokens allowed by top-k, then top-p, then min-p set to -inf.

    Top-p keeps the fewest tokens whose probabilities, after top-k, reach p; min-p keeps those at least
    min_p times as likely as the likeliest (arXiv 2407.01082). The likeliest token always stays, and so do
    tokens as likely as the last one kept.
    """
    V = logits_BV.shape[-1]
    descending_BV = -jnp.sort(-logits_BV, axis=-1)
    top_k_B = jnp.where(sampling.top_k_B > 0, jnp.minimum(sampling.top_k_B, V), V)
    in_top_k_BV = jnp.arange(V)[None] < top_k_B[:, None]
    probability_BV = jax.nn.softmax(jnp.where(in_top_k_BV, descending_BV, -jnp.inf), axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    in_top_p_BV = (before_BV < sampling.top_p_B[:, None]) | (sampling.top_p_B[:, None] >= 1)
    in_min_p_BV = probability_BV >= sampling.min_p_B[:, None] * probability_BV[:, :1]
    kept_BV = (in_top_k_BV & in_top_p_BV & in_min_p_BV) | (jnp.arange(V)[None] == 0)
    threshold_B1 = jnp.min(jnp.where(kept_BV, descending_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits_BV >= threshold_B1, logits_BV, -jnp.inf)
