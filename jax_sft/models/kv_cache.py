"""The key/value cache of a decoder: one pair of arrays for each layer, a row for each slot.

Layers are separate arrays: a cache stacked over layers and carried through a scan is copied every token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_sft.config import ModelConfig


class LayerCache(NamedTuple):
    """Keys and values of one layer; column s holds position s of the slot's sequence."""

    k_BKSd: jax.Array
    v_BKSd: jax.Array


KVCache = tuple[LayerCache, ...]


def make_cache(config: ModelConfig, slots: int, context: int, dtype: jnp.dtype) -> KVCache:
    """An empty cache for `slots` sequences of up to `context` tokens."""
    shape = (slots, config.num_kv_heads, context, config.head_dim)
    return tuple(
        LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.num_layers)
    )


def append(cache: LayerCache, k_BKd: jax.Array, v_BKd: jax.Array, position_B: jax.Array) -> LayerCache:
    """Write one key and value a slot at that slot's position; positions past the end are dropped."""

    def write(old_KSd: jax.Array, new_Kd: jax.Array, position: jax.Array) -> jax.Array:
        return old_KSd.at[:, position].set(new_Kd.astype(old_KSd.dtype), mode="drop")

    write_each = jax.vmap(write)
    return LayerCache(
        write_each(cache.k_BKSd, k_BKd, position_B), write_each(cache.v_BKSd, v_BKd, position_B)
    )


def insert(
    cache: LayerCache, k_PKTd: jax.Array, v_PKTd: jax.Array, prompt_B: jax.Array, refill_B: jax.Array
) -> LayerCache:
    """Copy prefilled prompts into slots: slot b takes prompt `prompt_B[b]` where `refill_B[b]`."""
    T = k_PKTd.shape[2]

    def place(old_BKSd: jax.Array, new_PKTd: jax.Array) -> jax.Array:
        new_BKTd = new_PKTd[prompt_B].astype(old_BKSd.dtype)
        head_BKTd = jnp.where(refill_B[:, None, None, None], new_BKTd, old_BKSd[:, :, :T])
        return jax.lax.dynamic_update_slice(old_BKSd, head_BKTd, (0, 0, 0, 0))

    return LayerCache(place(cache.k_BKSd, k_PKTd), place(cache.v_BKSd, v_PKTd))
