"""Attention of new tokens to keys and values in pages, plain JAX (see `models.pages`)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jax_sft.models.pages import PAGES, ROWS, LayerPages, Readers, Recent, fetch, put
from jax_sft.sharding import BATCH_AXES, split_over

MASKED = -1e30


class Partial(NamedTuple):
    """Attention to some of the keys: peak of the scores, sum of the weights, weighted sum of values."""

    peak: jax.Array
    total: jax.Array
    values: jax.Array


class Token(NamedTuple):
    """One new token (T = 1) of each sequence, after those in its pages and those of this chunk."""

    pages: LayerPages
    recent: Recent
    readers: Readers
    column: jax.Array
    """How many tokens of this chunk came before."""

    def attend(self, q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array) -> tuple[jax.Array, Recent]:
        k_BKdC, v_BKCd = self.recent
        k_BKd1 = k_BTKd.transpose(0, 2, 3, 1).astype(k_BKdC.dtype)
        v_BK1d = v_BTKd.transpose(0, 2, 1, 3).astype(v_BKCd.dtype)
        recent = Recent(
            jax.lax.dynamic_update_slice(k_BKdC, k_BKd1, (0, 0, 0, self.column)),
            jax.lax.dynamic_update_slice(v_BKCd, v_BK1d, (0, 0, self.column, 0)),
        )
        specs = PAGES, PAGES, PAGES, ROWS, P()
        given = q_BTHd[:, 0], self.pages, recent, self.readers, self.column
        return split_over(_attend_token, specs, PAGES)(*given)[:, None], recent


class Prompts(NamedTuple):
    """A chunk of a prompt in each row, after what its pages hold; the chunk is written to pages.

    `start_R` is a multiple of the page, and so is T. The keys of a row's n-th page here go to page
    `write_RW[row, n]`, or nowhere where there is no such page.
    """

    pages: LayerPages
    table_RN: jax.Array
    start_R: jax.Array
    """Positions before the chunk."""
    write_RW: jax.Array

    def attend(self, q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array) -> tuple[jax.Array, LayerPages]:
        tokens = P(BATCH_AXES, None, "tensor")
        specs = tokens, tokens, tokens, PAGES, ROWS, ROWS, ROWS
        given = q_BTHd, k_BTKd, v_BTKd, self.pages, self.table_RN, self.start_R, self.write_RW
        return split_over(_attend_prompts, specs, (tokens, PAGES))(*given)


def _attend_token(
    q_BHd: jax.Array, pages: LayerPages, recent: Recent, readers: Readers, column: jax.Array
) -> jax.Array:
    B, H, d = q_BHd.shape
    K, C = recent.v_BKCd.shape[1:3]
    q_BKGd = (q_BHd * d**-0.5).reshape(B, K, H // K, d)
    of_pages = _attend_pages(q_BKGd, pages, readers)  # leaves [B, N, K, G, ...]
    now = _partial(q_BKGd, *recent, jnp.broadcast_to(jnp.arange(C)[None] <= column, (B, C)))
    seen_BN11 = readers.seen_BN[:, :, None, None]
    peak_BNKG = jnp.where(seen_BN11, of_pages.peak, MASKED)
    peak_BKG = jnp.maximum(peak_BNKG.max(axis=1), now.peak)
    share_BNKG = jnp.where(seen_BN11, jnp.exp(peak_BNKG - peak_BKG[:, None]), 0.0)
    share_BKG = jnp.exp(now.peak - peak_BKG)
    total_BKG = (share_BNKG * of_pages.total).sum(axis=1) + share_BKG * now.total
    values_BKGd = (share_BNKG[..., None] * of_pages.values).sum(axis=1)
    values_BKGd += share_BKG[..., None] * now.values
    return (values_BKGd / total_BKG[..., None]).reshape(B, H, d).astype(q_BHd.dtype)


def _attend_pages(q_BKGd: jax.Array, pages: LayerPages, readers: Readers) -> Partial:
    """Each sequence's attention to each of its pages.

    Of every page its first reader's, all at once; then that of those who share pages, if there are any.
    """
    Q, (_, K, G, d) = pages.part_pages, q_BKGd.shape
    nothing = Partial(
        jnp.zeros((Q, K, G), jnp.float32),
        jnp.zeros((Q, K, G), jnp.float32),
        jnp.zeros((Q, K, G, d), jnp.float32),
    )
    results = []
    for part, (k_QKdS, v_QKSd) in enumerate(zip(pages.k_parts, pages.v_parts, strict=True)):
        of_part = slice(part * Q, (part + 1) * Q)

        def attend(k_QKdS: jax.Array = k_QKdS, v_QKSd: jax.Array = v_QKSd, at: slice = of_part) -> Partial:
            q_QKGd = q_BKGd[readers.owner_P[at]]
            return _partial(q_QKGd, k_QKdS, v_QKSd, _visible(readers.columns_P[at], v_QKSd))

        results.append(jax.lax.cond(readers.alive_S[part], attend, lambda: nothing))

    def of_sequences(*parts: Partial) -> Partial:
        return jax.tree.map(lambda *x: jnp.concatenate(x)[readers.result_BN], *parts)

    return jax.lax.cond(
        readers.shared_count[0] > 0,
        lambda: of_sequences(*results, _attend_shared(q_BKGd, pages, readers, nothing)),
        lambda: of_sequences(*results),
    )


def _attend_shared(q_BKGd: jax.Array, pages: LayerPages, readers: Readers, nothing: Partial) -> Partial:
    """The attention of those who read a page after its first reader, as many at once as a part has pages."""
    Q = pages.part_pages
    blocks = -(-readers.shared_X.shape[0] // Q)
    padded = jax.tree.map(
        lambda x: jnp.pad(x, (0, blocks * Q - x.shape[0])),
        (readers.shared_X, readers.reader_X, readers.shared_columns_X),
    )

    def block(carry: tuple[jax.Array, Partial]) -> tuple[jax.Array, Partial]:
        number, found = carry
        page_Q, reader_Q, columns_Q = (jax.lax.dynamic_slice_in_dim(x, number * Q, Q) for x in padded)
        k_QKdS, v_QKSd = fetch(pages.k_parts, page_Q), fetch(pages.v_parts, page_Q)
        of_block = _partial(q_BKGd[reader_Q], k_QKdS, v_QKSd, _visible(columns_Q, v_QKSd))
        put = jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, number * Q, 0), found, of_block
        )
        return number + 1, put

    room = jax.tree.map(lambda x: jnp.zeros((blocks * Q, *x.shape[1:]), x.dtype), nothing)
    _, shared = jax.lax.while_loop(
        lambda carry: carry[0] * Q < readers.shared_count[0], block, (jnp.zeros((), jnp.int32), room)
    )
    return shared


def _visible(columns_Q: jax.Array, v_QKSd: jax.Array) -> jax.Array:
    """Which positions [Q, S] of pages are alive."""
    return jnp.arange(v_QKSd.shape[2])[None] < columns_Q[:, None]


def _partial(q_BKRd: jax.Array, k_BKdS: jax.Array, v_BKSd: jax.Array, visible: jax.Array) -> Partial:
    """Attention of scaled queries to the keys that are visible: [B, S], or [B, R, S] for each query."""
    visible = visible[:, None, None] if visible.ndim == 2 else visible[:, None]
    scores_BKRS = jnp.einsum("bkrd,bkds->bkrs", q_BKRd, k_BKdS, preferred_element_type=jnp.float32)
    scores_BKRS = jnp.where(visible, scores_BKRS, MASKED)
    peak_BKR = scores_BKRS.max(axis=-1)
    weights_BKRS = jnp.exp(scores_BKRS - peak_BKR[..., None])
    values_BKRd = jnp.einsum(
        "bkrs,bksd->bkrd", weights_BKRS.astype(v_BKSd.dtype), v_BKSd, preferred_element_type=jnp.float32
    )
    return Partial(peak_BKR, weights_BKRS.sum(axis=-1), values_BKRd)


def _attend_prompts(
    q_RCHd: jax.Array,
    k_RCKd: jax.Array,
    v_RCKd: jax.Array,
    pages: LayerPages,
    table_RN: jax.Array,
    start_R: jax.Array,
    write_RW: jax.Array,
) -> tuple[jax.Array, LayerPages]:
    (R, C, H, d), K = q_RCHd.shape, k_RCKd.shape[2]
    page = pages.page
    q_RKTd = (q_RCHd * d**-0.5).reshape(R, C, K, H // K, d).transpose(0, 2, 3, 1, 4).reshape(R, K, -1, d)
    k_RKdC, v_RKCd = k_RCKd.transpose(0, 2, 3, 1), v_RCKd.transpose(0, 2, 1, 3)
    causal_1TC = jnp.tile(jnp.tril(jnp.ones((C, C), bool)), (H // K, 1))[None]

    def earlier(carry: tuple[jax.Array, Partial]) -> tuple[jax.Array, Partial]:
        n, found = carry
        page_R = jax.lax.dynamic_index_in_dim(table_RN, n, 1, keepdims=False)
        seen_RS = jnp.broadcast_to((n * page < start_R)[:, None], (R, page))
        fetched = fetch(pages.k_parts, page_R), fetch(pages.v_parts, page_R)
        return n + 1, _merged(found, _partial(q_RKTd, *fetched, seen_RS))

    own = _partial(q_RKTd, k_RKdC, v_RKCd, causal_1TC)
    start = jnp.zeros((), jnp.int32), own
    _, found = jax.lax.while_loop(lambda carry: carry[0] * page < start_R.max(), earlier, start)
    out_RKTd = (found.values / found.total[..., None]).astype(q_RCHd.dtype)
    # The pages are written after they were read, which is what lets a compiler write them in place.
    out_RKTd, k_RKdC, v_RKCd = jax.lax.optimization_barrier((out_RKTd, k_RKdC, v_RKCd))
    out_RCHd = out_RKTd.reshape(R, K, H // K, C, d).transpose(0, 3, 1, 2, 4).reshape(R, C, H, d)

    k_RWKdS = k_RKdC.reshape(R, K, d, C // page, page).transpose(0, 3, 1, 2, 4)
    v_RWKSd = v_RKCd.reshape(R, K, C // page, page, d).swapaxes(1, 2)
    to_X = write_RW.reshape(-1)
    k_parts = put(pages.k_parts, to_X, k_RWKdS.reshape(-1, K, d, page))
    return out_RCHd, LayerPages(k_parts, put(pages.v_parts, to_X, v_RWKSd.reshape(-1, K, page, d)))


def _merged(a: Partial, b: Partial) -> Partial:
    peak = jnp.maximum(a.peak, b.peak)
    of_a, of_b = jnp.exp(a.peak - peak), jnp.exp(b.peak - peak)
    return Partial(
        peak, of_a * a.total + of_b * b.total, of_a[..., None] * a.values + of_b[..., None] * b.values
    )
