"""Splash attention, interpreted on CPU, equals plain attention; skipped blocks are those without a pair."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ParallelismConfig
from jax_sft.models.attention import attend_rows
from jax_sft.models.kernels.splash import block_size, needed_blocks, splash_rows
from jax_sft.sharding import make_mesh

B, T, H, K, D = 2, 1024, 4, 2, 128


def packed_segments(lengths: list[int], total: int = T) -> np.ndarray:
    """Segment ids of one packed row holding examples of these lengths, then padding."""
    ids = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return np.pad(ids, (0, total - ids.size)).astype(np.int32)


SEGMENTS_BT = np.stack([packed_segments([130, 500, 200, 60]), packed_segments([1024])])


def arrays() -> tuple[jax.Array, jax.Array, jax.Array]:
    q, k, v = jax.random.split(jax.random.key(0), 3)
    return (
        jax.random.normal(q, (B, T, H, D)),
        jax.random.normal(k, (B, T, K, D)),
        jax.random.normal(v, (B, T, K, D)),
    )


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 2, 2, 2)], ids=["one device", "all axes"])
def test_splash_equals_plain_attention_and_so_do_its_gradients(sizes: tuple[int, ...]) -> None:
    mesh = make_mesh(ParallelismConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    segments_BT = jnp.asarray(SEGMENTS_BT)
    real_BT11 = (segments_BT > 0)[:, :, None, None]

    def total(
        attend: Callable[..., jax.Array], q: jax.Array, k: jax.Array, v: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        out = jnp.where(real_BT11, attend(q, k, v, segments_BT), 0.0)
        return jnp.sum(out * jnp.cos(jnp.arange(D))[None, None, None]), out

    def run(attend: Callable[..., jax.Array]) -> Any:
        return jax.jit(jax.value_and_grad(partial(total, attend), argnums=(0, 1, 2), has_aux=True))(*arrays())

    (_, want), want_gradients = run(attend_rows)
    with jax.set_mesh(mesh):
        (_, got), got_gradients = run(partial(splash_rows, interpret=True))
    np.testing.assert_allclose(got, want, atol=2e-6)
    for got_gradient, want_gradient in zip(got_gradients, want_gradients, strict=True):
        np.testing.assert_allclose(got_gradient, want_gradient, atol=2e-5)


@pytest.mark.parametrize("lengths", [[1024], [512, 512], [100, 300, 90, 400], [17] * 60, [1]])
@pytest.mark.parametrize("start", [0, 512])
def test_needed_blocks_are_those_that_hold_a_visible_pair(lengths: list[int], start: int) -> None:
    segments_S = packed_segments(lengths)
    segments_T = segments_S[start : start + 512]
    q_T, k_S = np.arange(512) + start, np.arange(T)
    visible_TS = (q_T[:, None] >= k_S[None]) & (segments_T[:, None] == segments_S[None])
    want_IJ = visible_TS.reshape(4, 128, 8, 128).any(axis=(1, 3))
    np.testing.assert_array_equal(
        needed_blocks(jnp.asarray(segments_T), jnp.asarray(segments_S), start, 128), want_IJ
    )


def test_the_block_is_the_largest_that_divides_the_queries() -> None:
    assert [block_size(n) for n in (20_480, 16_640, 768, 384, 100)] == [512, 256, 256, 128, None]
