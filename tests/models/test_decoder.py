"""The decoder: packing leaves no trace, decoding with a cache equals the whole forward pass."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ModelConfig, Remat, replace
from jax_sft.models.attention import QUERY_CHUNK
from jax_sft.models.decoder import (
    Params,
    forward_rows,
    init_params,
    logits,
    rope_tables,
    rotate,
)
from jax_sft.packed import Rows, empty_rows
from tests.decoding import decoded, prefilled, used_memory

BASE = ModelConfig(
    vocab_size=96, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, mlp_size=48
)
CONFIGS = {
    "llama-like": BASE,
    "qwen3-like": replace(BASE, qk_norm=True, head_dim=16, tie_embeddings=False, rope_theta=1e6),
    "qwen2-like": replace(BASE, qkv_bias=True, num_kv_heads=1),
    "multi-head": replace(BASE, num_kv_heads=4, tie_embeddings=False, num_layers=3, norm_eps=1e-5),
}


def random_params(config: ModelConfig, seed: int = 0) -> Params:
    """Random parameters, norms and biases among them, of ordinary size."""
    rng = np.random.default_rng(seed)
    shapes = nn.unbox(jax.eval_shape(lambda: init_params(config, jax.random.key(0))))

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name, noise = path[-1].key, rng.normal(size=leaf.shape).astype(np.float32)
        return jnp.asarray(1 + 0.2 * noise if name == "scale" else 0.2 * noise)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def pack(lengths: list[list[int]], T: int, seed: int = 0) -> Rows:
    """Packed rows [B, T] that hold examples of these lengths, of random tokens."""
    rows = empty_rows((len(lengths), T))
    rng = np.random.default_rng(seed)
    for row, examples in enumerate(lengths):
        start = 0
        for number, length in enumerate(examples, start=1):
            part = slice(start, start + length)
            rows.tokens[row, part] = rng.integers(0, BASE.vocab_size, length)
            rows.positions[row, part] = np.arange(length)
            rows.segments[row, part] = number
            start += length
    return rows


def whole_rows(tokens_BT: np.ndarray) -> Rows:
    """The same for rows of one example each."""
    positions_BT = np.broadcast_to(np.arange(tokens_BT.shape[1]), tokens_BT.shape)
    return Rows.to_read(tokens_BT, positions_BT, np.ones_like(tokens_BT))


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_equals_the_whole_forward_pass(name: str) -> None:
    """Prefill some tokens, decode the rest one by one, sequences at different positions."""
    config, B, T, prompt = CONFIGS[name], 3, 24, np.array([10, 1, 17])
    params = random_params(config)
    tokens_BT = np.random.default_rng(0).integers(0, config.vocab_size, (B, T)).astype(np.int32)
    hidden_BTD = jax.jit(forward_rows, static_argnums=1)(params, config, whole_rows(tokens_BT))
    want_BTV = logits(params, config, hidden_BTD)
    layers, table_BN = used_memory(config, B, T)
    layers = prefilled(params, config, tokens_BT, layers, table_BN)
    new_BT = np.stack([tokens_BT[b, start : start + 7] for b, start in enumerate(prompt)])
    got_TBV = decoded(params, config, new_BT, (layers, table_BN), prompt)
    for shift in range(7):
        want_BV = want_BTV[jnp.arange(B), prompt + shift]
        np.testing.assert_allclose(got_TBV[shift], want_BV, atol=1e-4)
        assert np.array_equal(got_TBV[shift].argmax(-1), want_BV.argmax(-1))


@pytest.mark.parametrize("name", ["llama-like", "qwen3-like"])
def test_packed_equals_one_example_a_row(name: str) -> None:
    config, params = CONFIGS[name], random_params(CONFIGS[name])
    T = QUERY_CHUNK + 32
    rows = pack([[40, 70, 33], [90, 51]], T)
    forward = jax.jit(forward_rows, static_argnums=1)
    packed_BTD = forward(params, config, rows)
    for row, number in [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]:
        mine_T = rows.segments[row] == number
        alone_1T = np.zeros((1, T), np.int32)
        alone_1T[0, : mine_T.sum()] = rows.tokens[row, mine_T]
        hidden_1TD = forward(params, config, whole_rows(alone_1T))
        np.testing.assert_allclose(packed_BTD[row, mine_T], hidden_1TD[0, : mine_T.sum()], atol=1e-5)


def test_perturbing_an_example_changes_no_bit_of_its_neighbours() -> None:
    config, params = CONFIGS["qwen3-like"], random_params(CONFIGS["qwen3-like"])
    rows = pack([[40, 70, 33], [90, 51]], QUERY_CHUNK + 32)
    segments_BT = rows.segments
    changed_BT = np.where(segments_BT == 2, (rows.tokens + 1) % config.vocab_size, rows.tokens)
    forward = jax.jit(forward_rows, static_argnums=1)
    before_BTD, after_BTD = (
        np.asarray(forward(params, config, rows._replace(tokens=tokens_BT)))
        for tokens_BT in (rows.tokens, changed_BT)
    )
    neighbours_BT = (segments_BT != 2) & (segments_BT != 0)
    assert np.array_equal(before_BTD[neighbours_BT], after_BTD[neighbours_BT])
    assert not np.isclose(before_BTD[segments_BT == 2], after_BTD[segments_BT == 2]).all(axis=1).any()


@pytest.mark.parametrize("remat", ["minimal", "save_qkv", "save_attention", "offload", "full"])
def test_remat_changes_neither_value_nor_gradient(remat: Remat) -> None:
    params, rows = random_params(BASE), pack([[20, 9], [32]], 32)

    def loss(params: Params, remat: Remat) -> jax.Array:
        hidden_BTD = forward_rows(params, BASE, jax.tree.map(jnp.asarray, rows), remat=remat)
        return jnp.sum(hidden_BTD**2)

    run: Any = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    (plain, plain_gradients), (again, again_gradients) = run(params, "none"), run(params, remat)
    assert np.isclose(plain, again, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), plain_gradients, again_gradients
    )


def test_bfloat16_stays_close() -> None:
    params, rows = random_params(BASE), pack([[20, 9], [32]], 32)
    forward = jax.jit(forward_rows, static_argnums=1, static_argnames="dtype")
    exact = forward(params, BASE, rows)
    rounded = forward(params, BASE, rows, dtype=jnp.bfloat16)
    assert rounded.dtype == jnp.bfloat16
    assert np.abs(np.asarray(exact) - np.asarray(rounded, np.float32)).mean() < 0.03


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = (jax.random.normal(jax.random.key(n), (1, 1, 1, BASE.head_dim)) for n in (0, 1))

    def score(query_at: int, key_at: int) -> float:
        turned = [
            rotate(x, rope_tables(jnp.full((1, 1), at), BASE)) for x, at in ((q, query_at), (k, key_at))
        ]
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(9, 4) == pytest.approx(score(905, 900), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-4)
