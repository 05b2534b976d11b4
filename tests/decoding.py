"""Prompts and tokens through pages, as the engine does it but without one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_sft.config import ModelConfig
from jax_sft.models import Params
from jax_sft.models.decoder import forward_cached, logits
from jax_sft.models.memory import Layers, Orders, Plain

PAGE = 8


def used_memory(config: ModelConfig, sequences: int, context: int) -> tuple[Layers, np.ndarray]:
    """Memory that is full of something else, and the pages of each sequence; context is in whole pages."""
    columns = context // PAGE
    layers = Plain().empty(config, sequences * columns * 4, PAGE, jnp.float32)
    table_BN = np.random.default_rng(0).permutation(sequences * columns).reshape(sequences, columns)
    return jax.tree.map(lambda part: jnp.full_like(part, 7.0), layers), table_BN.astype(np.int32)


def prefilled(
    params: Params, config: ModelConfig, tokens_BT: np.ndarray, layers: Layers, table_BN: np.ndarray
) -> Layers:
    """The memory with all tokens in it, chunk of one page after chunk; T is in whole pages."""

    @jax.jit
    def program(layers: Layers, orders: Orders) -> Layers:
        positions_BC = orders.start_R[:, None] + jnp.arange(PAGE)[None]
        contexts = Plain().prompts(layers, orders)
        return forward_cached(params, config, orders.tokens_RC, positions_BC, contexts, jnp.float32)[1]

    B, T = tokens_BT.shape
    for nth in range(T // PAGE):
        start_B, count_B = np.full(B, nth * PAGE), np.full(B, PAGE)
        tokens_BC = tokens_BT[:, nth * PAGE : (nth + 1) * PAGE]
        layers = program(layers, Orders(tokens_BC, start_B, count_B, table_BN, table_BN[:, nth : nth + 1]))
    return layers


def decoded(
    params: Params,
    config: ModelConfig,
    tokens_BT: np.ndarray,
    memory: tuple[Layers, np.ndarray],
    position_B: np.ndarray,
) -> np.ndarray:
    """Logits [T, B, V] after each of so many given tokens, in one chunk."""

    @jax.jit
    def program(
        layers: Layers, table_BN: jax.Array, tokens_BT: jax.Array, position_B: jax.Array
    ) -> jax.Array:
        T = tokens_BT.shape[1]
        desk = Plain().open(layers, table_BN, position_B, jnp.ones_like(position_B, bool), T)

        def step(carry: tuple[Any, jax.Array], token_B: jax.Array) -> tuple[Any, jax.Array]:
            changed, i = carry
            contexts = desk.contexts(changed, i, position_B + i, jnp.ones_like(position_B, bool))
            new = token_B[:, None], (position_B + i)[:, None]
            hidden_B1D, changed = forward_cached(params, config, *new, contexts, jnp.float32)
            return (changed, i + 1), logits(params, config, hidden_B1D[:, 0])

        return jax.lax.scan(step, (desk.start, jnp.int32(0)), tokens_BT.T)[1]

    return np.asarray(program(*memory, tokens_BT, position_B))
