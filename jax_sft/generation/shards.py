"""The slots and pages of one of the devices that share the sequences, and who is on the way into them."""

import heapq
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jax_sft.generation.pages import Book, PrefixKeys, prefix_keys
from jax_sft.generation.sequences import Sequence


@dataclass(frozen=True)
class Shape:
    """What the engine's programs were compiled for; slots, pages and rows are those of all shards."""

    slots: int
    pages: int
    page: int
    """Positions of a page."""
    context: int
    chunk: int
    """Tokens decoded between two looks."""
    prefill_rows: int
    prefill_chunk: int
    """Prompt tokens of a row: a multiple of the page."""
    shards: int = 1
    part: int = 0
    """Pages that are read together if one of them is alive, and so are kept in as few such parts as will do;
    0 where each is read by itself."""

    @property
    def columns(self) -> int:
        """Most pages of a sequence."""
        return -(-self.context // self.page)


class Prefill(NamedTuple):
    """Arguments of one call of the prefill program (`models.memory.Orders`)."""

    tokens_RC: np.ndarray
    start_R: np.ndarray
    count_R: np.ndarray
    table_RN: np.ndarray
    write_RW: np.ndarray


def empty_prefill(shape: Shape) -> Prefill:
    """A call that prefills nothing."""
    R, C = shape.prefill_rows, shape.prefill_chunk
    return Prefill(
        np.zeros((R, C), np.int32),
        np.zeros(R, np.int32),
        np.zeros(R, np.int32),
        np.zeros((R, shape.columns), np.int32),
        np.full((R, C // shape.page), shape.pages, np.int32),
    )


class Shard:
    """Sequences that share pages, from their admission on."""

    def __init__(self, number: int, shape: Shape) -> None:
        """Everything is free."""
        self._shape = shape
        slots, rows = shape.slots // shape.shards, shape.prefill_rows // shape.shards
        self.slots = range(number * slots, (number + 1) * slots)
        self.rows = range(number * rows, (number + 1) * rows)
        self.book = Book(shape.pages // shape.shards)
        self.free_slots = list(self.slots)
        self.prefilling: deque[Sequence] = deque()
        self.ready: deque[Sequence] = deque()
        self._pending: set[bytes] = set()
        """Names of pages that are being prefilled."""

    @property
    def has_place(self) -> bool:
        """Whether another may be admitted: for each free slot, and as many ahead as one prefill takes."""
        return len(self.prefilling) + len(self.ready) < len(self.free_slots) + len(self.rows)

    @property
    def vacant(self) -> bool:
        """Whether nobody has pages here."""
        return not (self.prefilling or self.ready) and len(self.free_slots) == len(self.slots)

    def growth(self) -> int:
        """Pages that those are expected to need still which have no slot yet."""
        page = self._shape.page
        waiting = [*self.prefilling, *self.ready]
        return sum(max(0, one.pages_for(one.expected, page) - len(one.pages)) for one in waiting)

    def knows(self, sequence: Sequence) -> bool:
        """Whether the first page of its prompt is here, or on the way."""
        full = keys_of(sequence, self._shape.page).full
        return bool(full) and (self.book.find(full[0]) is not None or full[0] in self._pending)

    def admit(self, sequence: Sequence, spare: int) -> bool:
        """Give it pages for its prompt and its first chunk; False when it has to wait.

        It waits for what another is just prefilling, for pages, and for as many as it is expected to need
        beside what the others still will; `spare` are those that are left then.
        """
        page, book = self._shape.page, self.book
        keys = keys_of(sequence, page)
        found = list[int]()
        for name in keys.full:
            if (known := book.find(name)) is None:
                break
            found.append(known)
        complete, tail = len(found) == len(keys.full), None
        if complete and keys.tail is not None:
            tail = book.find(keys.tail)
        missing = keys.tail if complete else keys.full[len(found)]
        if tail is None and missing in self._pending:
            return False
        need = sequence.pages_for(self._shape.chunk, page) - len(found)
        all_of_it = sequence.pages_for(max(sequence.expected, self._shape.chunk), page) - len(found)
        if need > book.free or (all_of_it > spare and not self.vacant):
            return False
        for number in found:
            book.hold(number)
        sequence.pages = found + book.take(need)
        sequence.found, sequence.tail_from = len(found), -1
        if tail is not None:
            book.hold(tail)
            sequence.tail_from = tail
        if complete and (keys.tail is None or tail is not None):
            self.ready.append(sequence)
            return True
        chunk = self._shape.prefill_chunk
        sequence.chunks = deque(range(len(found) * page // chunk, -(-sequence.known // chunk)))
        self._pending.update(keys.full[len(found) :], () if keys.tail is None else (keys.tail,))
        self.prefilling.append(sequence)
        return True

    def fill(self, call: Prefill) -> int:
        """Put the next chunks of prompts into this shard's rows of a call; how many tokens they are."""
        tokens = 0
        for row, sequence in zip(self.rows, list(self.prefilling), strict=False):
            tokens += self._fill_row(call, row, sequence)
            if not sequence.chunks:
                self.prefilling.remove(sequence)
                self.ready.append(sequence)
        return tokens

    def _fill_row(self, call: Prefill, row: int, sequence: Sequence) -> int:
        page, C = self._shape.page, self._shape.prefill_chunk
        start = sequence.chunks.popleft() * C
        prompt = sequence.request.prompt[start : min(start + C, sequence.known)]
        call.tokens_RC[row, : len(prompt)] = prompt
        call.start_R[row], call.count_R[row] = start, len(prompt)
        call.table_RN[row, : len(sequence.pages)] = sequence.pages
        keys = keys_of(sequence, page)
        names = keys.full if keys.tail is None else (*keys.full, keys.tail)
        for nth in range(start // page, min((start + C) // page, len(names))):
            if nth >= sequence.found:
                call.write_RW[row, nth - start // page] = sequence.pages[nth]
                self.book.name(sequence.pages[nth], names[nth])
                self._pending.discard(names[nth])
        return len(prompt)

    def start(self, sequence: Sequence) -> tuple[int, int]:
        """Give it the lowest free slot; the page to copy first, and where to (-1 where there is none)."""
        sequence.slot = heapq.heappop(self.free_slots)
        if sequence.tail_from < 0:
            return -1, -1
        keys = keys_of(sequence, self._shape.page)
        source, own = sequence.tail_from, sequence.pages[len(keys.full)]
        assert keys.tail is not None
        self.book.name(own, keys.tail)
        self.book.release([source])
        sequence.tail_from = -1
        return source, own

    def pack(self, sequence: Sequence, most: int) -> list[tuple[int, int, int]]:
        """Move pages of one that has a slot to where fewer parts hold all that are in use.

        At most so many; of each its place in the sequence, where it was and where it is to be copied.
        """
        part, book, moves = self._shape.part, self.book, list[tuple[int, int, int]]()
        enough = -(-(book.pages - book.free) // part) * part
        for nth, page in enumerate(sequence.pages):
            if page >= enough and len(moves) < most and not book.is_shared(page):
                sequence.pages[nth] = book.move(page)
                moves.append((nth, page, sequence.pages[nth]))
        return moves

    def release(self, sequence: Sequence) -> None:
        """Take its pages, and its slot or its place on the way to one."""
        if sequence.slot >= 0:
            heapq.heappush(self.free_slots, sequence.slot)
        elif sequence.chunks:
            self.prefilling.remove(sequence)
            keys = keys_of(sequence, self._shape.page)
            self._pending.difference_update(keys.full[sequence.found :], [keys.tail or b""])
        else:
            self.ready.remove(sequence)
        self.book.release(sequence.pages)
        if sequence.tail_from >= 0:
            self.book.release([sequence.tail_from])
        sequence.pages = []


def keys_of(sequence: Sequence, page: int) -> PrefixKeys:
    """Names of what its pages are to hold, found once."""
    if sequence.keys is None:
        sequence.keys = prefix_keys(sequence.request.prompt[:-1], page)
    return sequence.keys
