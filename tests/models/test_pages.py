"""Attention to keys and values in pages, against the same in numpy on whole sequences."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ModelConfig
from jax_sft.models.memory import Orders, Plain
from jax_sft.models.pages import PARTS, LayerPages, find_readers

pytestmark = pytest.mark.short

K, G, d = 2, 3, 8
PAGE, PAGES, N = 4, 24, 5
MODEL = ModelConfig(num_layers=1, num_kv_heads=K, num_heads=K * G, head_dim=d)
LENGTHS = (7, 0, 13, 1, 12, 4)
B = len(LENGTHS)


class Sequences(NamedTuple):
    """Keys and values of whole sequences, and memory that holds them in pages."""

    k_BSKd: np.ndarray
    v_BSKd: np.ndarray
    layer: LayerPages
    table_BN: np.ndarray


def attention(q_Hd: np.ndarray, k_SKd: np.ndarray, v_SKd: np.ndarray) -> np.ndarray:
    """One query against all keys, in float64."""
    k_SHd, v_SHd = np.repeat(k_SKd, G, axis=1), np.repeat(v_SKd, G, axis=1)
    scores_HS = np.einsum("hd,shd->hs", q_Hd.astype(np.float64), k_SHd) * d**-0.5
    weights_HS = np.exp(scores_HS - scores_HS.max(axis=1, keepdims=True))
    return np.einsum("hs,shd->hd", weights_HS / weights_HS.sum(axis=1, keepdims=True), v_SHd)


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def sequences(seed: int = 0, shared: bool = False, places: int = 0) -> Sequences:
    """In pages at random places; if shared, sequences 2 and 4 have their first two pages in common."""
    rng = np.random.default_rng(seed)
    k_BSKd, v_BSKd = random(rng, B, N * PAGE, K, d), random(rng, B, N * PAGE, K, d)
    page_BN = np.random.default_rng(places).permutation(PAGES)[: B * 4].reshape(B, 4)
    table_BN = np.concatenate([page_BN, np.full((B, 1), -1)], axis=1).astype(np.int32)
    if shared:
        k_BSKd[4, : 2 * PAGE], v_BSKd[4, : 2 * PAGE] = k_BSKd[2, : 2 * PAGE], v_BSKd[2, : 2 * PAGE]
        table_BN[4, :2] = table_BN[2, :2]
    layer = Plain().empty(MODEL, PAGES, PAGE, jnp.float32)[0]
    memory = []
    for of_B in (k_BSKd, v_BSKd):
        whole_PKSd = np.full((PAGES, K, PAGE, d), 9.0, np.float32)  # dead memory is not empty
        for b in range(B):
            for n in range(4):
                whole_PKSd[table_BN[b, n]] = of_B[b, n * PAGE : (n + 1) * PAGE].swapaxes(0, 1)
        memory.append(whole_PKSd)
    assert jax.tree.map(jnp.shape, parted(memory)) == jax.tree.map(jnp.shape, layer)
    return Sequences(k_BSKd, v_BSKd, parted(memory), table_BN)


def parted(memory: list[np.ndarray]) -> LayerPages:
    """Keys and values [P, K, page, d] as memory has them: in parts, keys the other way around."""
    ways = memory[0].swapaxes(2, 3), memory[1]
    return LayerPages(*(tuple(map(jnp.asarray, np.split(x, PARTS))) for x in ways))


def whole(layer: LayerPages) -> list[np.ndarray]:
    """Undoes `parted`."""
    return [np.concatenate(layer.k_parts).swapaxes(2, 3), np.concatenate(layer.v_parts)]


def decode(of: Sequences, q_CBHd: np.ndarray, new: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    """Attention of a chunk of new tokens, one after the other, and the memory after it; one program."""

    @jax.jit
    def program(layer: LayerPages, table_BN: jax.Array, q_CBHd: jax.Array, new: Any) -> tuple[Any, Any]:
        memory, length_B = Plain(), jnp.asarray(LENGTHS)
        active_B, chunk = length_B > 0, q_CBHd.shape[0]
        desk = memory.open((layer,), table_BN, length_B, active_B, chunk)
        changed, out = desk.start, []
        for column in range(chunk):
            [context] = desk.contexts(changed, jnp.int32(column), length_B + column, active_B)
            k_BKd, v_BKd = (x[column] for x in new)
            out_B1Hd, kept = context.attend(q_CBHd[column][:, None], k_BKd[:, None], v_BKd[:, None])
            changed = (kept,)
            out.append(out_B1Hd[:, 0])
        made_B = jnp.where(active_B, chunk - 1, 0)
        return jnp.stack(out), desk.close(changed, length_B, made_B)

    return program(of.layer, of.table_BN, q_CBHd, new)


@pytest.mark.parametrize("shared", [False, True])
def test_decoded_tokens_see_their_own_sequence(shared: bool) -> None:
    """Its pages, then the chunk's own tokens; afterwards those lie in its pages, but for one not counted."""
    of, rng, chunk = sequences(shared=shared), np.random.default_rng(1), 3
    q_CBHd, k_CBKd, v_CBKd = (random(rng, chunk, B, heads, d) for heads in (K * G, K, K))
    out_CBHd, [after] = decode(of, q_CBHd, (k_CBKd, v_CBKd))
    pages, before = whole(after), whole(of.layer)
    for b, length in enumerate(LENGTHS):
        if not length:
            continue
        held = []
        for known_BSKd, new_CBKd in ((of.k_BSKd, k_CBKd), (of.v_BSKd, v_CBKd)):
            held.append(np.concatenate([known_BSKd[b, :length], new_CBKd[:, b]]))
        for column in range(chunk):
            want_Hd = attention(q_CBHd[column, b], *(x[: length + column + 1] for x in held))
            np.testing.assert_allclose(out_CBHd[column, b], want_Hd, atol=2e-6)
        for place in range(length, length + chunk):
            at = of.table_BN[b, place // PAGE], slice(None), place % PAGE
            for now, was, want in zip(pages, before, held, strict=True):
                last = place == length + chunk - 1
                np.testing.assert_array_equal(now[at], was[at] if last else want[place])
                was[at] = now[at]
    for now, was in zip(pages, before, strict=True):
        np.testing.assert_array_equal(now, was, "nothing else is written")


def test_no_bit_depends_on_place_sharing_or_neighbours() -> None:
    rng = np.random.default_rng(1)
    q_CBHd, k_CBKd, v_CBKd = (random(rng, 2, B, heads, d) for heads in (K * G, K, K))
    want, _ = decode(sequences(shared=True), q_CBHd, (k_CBKd, v_CBKd))
    moved = sequences(shared=True, places=5)
    assert not np.array_equal(moved.table_BN, sequences().table_BN)
    np.testing.assert_array_equal(decode(moved, q_CBHd, (k_CBKd, v_CBKd))[0], want)
    apart = moved._replace(table_BN=moved.table_BN.copy())
    free = apart.table_BN[1, :2]
    memory = whole(apart.layer)
    for x in memory:
        x[free] = x[apart.table_BN[4, :2]]
    apart.table_BN[4, :2] = free
    np.testing.assert_array_equal(
        decode(apart._replace(layer=parted(memory)), q_CBHd, (k_CBKd, v_CBKd))[0], want, "shared or not"
    )
    others = sequences(shared=True)
    k_CBKd[:, 0], q_CBHd[:, 0] = 3.0, -1.0
    got, _ = decode(others, q_CBHd, (k_CBKd, v_CBKd))
    np.testing.assert_array_equal(got[:, 1:], want[:, 1:])


def test_prompts_see_their_pages_and_themselves_and_are_written() -> None:
    of, rng, C = sequences(), np.random.default_rng(2), 2 * PAGE
    rows = [(2, 2), (0, 1), (4, 0)]  # (sequence, pages before the chunk)
    R = len(rows)
    q_RCHd, k_RCKd, v_RCKd = (random(rng, R, C, heads, d) for heads in (K * G, K, K))
    table_RN = np.stack([of.table_BN[b] for b, _ in rows])
    write_RW = np.array([of.table_BN[b, n : n + 2] for b, n in rows])
    write_RW[1, 1] = PAGES  # nowhere
    orders = Orders(
        np.zeros((R, C)), np.array([n * PAGE for _, n in rows]), np.full(R, C), table_RN, write_RW
    )

    @jax.jit
    def program(layer: LayerPages, orders: Orders, q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
        [context] = Plain().prompts((layer,), orders)
        return context.attend(q, k, v)

    out_RCHd, after = program(of.layer, orders, q_RCHd, k_RCKd, v_RCKd)
    pages, want_pages = whole(after), whole(of.layer)
    for row, (b, n) in enumerate(rows):
        held = [
            np.concatenate([known[b, : n * PAGE], new[row]])
            for known, new in ((of.k_BSKd, k_RCKd), (of.v_BSKd, v_RCKd))
        ]
        for column in range(C):
            want_Hd = attention(q_RCHd[row, column], *(x[: n * PAGE + column + 1] for x in held))
            np.testing.assert_allclose(out_RCHd[row, column], want_Hd, atol=2e-6)
        for nth, page in enumerate(write_RW[row]):
            if page < PAGES:
                for want, new in zip(want_pages, (k_RCKd, v_RCKd), strict=True):
                    want[page] = new[row, nth * PAGE : (nth + 1) * PAGE].swapaxes(0, 1)
    for got, want in zip(pages, want_pages, strict=True):
        np.testing.assert_array_equal(got, want)


def test_readers_of_pages() -> None:
    """Sequences 0 and 2 share page 5; sequence 1 reads nothing."""
    table_BN = np.array([[5, 7, -1], [1, 2, 3], [5, 2, -1]], np.int32)
    found = find_readers(table_BN, np.array([6, 0, 8]), 12, 4)
    owners = {p: (int(found.owner_P[p]), int(found.columns_P[p])) for p in range(12) if found.columns_P[p]}
    assert owners == {5: (0, 4), 7: (0, 2), 2: (2, 4)}
    assert found.alive_S.tolist() == [False, True, True, True, False, False]
    assert found.shared_count.tolist() == [1]
    assert (int(found.shared_X[0]), int(found.reader_X[0]), int(found.shared_columns_X[0])) == (5, 2, 4)
    assert found.seen_BN.tolist() == [[True, True, False], [False] * 3, [True, True, False]]
    assert found.result_BN[0, :2].tolist() == [5, 7]
    assert found.result_BN[2, :2].tolist() == [12, 2]


def test_pages_are_copied_where_asked() -> None:
    of = sequences()
    [after] = Plain().copy((of.layer,), np.array([3, 0, 20]), np.array([9, PAGES, 0]))
    for now, was in zip(after, of.layer, strict=True):
        now, was = np.concatenate(now), np.concatenate(was)
        was[[9, 0]] = was[[3, 20]]
        np.testing.assert_array_equal(now, was)
