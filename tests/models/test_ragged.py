"""The memory of TPUs does what the plain one does: the same prompts and tokens, in the same pages."""

from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ModelConfig
from jax_sft.models.calibration import calibrate
from jax_sft.models.decoder import init_params
from jax_sft.models.memory import Memory, Orders, Plain, memory_of
from jax_sft.models.ragged import RaggedPages, Scales

MODEL = ModelConfig(num_layers=1, num_kv_heads=2, num_heads=6, head_dim=16)
PAGE, PAGES, CHUNK = 4, 16, 8
COUNTS = np.array([8, 5, 0], np.int32)
"""Tokens of the three prompts; the last row is not used."""
TABLE = np.array([[3, 9, 0, 7], [5, 2, 11, -1], [-1, -1, -1, -1]], np.int32)
TOKENS = 3
"""That are decoded; the second sequence stands still after its first."""


def heads(rng: np.random.Generator, *shape: int) -> tuple[jax.Array, ...]:
    """Queries, keys and values of so many tokens."""
    counts = MODEL.num_heads, MODEL.num_kv_heads, MODEL.num_kv_heads
    return tuple(jnp.asarray(rng.normal(size=(*shape, n, MODEL.head_dim)), jnp.float32) for n in counts)


def run(memory: Memory, scale: float = 0) -> tuple[Any, Any]:
    """Attention of the prompts' tokens, and of those decoded after them; in 8 bits if there is a scale."""
    rng = np.random.default_rng(0)
    layers = memory.empty(MODEL, PAGES, PAGE, jnp.int8 if scale else jnp.float32)
    if scale:
        scales = Scales(*(jnp.full((MODEL.num_kv_heads, MODEL.head_dim), scale),) * 2)
        layers = (layers[0]._replace(scales=scales),)
    write = np.where(np.arange(2)[None] * PAGE < COUNTS[:, None], TABLE[:, :2], PAGES).astype(np.int32)
    zeros = jnp.zeros(3, jnp.int32)
    tokens = jnp.zeros((3, CHUNK), jnp.int32)
    orders = Orders(tokens, zeros, jnp.asarray(COUNTS), jnp.asarray(TABLE), jnp.asarray(write))
    [context] = memory.prompts(layers, orders)
    prompts, layer = context.attend(*heads(rng, 3, CHUNK))
    # Page 7 becomes a copy of page 3, and the first sequence goes on with it in its place.
    layers = memory.copy((layer,), jnp.array([3, 0]), jnp.array([7, PAGES]))
    table, position_B = jnp.asarray(TABLE).at[0, 0].set(7), jnp.asarray(COUNTS)
    desk = memory.open(layers, table, position_B, COUNTS > 0, TOKENS)
    changed, decoded = desk.start, []
    for column in range(TOKENS):
        active_B = jnp.array([True, column < 1, False])
        [context] = desk.contexts(changed, jnp.int32(column), position_B, active_B)
        out_B1Hd, kept = context.attend(*heads(rng, 3, 1))
        changed, position_B = (kept,), position_B + active_B
        decoded.append(np.asarray(out_B1Hd)[: 2 if column < 1 else 1, 0])
    desk.close(changed, jnp.asarray(COUNTS), position_B - COUNTS)
    return [np.asarray(prompts)[row, :count] for row, count in enumerate(COUNTS)], decoded


@pytest.mark.slow
def test_prompts_copies_and_tokens_are_those_of_the_plain_memory() -> None:
    for got, expected in zip(run(RaggedPages()), run(Plain()), strict=True):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)


def test_pages_in_8_bits_are_off_by_what_rounding_takes() -> None:
    expected = np.concatenate(run(Plain())[0])
    coarse, fine = (
        np.abs(np.concatenate(run(RaggedPages(), s)[0]) - expected).max() for s in (8 / 127, 4 / 127)
    )
    assert 1e-4 < fine < 0.6 * coarse < 0.1


def test_scales_have_room_for_what_was_seen_and_some_more() -> None:
    config = replace(MODEL, vocab_size=61, hidden_size=32, mlp_size=48, num_layers=2)
    params = nn.unbox(init_params(config, jax.random.key(0)))
    first, second = calibrate(params, config, jnp.dtype("float32"))
    assert first.k_Kd.shape == second.v_Kd.shape == (MODEL.num_kv_heads, MODEL.head_dim)
    # The first layer's values are those of the embeddings alone, of all tokens of the vocabulary.
    layer = jax.tree.map(lambda leaf: leaf[0], params["layers"])
    x = params["embed"]["embedding"]
    normed = x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + config.norm_eps)
    v = np.einsum("vd,dkh->vkh", normed, layer["attention"]["v"]["kernel"])
    np.testing.assert_allclose(first.v_Kd, np.abs(v).max(axis=0) * 1.25 / 127, rtol=1e-4)


@pytest.mark.parametrize(("platform", "kind"), [("tpu", RaggedPages), ("cpu", Plain), ("gpu", Plain)])
def test_tpus_have_the_memory_that_their_kernel_reads(platform: str, kind: type) -> None:
    assert isinstance(memory_of(platform), kind)
