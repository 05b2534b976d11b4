"""Attention to pages: the kernel (its body interpreted on this machine) and plain JAX beside numpy."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.models.kernels.paged import (
    Ragged,
    attend_pages,
    attend_pages_plainly,
    combine,
    in_type,
    page_shape,
    write_rows,
)
from tests.models.interpreted import interpreted

PAGE, PAGES, EACH = 16, 24, 4
"""Positions of a page, pages of the pool, most pages of a sequence."""


def sequences(lengths: list[int]) -> tuple[Any, Any]:
    """Page table of sequences of so many positions, pages dealt out of order; and each position's place."""
    free = list(np.random.default_rng(0).permutation(PAGES))
    table = np.zeros((len(lengths), EACH), np.int32)
    places = []
    for row, length in enumerate(lengths):
        owned = [free.pop() for _ in range(-(-length // PAGE))]
        table[row, : len(owned)] = owned
        places.append([owned[at // PAGE] * PAGE + at % PAGE for at in range(length)])
    return table, places


def expected(q: Any, k: Any, v: Any) -> Any:
    """The last len(q) queries of one sequence, each over the positions up to its own, in float64."""
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x.astype(np.float64), group, axis=1) for x in (k, v))
    scores = np.einsum("nhd,shd->hns", q.astype(np.float64), k)
    hidden = np.arange(len(k))[None, :] > np.arange(len(k) - len(q), len(k))[:, None]
    weights = np.exp(np.where(hidden, -np.inf, scores) - scores.max(-1, keepdims=True))
    return np.einsum("hns,shd->nhd", weights / weights.sum(-1, keepdims=True), v)


CASES = {"decode": ([1, 33, 64, 16], [1, 1, 1, 1]), "chunks": ([40, 7, 64, 20], [24, 7, 1, 17])}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("dtype", "heads", "head_dim", "tolerance"),
    [
        ("float32", 2, 128, 2e-5),
        ("bfloat16", 2, 128, 2e-2),
        ("int8", 2, 128, 2e-2),
        ("bfloat16", 3, 64, 2e-2),
    ],
)
def test_kernel_and_plain_attention_are_that_of_numpy(
    case: str, dtype: str, heads: int, head_dim: int, tolerance: float
) -> None:
    lengths, new = CASES[case]
    random = np.random.default_rng(1)
    table, places = sequences(lengths)
    H, N = 2 * heads, sum(lengths)
    k, v = (random.normal(size=(N, heads, head_dim)).astype(np.float32) for _ in "kv")
    queries_in = jnp.float32 if dtype == "float32" else jnp.bfloat16
    if dtype == "int8":
        k, v = (np.round(x * 40).clip(-127, 127) for x in (k, v))
    q = random.normal(size=(sum(new), H, head_dim)).astype(np.float32) * head_dim**-0.5
    q *= 1 / 40 if dtype == "int8" else 1
    shape = page_shape(PAGES, PAGE, heads, head_dim, dtype)
    pool = jnp.full(shape, jnp.array(7, dtype))  # what was there before is not looked at
    stored = jnp.dtype(dtype)
    kv = combine(jnp.asarray(k), jnp.asarray(v), pool)
    at = jnp.asarray(np.concatenate(places), jnp.int32)
    pool = write_rows(pool.reshape(-1, *shape[2:]), kv, at, kernel=False).reshape(shape)
    starts = jnp.asarray(np.concatenate([[0], np.cumsum(new)]), jnp.int32)
    rows = Ragged(jnp.asarray(lengths, jnp.int32), jnp.asarray(table), starts, jnp.asarray([4], jnp.int32))
    q_given = jnp.asarray(q, queries_in)
    with interpreted():
        by_kernel = attend_pages(q_given, pool, rows, heads)
    plain = attend_pages_plainly(q_given, pool, rows, heads)
    k, v, q = (
        np.asarray(jnp.asarray(x, t), np.float32) for x, t in ((k, stored), (v, stored), (q, queries_in))
    )
    ends, made = np.cumsum(lengths), np.cumsum(new)
    right = [
        expected(q[made[i] - new[i] : made[i]], k[ends[i] - n : ends[i]], v[ends[i] - n : ends[i]])
        for i, n in enumerate(lengths)
    ]
    scale = np.abs(np.concatenate(right)).max()
    for got in (by_kernel, plain):
        np.testing.assert_allclose(np.asarray(got, np.float32), np.concatenate(right), atol=tolerance * scale)


@pytest.mark.parametrize("unit", [(2, 128), (PAGE, 2, 128)], ids=["tokens", "pages"])
def test_rows_are_written_to_their_places_and_nowhere_else(unit: tuple[int, ...]) -> None:
    random, rows = np.random.default_rng(2), 20
    pool = jnp.asarray(random.normal(size=(rows, *unit)), jnp.bfloat16)
    new = jnp.asarray(random.normal(size=(5, *unit)), jnp.bfloat16)
    at = np.array([17, -1, 0, rows, rows - 1], np.int32)
    right = np.array(pool)
    right[at[[0, 2, 4]]] = np.array(new)[[0, 2, 4]]
    with interpreted():
        copied = write_rows(pool, new, jnp.asarray(at), kernel=True)
    for made in (copied, write_rows(pool, new, jnp.asarray(at), kernel=False)):
        np.testing.assert_array_equal(np.asarray(made), right)


@pytest.mark.parametrize(
    ("heads", "head_dim", "dtype", "tensor", "expected"),
    [
        (8, 128, "bfloat16", 1, (16, 128)),
        (8, 128, "int8", 4, (16, 128)),
        (8, 128, "int8", 8, (32, 128)),  # a lone head would be a quarter of a register's row
        (3, 64, "bfloat16", 1, (8, 128)),
        (2, 128, "float32", 2, (4, 128)),
    ],
)
def test_pools_are_padded_to_what_the_kernel_reads(
    heads: int, head_dim: int, dtype: str, tensor: int, expected: tuple[int, int]
) -> None:
    assert page_shape(3, PAGE, heads, head_dim, dtype, tensor) == (3, PAGE, *expected)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("int8", [-127, 3, 127]), ("float8_e4m3fn", [-448, 2.5, 448]), ("float8_e5m2", [-57344, 2.5, 57344])],
)
def test_what_8_bits_cannot_hold_becomes_the_largest_they_can(dtype: str, expected: list[float]) -> None:
    made = in_type(jnp.array([-1e6, 2.51, 1e6]), jnp.dtype(dtype))
    np.testing.assert_array_equal(np.asarray(made, np.float32), expected)
