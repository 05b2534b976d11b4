"""Attention to keys and values that lie in pages: jax's ragged paged attention (a Pallas kernel for TPU).

A pool of one layer is [P, page, C, d]: P pages of so many positions, each with its keys and values side by
side, heads in turn (k0 v0 k1 v1 …). A sequence's row of the page table says which pages hold it; it reads
those and no others. New tokens of all sequences lie in one array, sequence after sequence: a single one each
while decoding, chunks of prompts in prefill, or both at once.

Everything here is of one device: one data shard's pages, sequences and tokens, numbered from 0, and its part
of the heads. The kernel wants heads of 128 (`page_shape` pads: 64 to 128 costs twice the bytes; gathering a
sequence's pages into one array would cost three times: read, written and read again) and a number of heads
that packs into whole registers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

LANES = 128
"""The kernel's heads are a multiple of this wide."""
BLOCK_BYTES, BLOCK_TOKENS, BLOCK_PAGES = 2 << 20, 1024, 16
"""Most that one buffer of the kernel holds of a sequence: what is read past its end is wasted."""
PREFILL_QUERIES = 64
"""Queries that the kernel works on at once, where sequences have more than one."""
VMEM_FLOOR = 16 << 20
MASKED = -1e30
WRITE, ATTEND = "write_pages", "ragged_paged_attention_kernel"
"""What the kernels are called in a compiled program; how much of a pool they touch is data."""


class Ragged(NamedTuple):
    """Which new tokens belong to which sequence, and where its pages are."""

    lengths_B: jax.Array
    """Positions of each sequence, its new tokens among them; at least 1, also where nothing is asked."""
    table_BJ: jax.Array
    """Its pages in order; any page that there is where it has none."""
    starts_S: jax.Array
    """First new token of each sequence, and the end of the last one: [B + 1]."""
    count_1: jax.Array
    """Sequences that have new tokens; they come first."""


