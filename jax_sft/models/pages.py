"""Keys and values in pages, plain JAX: what decode and prefill read and write on CPU and GPU.

A layer's memory is a few parts, each an array of pages [Q, K, d, page] for keys and one of [Q, K, page, d]
for values: the layouts that a CPU's products read three times as fast as the other way around. Page p lies in
part p // Q. A sequence's row of the page table names its pages in order. Over a mesh every data shard has
pages, sequences and page numbers of its own, and key/value heads are split over `tensor`.

While a chunk is decoded the pages stand still: the chunk's own keys and values are gathered in a small array
beside them and written behind the others at its end. Each page is attended to by the query of its sequence
with all other pages at once (the page is the batch), in place; parts without a living page are skipped. The
results of a sequence's pages are merged in the order of its table (arXiv 2311.01282 calls this flash
decoding), so that no bit depends on where its pages lie, or on what lies beside them. A page that several
sequences share is read again for each further one, from a copy of the same shape.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jax_sft.config import ModelConfig
from jax_sft.sharding import BATCH_AXES, split_over

PARTS = 6
"""Parts of a layer's memory: how finely dead memory is left unread."""
COMPARED = 1 << 22
"""Most pairs of pages and places in tables that are compared, each with each."""
PAGES = P(BATCH_AXES, "tensor")
"""Pages over the data axes, heads over `tensor`."""
ROWS = P(BATCH_AXES)


class LayerPages(NamedTuple):
    """Keys and values of one layer."""

    k_parts: tuple[jax.Array, ...]
    v_parts: tuple[jax.Array, ...]

    @property
    def part_pages(self) -> int:
        """Pages of one part."""
        return self.k_parts[0].shape[0]

    @property
    def pages(self) -> int:
        """Pages of all parts."""
        return len(self.k_parts) * self.part_pages

    @property
    def page(self) -> int:
        """Positions of a page."""
        return self.v_parts[0].shape[2]


class Recent(NamedTuple):
    """Keys and values of the chunk that is being decoded."""

    k_BKdC: jax.Array
    v_BKCd: jax.Array


class Readers(NamedTuple):
    """Who reads which page; as long as pages stand still, the same for all layers and tokens."""

    owner_P: jax.Array
    """The first sequence that reads each page."""
    columns_P: jax.Array
    """How many of its positions are alive."""
    alive_S: jax.Array
    """Whether a page of the part is."""
    shared_X: jax.Array
    """Pages read by a further sequence, those first that are."""
    reader_X: jax.Array
    """The sequence."""
    shared_columns_X: jax.Array
    shared_count: jax.Array
    result_BN: jax.Array
    """Where the result for a sequence's n-th page is: at the page, or behind all pages if it is shared."""
    seen_BN: jax.Array
    """Whether the sequence has an n-th page to read."""


def empty_pages(config: ModelConfig, pages: int, page: int, dtype: Any) -> tuple[LayerPages, ...]:
    """Memory of `pages` pages of `page` positions for every layer; `pages` is a multiple of PARTS."""
    Q, K, d = pages // PARTS, config.num_kv_heads, config.head_dim

    def parts(*of_head: int) -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros((Q, K, *of_head), dtype) for _ in range(PARTS))

    return tuple(LayerPages(parts(d, page), parts(page, d)) for _ in range(config.num_layers))


