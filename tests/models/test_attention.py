"""Attention over packed rows, against a dense softmax written the plain way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.models.attention import QUERY_CHUNK, attend_rows

SHAPES = [
    # T, H, K
    pytest.param(24, 4, 4, id="multi-head"),
    pytest.param(QUERY_CHUNK + 37, 6, 2, id="grouped, an uneven number of chunks"),
    pytest.param(2 * QUERY_CHUNK, 3, 1, id="one key/value head, whole chunks"),
]


def dense(q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array, segments_BT: jax.Array) -> jax.Array:
    """The definition: repeat the heads, mask, softmax over all keys."""
    T, H, d = q_BTHd.shape[1:]
    k_BTHd, v_BTHd = (jnp.repeat(x, H // x.shape[2], axis=2) for x in (k_BTKd, v_BTKd))
    scores_BHTS = jnp.einsum("bthd,bshd->bhts", q_BTHd, k_BTHd) / np.sqrt(d)
    same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
    visible_B1TS = (same_BTS & jnp.tril(jnp.ones((T, T), bool))[None])[:, None]
    weights_BHTS = jax.nn.softmax(jnp.where(visible_B1TS, scores_BHTS, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bshd->bthd", weights_BHTS, v_BTHd)


def random_rows(T: int, H: int, K: int, seed: int = 0) -> tuple[jax.Array, ...]:
    """Queries, keys, values and the segments of two packed rows: a few examples, then padding."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(2, T, heads, 8)).astype(np.float32) for heads in (H, K, K))
    segments_BT = np.zeros((2, T), np.int32)
    for row, ends in zip(segments_BT, ([T // 5, T // 2, T - 3], [T - 1]), strict=True):
        for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False), start=1):
            row[start:end] = number
    return jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), jnp.asarray(segments_BT)


@pytest.mark.parametrize(("T", "H", "K"), SHAPES)
def test_equals_dense_attention_with_gradients(T: int, H: int, K: int) -> None:
    q, k, v, segments_BT = random_rows(T, H, K)
    real_BT11 = (segments_BT > 0)[:, :, None, None]
    factor = jax.random.normal(jax.random.key(1), q.shape)

    def value(attend: Callable[..., jax.Array]) -> Callable[..., Any]:
        def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = jnp.where(real_BT11, attend(q, k, v, segments_BT), 0)
            return jnp.sum(out * factor), out

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))

    (_, out), gradients = value(attend_rows)(q, k, v)
    (_, want), want_gradients = value(dense)(q, k, v)
    np.testing.assert_allclose(out, want, atol=2e-6)
    for got, wanted in zip(gradients, want_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_scores_are_in_float32_under_bfloat16() -> None:
    q, k, v, segments_BT = (
        x if x.dtype == jnp.int32 else x.astype(jnp.bfloat16) for x in random_rows(64, 4, 2)
    )
    out = jax.jit(attend_rows)(q, k, v, segments_BT)
    want = jax.jit(dense)(*(x.astype(jnp.float32) for x in (q, k, v)), segments_BT)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), want, atol=0.02)


def test_other_examples_leave_no_trace() -> None:
    q, k, v, segments_BT = random_rows(QUERY_CHUNK + 40, 4, 2)
    mine_BT = np.asarray(segments_BT) == 2
    other = random_rows(QUERY_CHUNK + 40, 4, 2, seed=1)[:3]
    swapped = [
        jnp.where(mine_BT[:, :, None, None], x, 1e3 * y) for x, y in zip((q, k, v), other, strict=True)
    ]
    attend = jax.jit(attend_rows)
    before, after = attend(q, k, v, segments_BT), attend(*swapped, segments_BT)
    assert mine_BT.any()
    assert np.array_equal(np.asarray(before)[mine_BT], np.asarray(after)[mine_BT])