def page_shape(
    pages: int, page: int, kv_heads: int, head_dim: int, dtype: Any, tensor: int = 1
) -> tuple[int, int, int, int]:
    """Shape of a layer's pool [P, page, C, d] that the kernel reads, heads padded for `tensor` ways."""
    packing = max(2, 4 // jnp.dtype(dtype).itemsize)  # keys and values come in pairs
    combined = 2 * kv_heads // tensor
    units = -(-combined // packing)
    units = next((size for size in (1, 2, 4, 8) if size >= units), -(-units // 8) * 8)
    return pages, page, units * packing * tensor, -(-head_dim // LANES) * LANES


def in_type(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` in the type of pages; 8 bits hold no more than their largest, integers -127 … 127, rounded."""
    if jnp.issubdtype(dtype, jnp.integer):
        x = jnp.clip(jnp.round(x.astype(jnp.float32)), -127, 127)
    elif jnp.dtype(dtype).itemsize == 1:
        largest = float(jnp.finfo(dtype).max)
        x = jnp.clip(x.astype(jnp.float32), -largest, largest)
    return x.astype(dtype)


def combine(k_NKd: jax.Array, v_NKd: jax.Array, pool_PSCd: jax.Array) -> jax.Array:
    """Keys and values of new tokens as a pool holds them, in its type -> [N, C, d]."""
    N, K, d = k_NKd.shape
    _, _, C, width = pool_PSCd.shape
    pairs_NCd = jnp.stack((k_NKd, v_NKd), axis=2).reshape(N, 2 * K, d)
    pairs_NCd = jnp.pad(pairs_NCd, ((0, 0), (0, C - 2 * K), (0, width - d)))
    return in_type(pairs_NCd, pool_PSCd.dtype)


def write_rows(pool_Xr: jax.Array, rows_Nr: jax.Array, at_N: jax.Array, kernel: bool) -> jax.Array:
    """The pool with rows (tokens of [X, C, d] or pages of [X, S, C, d]) at their places, different ones.

    A row whose place is not in the pool goes nowhere. In place if the pool is donated or carried by a loop.
    """
    if kernel:
        return _copy_rows(pool_Xr, rows_Nr, at_N)
    at_N = jnp.where(at_N < 0, pool_Xr.shape[0], at_N)
    return pool_Xr.at[at_N].set(rows_Nr, mode="drop")


def _copy_rows(pool_Xr: jax.Array, rows_Nr: jax.Array, at_N: jax.Array) -> jax.Array:
    """By copies that are all under way at once: the compiler's own scatter makes one after the other."""
    N, X = rows_Nr.shape[0], pool_Xr.shape[0]

    def body(at: Any, rows: Any, _: Any, pool: Any, semaphore: Any) -> None:
        def copies(start: bool) -> None:
            def of_row(n: jax.Array, _: None) -> None:
                @pl.when((at[n] >= 0) & (at[n] < X))
                def if_it_has_a_place() -> None:
                    copy = pltpu.make_async_copy(rows.at[n], pool.at[at[n]], semaphore)
                    copy.start() if start else copy.wait()

            jax.lax.fori_loop(0, N, of_row, None)

        copies(start=True)
        copies(start=False)

    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    return pl.pallas_call(
        body,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            in_specs=[anywhere, anywhere],
            out_specs=anywhere,
            grid=(1,),
            scratch_shapes=[pltpu.SemaphoreType.DMA],
        ),
        out_shape=jax.ShapeDtypeStruct(pool_Xr.shape, pool_Xr.dtype),
        input_output_aliases={2: 0},
        name=WRITE,
    )(at_N, rows_Nr, pool_Xr)


def attend_pages(q_NHd: jax.Array, pool_PSCd: jax.Array, rows: Ragged, heads: int) -> jax.Array:
    """Causal attention of new tokens to their sequences' pages -> [N, H, d], by the kernel.

    `heads` are the key/value heads that the pool holds without padding. Tokens that belong to no sequence
    come back as anything. Queries are scaled already.
    """
    N, H, d = q_NHd.shape
    width, group = pool_PSCd.shape[3], H // heads
    held = pool_PSCd.shape[2] // 2
    q_NKGd = q_NHd.reshape(N, heads, group, d)
    q_NKGd = jnp.pad(q_NKGd, ((0, 0), (0, held - heads), (0, 0), (0, width - d)))
    B, J = rows.table_BJ.shape
    scale = None if jnp.issubdtype(pool_PSCd.dtype, jnp.floating) and pool_PSCd.dtype.itemsize > 1 else 1.0
    pages, queries = block_sizes(pool_PSCd, J, decoding=N == B)
    out_NHd = ragged_paged_attention(
        q_NKGd.reshape(N, held * group, width),
        pool_PSCd,
        rows.lengths_B,
        rows.table_BJ,
        rows.starts_S,
        rows.count_1,
        mask_value=MASKED,
        k_scale=scale,
        v_scale=scale,
        num_kv_pages_per_block=pages,
        num_queries_per_block=queries,
        vmem_limit_bytes=vmem_bytes(pool_PSCd, pages, queries, held * group),
    )
    return out_NHd.reshape(N, held, group, width)[:, :heads, :, :d].reshape(N, H, d)


def block_sizes(pool_PSCd: jax.Array, pages_each: int, decoding: bool) -> tuple[int, int]:
    """(pages, queries) that the kernel works on at once.

    Decoding, every query of a block is multiplied with the keys of every sequence of the block: one is least.
    """
    _, S, C, d = pool_PSCd.shape
    pages = min(block_tokens(S, C, d, pool_PSCd.dtype.itemsize) // S, pages_each)
    return pages, 1 if decoding else PREFILL_QUERIES


def block_tokens(page: int, heads: int, width: int, itemsize: int) -> int:
    """Positions that the kernel reads at once, of a pool [P, page, heads, width]: whole pages."""
    tokens = min(BLOCK_TOKENS, BLOCK_BYTES // (heads * width * itemsize))
    return max(1, min(tokens // page, BLOCK_PAGES)) * page


def vmem_bytes(pool_PSCd: jax.Array, pages: int, queries: int, heads: int) -> int:
    """On-chip memory that the kernel may use: its buffers and accumulators twice over, and some more."""
    _, S, C, d = pool_PSCd.shape
    buffers = 2 * pages * S * C * d * pool_PSCd.dtype.itemsize
    accumulators = queries * heads * (d + 2 * LANES) * 4 + 4 * queries * heads * d * 4
    scores = 4 * queries * (heads // (C // 2)) * pages * S * 4
    return VMEM_FLOOR + 2 * (buffers + accumulators + scores)


def attend_pages_plainly(q_NHd: jax.Array, pool_PSCd: jax.Array, rows: Ragged, heads: int) -> jax.Array:
    """What `attend_pages` does, in plain JAX: every sequence's pages are gathered into one array."""
    N, H, d = q_NHd.shape
    B, J = rows.table_BJ.shape
    S, starts_S = pool_PSCd.shape[1], rows.starts_S
    token_N = jnp.arange(N)
    sequence_N = jnp.clip(jnp.searchsorted(starts_S, token_N, side="right") - 1, 0, B - 1)
    ends_N, length_N = starts_S[sequence_N + 1], rows.lengths_B[sequence_N]
    position_N = length_N - (ends_N - token_N)
    kv_BSCd = pool_PSCd[rows.table_BJ].reshape(B, J * S, *pool_PSCd.shape[2:]).astype(jnp.float32)
    k_BSKd, v_BSKd = kv_BSCd[:, :, 0 : 2 * heads : 2, :d], kv_BSCd[:, :, 1 : 2 * heads : 2, :d]
    q_NKGd = q_NHd.reshape(N, heads, H // heads, d).astype(jnp.float32)
    scores_NKGS = jnp.einsum("nkgd,nskd->nkgs", q_NKGd, k_BSKd[sequence_N])
    seen_NS = jnp.arange(J * S)[None, :] <= position_N[:, None]
    weights_NKGS = jax.nn.softmax(jnp.where(seen_NS[:, None, None], scores_NKGS, MASKED), axis=-1)
    out_NKGd = jnp.einsum("nkgs,nskd->nkgd", weights_NKGS, v_BSKd[sequence_N])
    return out_NKGd.reshape(N, H, d).astype(q_NHd.dtype)