def find_readers(table_BN: jax.Array, length_B: jax.Array, pages: int, page: int) -> Readers:
    """Who reads what, where sequence b is to attend to `length_B[b]` positions in its pages (0: to none)."""

    def of_shard(table_BN: jax.Array, length_B: jax.Array) -> Readers:
        return _find_readers(table_BN, length_B, pages // _shards(), page)

    return split_over(of_shard, (ROWS, ROWS), ROWS)(table_BN, length_B)


def _find_readers(table_BN: jax.Array, length_B: jax.Array, pages: int, page: int) -> Readers:
    B, N = table_BN.shape
    seen_BN = jnp.arange(N)[None] * page < length_B[:, None]
    columns_BN = jnp.clip(length_B[:, None] - jnp.arange(N)[None] * page, 0, page)
    item_BN = jnp.arange(B * N).reshape(B, N)
    if pages * B * N <= COMPARED:  # a CPU scatters one number after the other
        page_1X, seen_1X, item_1X = (x.reshape(1, -1) for x in (table_BN, seen_BN, item_BN))
        reads_PX = (page_1X == jnp.arange(pages)[:, None]) & seen_1X
        first_P = jnp.where(reads_PX, item_1X, B * N).min(axis=1)
    else:
        first_P = jnp.full(pages, B * N).at[jnp.where(seen_BN, table_BN, pages)].min(item_BN, mode="drop")
    owned_P = first_P < B * N
    first_P = jnp.minimum(first_P, B * N - 1)
    further_BN = seen_BN & (first_P[table_BN] != item_BN)
    rank_BN = jnp.cumsum(further_BN.reshape(-1)).reshape(B, N) - 1
    item_X = jnp.argsort(~further_BN.reshape(-1), stable=True)
    return Readers(
        owner_P=first_P // N,
        columns_P=jnp.where(owned_P, columns_BN.reshape(-1)[first_P], 0),
        alive_S=owned_P.reshape(PARTS, -1).any(axis=1),
        shared_X=table_BN.reshape(-1)[item_X],
        reader_X=item_X // N,
        shared_columns_X=columns_BN.reshape(-1)[item_X],
        shared_count=further_BN.sum()[None],
        result_BN=jnp.where(further_BN, pages + rank_BN, table_BN),
        seen_BN=seen_BN,
    )


def empty_recent(layers: tuple[LayerPages, ...], sequences: int, chunk: int) -> tuple[Recent, ...]:
    """Room for the keys and values of a chunk of every layer."""

    def room(layer: LayerPages) -> Recent:
        _, K, d, _ = layer.k_parts[0].shape
        shapes = (sequences, K, d, chunk), (sequences, K, chunk, d)
        return Recent(*(jnp.zeros(shape, layer.k_parts[0].dtype) for shape in shapes))

    return tuple(map(room, layers))


def write_recent(
    pages: LayerPages, recent: Recent, table_BN: jax.Array, start_B: jax.Array, made_B: jax.Array
) -> LayerPages:
    """The pages with the first `made_B[b]` of a chunk's tokens behind the `start_B[b]` of sequence b."""
    specs = PAGES, PAGES, ROWS, ROWS, ROWS
    return split_over(_write_recent, specs, PAGES)(pages, recent, table_BN, start_B, made_B)


def copy_pages(pages: LayerPages, from_B: jax.Array, to_B: jax.Array) -> LayerPages:
    """The pages after page `from_B[b]` was copied to `to_B[b]`, for every b whose `to_B` is a page."""

    def copy(pages: LayerPages, from_B: jax.Array, to_B: jax.Array) -> LayerPages:
        def copied(parts: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            return put(parts, to_B, fetch(parts, from_B))

        return LayerPages(copied(pages.k_parts), copied(pages.v_parts))

    return split_over(copy, (PAGES, ROWS, ROWS), PAGES)(pages, from_B, to_B)


def _shards() -> int:
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape[BATCH_AXES[0]] * mesh.shape[BATCH_AXES[1]]


def fetch(parts: tuple[jax.Array, ...], page_X: jax.Array) -> jax.Array:
    """Copies of pages, [X, ...]."""
    Q = parts[0].shape[0]
    fetched = parts[0][jnp.clip(page_X, 0, Q - 1)]
    for number, part in enumerate(parts[1:], 1):
        in_part_X = page_X >= number * Q
        other = part[jnp.clip(page_X - number * Q, 0, Q - 1)]
        fetched = jnp.where(in_part_X[:, None, None, None], other, fetched)
    return fetched


def put(parts: tuple[jax.Array, ...], page_X: jax.Array, new_X: jax.Array) -> tuple[jax.Array, ...]:
    """The parts with pages replaced; what is not for a page that there is, is dropped."""
    return tuple(
        part.at[_inside(page_X, number, part)].set(new_X.astype(part.dtype), mode="drop")
        for number, part in enumerate(parts)
    )


def _inside(page_X: jax.Array, number: int, part: jax.Array) -> jax.Array:
    """Where in a part pages lie; past its end for those of other parts."""
    Q = part.shape[0]
    at_X = page_X - number * Q
    return jnp.where((at_X >= 0) & (at_X < Q), at_X, Q)


def _write_recent(
    pages: LayerPages, recent: Recent, table_BN: jax.Array, start_B: jax.Array, made_B: jax.Array
) -> LayerPages:
    C, page = recent.v_BKCd.shape[2], pages.page
    position_BC = start_B[:, None] + jnp.arange(C)[None]
    nth_BC = jnp.minimum(position_BC // page, table_BN.shape[1] - 1)
    page_BC = jnp.take_along_axis(table_BN, nth_BC, axis=1)
    page_BC = jnp.where(jnp.arange(C)[None] < made_B[:, None], page_BC, pages.pages)
    k_BCKd, v_BCKd = recent.k_BKdC.transpose(0, 3, 1, 2), recent.v_BKCd.transpose(0, 2, 1, 3)
    at_BC = position_BC % page
    return LayerPages(
        tuple(
            part.at[_inside(page_BC, number, part), :, :, at_BC].set(k_BCKd, mode="drop")
            for number, part in enumerate(pages.k_parts)
        ),
        tuple(
            part.at[_inside(page_BC, number, part), :, at_BC].set(v_BCKd, mode="drop")
            for number, part in enumerate(pages.v_parts)
        ),
    )
