"""Weights in 8 bits: how far off they are, and that a model with them is that of the same numbers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ModelConfig
from jax_sft.models.decoder import forward_cached, init_params, logits, part_layers
from jax_sft.models.memory import PARTS, Orders, Plain
from jax_sft.models.quantised import Quantised, quantise, quantise_weights


def model(tied: bool) -> ModelConfig:
    return ModelConfig(
        vocab_size=61,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        mlp_size=48,
        tie_embeddings=tied,
        qk_norm=True,
        qkv_bias=True,
    )


def logits_of(params: Any, config: ModelConfig) -> np.ndarray:
    """Of a row of 8 tokens."""
    tokens, zero = jnp.arange(8)[None] * 7 % 61, jnp.zeros(1, jnp.int32)
    pages = Plain()
    orders = Orders(tokens, zero, zero + 8, jnp.zeros((1, 4), jnp.int32), jnp.full((1, 2), 9))
    contexts = pages.prompts(pages.empty(config, PARTS, 4, jnp.float32), orders)
    hidden, _ = forward_cached(params, config, tokens, jnp.arange(8)[None], contexts, jnp.float32)
    return np.asarray(logits(params, config, hidden))


def meant(leaf: Any, name: str) -> jax.Array:
    """The numbers that a quantised matrix stands for."""
    if not isinstance(leaf, Quantised):
        return leaf
    summed = {"embedding": (1,), "head": (0,), "o": (1, 2), "down": (1,)}.get(name, (1,))
    return leaf.values * jnp.expand_dims(leaf.scale, summed)


def test_no_weight_is_off_by_more_than_half_a_step_of_its_channel() -> None:
    matrix = np.random.default_rng(0).normal(size=(2, 16, 3, 4)).astype(np.float32)
    matrix[:, :, 1, 1] = 0
    made = quantise(jnp.asarray(matrix), (1,))
    assert (made.values.dtype, made.scale.shape) == (jnp.int8, (2, 3, 4))
    steps = np.abs(matrix).max(axis=1) / 127
    off = np.abs(np.asarray(made.values) * np.asarray(made.scale)[:, None] - matrix).max(axis=1)
    assert (off <= steps * 0.501).all()
    assert np.abs(np.asarray(made.values)).max() == 127


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_in_8_bits_is_that_of_the_numbers_they_stand_for(tied: bool) -> None:
    config = model(tied)
    params = nn.unbox(init_params(config, jax.random.key(0)))
    eight = quantise_weights(params)
    kinds = [type(leaf) for leaf in jax.tree.leaves(eight, is_leaf=lambda x: isinstance(x, Quantised))]
    assert kinds.count(Quantised) == 7 + (1 if tied else 2)
    numbers = jax.tree_util.tree_map_with_path(
        lambda path, leaf: meant(leaf, path[-1].key if path[-1].key == "embedding" else path[-2].key),
        eight,
        is_leaf=lambda x: isinstance(x, Quantised),
    )
    got = logits_of(part_layers(eight, config), config)
    np.testing.assert_allclose(got, logits_of(numbers, config), atol=1e-5)
    off = np.abs(got - logits_of(params, config)).max()
    assert 1e-4 < off < 0.05 * np.abs(got).max()
