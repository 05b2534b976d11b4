"""Where the keys and values of sequences lie, by platform: what the generation engine asks of it.

A memory is pages of one size for every layer. The engine says which pages a sequence has; the memory says how
a page is laid out, how new tokens attend to pages, and how they get there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jax_sft.config import ModelConfig
from jax_sft.models.attention import Context
from jax_sft.models.paged import Prompts, Token
from jax_sft.models.pages import (
    PAGES,
    PARTS,
    LayerPages,
    Readers,
    Recent,
    copy_pages,
    empty_pages,
    empty_recent,
    find_readers,
    write_recent,
)
from jax_sft.models.ragged import RaggedPages

Layers = tuple[Any, ...]
"""What a memory holds, layer by layer; all arrays of a layer are pytrees of the memory's own."""


class Orders(NamedTuple):
    """A chunk of a prompt in each row R of a prefill; page numbers count from 0 in each data shard."""

    tokens_RC: jax.Array
    start_R: jax.Array
    """Positions before the chunk: a multiple of the page."""
    count_R: jax.Array
    """Tokens of the chunk, from the left; 0 in a row that is not used."""
    table_RN: jax.Array
    """Pages of the row's sequence in order; any number where it has none."""
    write_RW: jax.Array
    """To which page the chunk's n-th page goes; a number that no page has where it goes nowhere, because
    another sequence has written the same there, or there is nothing to write."""


class Desk(Protocol):
    """Sequences while a chunk of new tokens is decoded, a pytree. `start` is what the tokens change."""

    @property
    def start(self) -> Layers:
        """Before the first token of the chunk."""

    def contexts(
        self, changed: Layers, column: jax.Array, position_B: jax.Array, active_B: jax.Array
    ) -> Sequence[Context]:
        """What the chunk's token number `column` of each sequence attends to, which keeps what changes."""

    def close(self, changed: Layers, start_B: jax.Array, made_B: jax.Array) -> Layers:
        """The memory after the chunk, which began at `start_B` and made so many tokens."""


class Memory(Protocol):
    """How one platform keeps keys and values."""

    units: int
    """Of how many pages, in each data shard, a memory consists of a multiple: it has so many parts."""

    def empty(self, config: ModelConfig, pages: int, page: int, dtype: Any) -> Layers:
        """Memory of so many pages of so many positions, over all data shards."""

    def spec(self, layers: Layers) -> Any:
        """How the mesh splits it."""

    def prompts(self, layers: Layers, orders: Orders) -> Sequence[Context]:
        """What the chunks of a prefill attend to; what each context keeps is the layer's memory after it."""

    def open(
        self, layers: Layers, table_BN: jax.Array, position_B: jax.Array, active_B: jax.Array, chunk: int
    ) -> Desk:
        """For decoding up to `chunk` tokens, the first of sequence b at `position_B[b]`."""

    def copy(self, layers: Layers, from_B: jax.Array, to_B: jax.Array) -> Layers:
        """The memory after pages were copied within their data shard, for every b whose `to_B` is a page."""


class PlainDesk(NamedTuple):
    """Pages stand still; the chunk's keys and values lie beside them."""

    layers: tuple[LayerPages, ...]
    table_BN: jax.Array
    readers: Readers
    start: tuple[Recent, ...]

    def contexts(
        self, changed: Layers, column: jax.Array, position_B: jax.Array, active_B: jax.Array
    ) -> list[Context]:
        return [
            Token(layer, recent, self.readers, column)
            for layer, recent in zip(self.layers, changed, strict=True)
        ]

    def close(self, changed: Layers, start_B: jax.Array, made_B: jax.Array) -> Layers:
        return tuple(
            write_recent(layer, recent, self.table_BN, start_B, made_B)
            for layer, recent in zip(self.layers, changed, strict=True)
        )


class Plain:
    """Plain JAX."""

    units = PARTS

    def empty(self, config: ModelConfig, pages: int, page: int, dtype: Any) -> Layers:
        return empty_pages(config, pages, page, dtype)

    def spec(self, layers: Layers) -> Any:
        return jax.tree.map(lambda _: PAGES, layers)

    def prompts(self, layers: Layers, orders: Orders) -> list[Context]:
        return [Prompts(layer, orders.table_RN, orders.start_R, orders.write_RW) for layer in layers]

    def open(
        self, layers: Layers, table_BN: jax.Array, position_B: jax.Array, active_B: jax.Array, chunk: int
    ) -> PlainDesk:
        pages, page = layers[0].pages, layers[0].page
        readers = find_readers(table_BN, jnp.where(active_B, position_B, 0), pages, page)
        return PlainDesk(layers, table_BN, readers, empty_recent(layers, table_BN.shape[0], chunk))

    def copy(self, layers: Layers, from_B: jax.Array, to_B: jax.Array) -> Layers:
        return tuple(copy_pages(layer, from_B, to_B) for layer in layers)


def memory_of(platform: str, eight_bits: bool = False) -> Memory:
    """The memory that is fastest there; keys and values in 8 bits are the business of one alone."""
    return RaggedPages() if platform == "tpu" or eight_bits else Plain()
