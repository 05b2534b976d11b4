"""Who is answered when, where and in which pages: the requests of one call as plain data on the host.

No device has a part in it. Before each chunk of decoding `plan` says what to prefill, which slots start and
stop, and which pages each has; `collect` takes what a chunk made. Several chunks may be planned before the
first is collected. The work of a plan grows with the slots that change, not with the tokens; where pages are
read in parts, on a CPU, also with the pages in use.

A request waits, is prefilled into pages, is ready, and then has a slot until it ends. Whoever is expected to
take longest goes first. It is admitted when its prompt fits into free pages, and what it is expected to grow
to beside what the others still are; when pages run out all the same, the youngest of its data shard loses
them and waits again. Its completion, which depends on weights, prompt, settings and key alone, is then drawn
anew, to the same tokens.
"""

import heapq
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jax_sft.errors import UsageError
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.sequences import Flights, Landed, Sequence, completion, cut
from jax_sft.generation.shards import Prefill, Shape, Shard, empty_prefill

STALL = 2
"""Prompt tokens that are prefilled between two chunks for each token that a chunk may make."""
UNKNOWN = 0.5
"""Share of its limit that a sequence is thought to make while nothing is known."""
NEVER = np.iinfo(np.int64).max


class Plan(NamedTuple):
    """What to do next: prefills one after the other, then a chunk of decoding where any slot is busy."""

    prefills: list[Prefill]
    starts: list[tuple[int, Request]]
    """Slots, and whom they begin to answer."""
    stops_B: np.ndarray
    """Slots whose sequence is not to go on; another may start there."""
    table_BN: np.ndarray
    copy_from_B: np.ndarray
    copy_to_B: np.ndarray
    """Pages to copy before the chunk; where `copy_to_B` is no page there is nothing to copy."""
    busy: bool


class Schedule:
    """The requests of one call: those that wait, those being prefilled, those in slots."""

    def __init__(self, requests: Iterable[Request], shape: Shape, stop_ids: Iterable[int]) -> None:
        """Nothing is admitted yet; the pages of each shard hold at least one whole context."""
        self._shape, self._stop_ids = shape, frozenset(stop_ids)
        self.shards = [Shard(number, shape) for number in range(shape.shards)]
        self._crew: list[Sequence | None] = [None] * shape.slots
        self._flights = Flights()
        self._queue = list[tuple[float, int, Sequence]]()
        for arrival, request in enumerate(requests):
            self._queue.append((*(one := Sequence(request, arrival)).rank, one))
        heapq.heapify(self._queue)
        self._left = len(self._queue)
        self._table_BN: Any = np.zeros((shape.slots, shape.columns), np.int32)
        zeros_B: Any = np.zeros(shape.slots, np.int64)
        self._known_B, self._limit_B, self._held_B = zeros_B.copy(), zeros_B.copy(), zeros_B.copy()
        self._expected_B = zeros_B.copy()
        self._upper_B: Any = zeros_B.copy()
        """New tokens at most, with those of the chunks in the air."""
        self._first_B: Any = np.full(shape.slots, NEVER)
        self._stops = set[int]()
        self._watched = set[int]()
        """Slots, now or of late, of sequences that are watched."""
        self._leaving = list[Sequence]()
        """Those without a slot whose last chunk is in the air."""
        self._admissions = 0
        self._ended = dict[str, tuple[int, int]]()
        """Completions and their tokens, by benchmark."""
        self.preemptions = 0
        """Times that a sequence lost its memory."""
        self.made, self.room = 0, 0
        """New tokens so far, and how many there could have been had every slot been busy."""

    @property
    def unfinished(self) -> bool:
        """Whether a request is not yet answered."""
        return self._left > 0

    @property
    def in_air(self) -> int:
        """Chunks that were planned and not collected."""
        return self._flights.in_air

    def plan(self) -> Plan:
        """What to prefill and to decode next."""
        self._let_go()
        self._grow()
        prefills = self._prefill()
        P, B = self._shape.pages, self._shape.slots
        copy_from_B, copy_to_B = np.zeros(B, np.int32), np.full(B, P, np.int32)
        starts = list[tuple[int, Request]]()
        for shard in self.shards:
            while shard.ready and shard.free_slots:
                sequence = shard.ready.popleft()
                source, own = shard.start(sequence)
                if own >= 0:
                    copy_from_B[sequence.slot], copy_to_B[sequence.slot] = source, own
                self._start(sequence)
                starts.append((sequence.slot, sequence.request))
        if self._shape.part:
            self._pack({slot for slot, _ in starts}, copy_from_B, copy_to_B)
        stops_B: Any = np.zeros(B, bool)
        stops_B[list(self._stops)] = True
        self._stops.clear()
        busy = any(one is not None for one in self._crew)
        if busy:
            self._flights.start(list(self._crew))
            np.minimum(self._upper_B + self._shape.chunk, self._limit_B, out=self._upper_B)
        return Plan(prefills, starts, stops_B, self._table_BN.copy(), copy_from_B, copy_to_B, busy)

    def collect(self, landed: Landed) -> list[tuple[Request, Completion]]:
        """Take what the oldest chunk in the air made; the requests that ended with it."""
        crew = self._flights.land(landed)
        self.made += int(landed.made_B.sum())
        self.room += int(landed.made_B.max()) * self._shape.slots
        ended = []
        over_B = ~landed.active_B
        for slot in sorted({*np.flatnonzero(over_B).tolist(), *self._watched}):
            sequence = crew[slot]
            if sequence is None or sequence.gone:
                continue
            ending = None
            if sequence.watched:
                new = landed.tokens_BC[slot, : landed.made_B[slot]].tolist()
                ending = sequence.look(new, self._stop_ids)
            if not (ending or over_B[slot]):
                continue
            made = self._flights.made(sequence)
            answer = cut(*made, ending) if ending else completion(*made, self._stop_ids)
            ended.append((sequence.request, answer))
            self._end(sequence, answer.token_count, bool(over_B[slot]))
        oldest = min([int(self._first_B.min()), *(one.first for one in self._leaving)])
        self._flights.forget(min(oldest, self._flights.next))
        return ended

    def _end(self, sequence: Sequence, token_count: int, on_device: bool) -> None:
        sequence.gone = True
        self._left -= 1
        count, total = self._ended.get(_benchmark(sequence.request), (0, 0))
        self._ended[_benchmark(sequence.request)] = count + 1, total + token_count
        if self._crew[sequence.slot] is sequence:
            self._vacate(sequence)
            if not on_device:
                self._stops.add(sequence.slot)
        else:
            self._leaving.remove(sequence)

    def _let_go(self) -> None:
        """Whose last token is in the air gives slot and pages to others now."""
        for slot in np.flatnonzero((self._upper_B >= self._limit_B) & (self._limit_B > 0)).tolist():
            if (sequence := self._crew[slot]) is not None:
                self._vacate(sequence)
                self._leaving.append(sequence)

    def _grow(self) -> None:
        """Pages for the next chunk of those in slots, the oldest first."""
        reach_B = self._known_B + np.minimum(self._upper_B + self._shape.chunk, self._limit_B)
        need_B = np.where(self._limit_B > 0, -(-reach_B // self._shape.page), 0)
        short = [self._crew[slot] for slot in np.flatnonzero(need_B > self._held_B).tolist()]
        for sequence in sorted((one for one in short if one is not None), key=lambda one: one.age):
            shard = self._shard(sequence.slot)
            count = int(need_B[sequence.slot] - self._held_B[sequence.slot])
            while not sequence.gone and shard.book.free < count:
                self._preempt(self._youngest(shard), shard)
            if not sequence.gone:
                sequence.pages += shard.book.take(count)
                self._note_pages(sequence)

    def _youngest(self, shard: Shard) -> Sequence:
        live = [one for slot in shard.slots if (one := self._crew[slot]) is not None]
        return max([*live, *shard.ready, *shard.prefilling], key=lambda one: one.age)

    def _preempt(self, sequence: Sequence, shard: Shard) -> None:
        """It loses its pages and waits again; what it made is made anew."""
        self.preemptions += 1
        sequence.gone = True
        least = sequence.least
        if sequence.slot >= 0:
            least = max(least, int(self._upper_B[sequence.slot]))
            self._stops.add(sequence.slot)
            self._vacate(sequence)
        else:
            shard.release(sequence)
        again = Sequence(sequence.request, sequence.arrival, least, sequence.told, keys=sequence.keys)
        heapq.heappush(self._queue, (*again.rank, again))

    def _vacate(self, sequence: Sequence) -> None:
        slot = sequence.slot
        self._shard(slot).release(sequence)
        self._crew[slot] = None
        self._limit_B[slot] = self._held_B[slot] = 0
        self._first_B[slot] = NEVER

    def _prefill(self) -> list[Prefill]:
        """Admit and prefill as long as there is room and time: those in slots are not to wait for long."""
        calls = list[Prefill]()
        tokens, most = 0, STALL * self._shape.slots * self._shape.chunk
        while self._admit() or any(shard.prefilling for shard in self.shards):
            if tokens >= most and any(one is not None for one in self._crew):
                break
            if not any(shard.prefilling for shard in self.shards):
                continue
            call = empty_prefill(self._shape)
            for shard in self.shards:
                tokens += shard.fill(call)
            calls.append(call)
        return calls

    def _admit(self) -> bool:
        """Admit whoever is next, one after the other, until that one has to wait; whether any was."""
        spare = [shard.book.free - shard.growth() for shard in self.shards]
        for number, pages in self._growth():
            spare[number] -= pages
        before = self._admissions
        while self._queue and self._admit_to(self._queue[0][-1], spare):
            heapq.heappop(self._queue)
        return self._admissions > before

    def _admit_to(self, sequence: Sequence, spare: list[int]) -> bool:
        sequence.expected = self._expect(sequence)
        open_shards = [number for number, shard in enumerate(self.shards) if shard.has_place]
        for number in sorted(open_shards, key=lambda n: (not self.shards[n].knows(sequence), -spare[n])):
            shard = self.shards[number]
            if shard.admit(sequence, spare[number]):
                sequence.age = self._admissions
                self._admissions += 1
                pages = sequence.pages_for(max(sequence.expected, self._shape.chunk), self._shape.page)
                spare[number] -= pages - sequence.found
                return True
        return False

    def _expect(self, sequence: Sequence) -> float:
        request = sequence.request
        count, total = self._ended.get(_benchmark(request), (0, 0))
        mean = total / count if count else UNKNOWN * request.max_new_tokens
        return max(request.expected_tokens or mean, sequence.least)

    def _growth(self) -> Iterable[tuple[int, int]]:
        """Pages that those in slots are expected to need still, by shard."""
        expected_B = np.maximum(self._expected_B, self._upper_B + self._shape.chunk)
        reach_B = self._known_B + np.minimum(expected_B, self._limit_B)
        more_B = np.where(self._limit_B > 0, np.maximum(-(-reach_B // self._shape.page) - self._held_B, 0), 0)
        return enumerate(more_B.reshape(self._shape.shards, -1).sum(axis=1).tolist())

    def _pack(self, starting: set[int], copy_from_B: np.ndarray, copy_to_B: np.ndarray) -> None:
        """Copy pages of those that go on to where fewer parts of the memory are read."""
        for shard in self.shards:
            places = [slot for slot in shard.slots if copy_to_B[slot] == self._shape.pages]
            for slot in shard.slots:
                if (sequence := self._crew[slot]) is None or slot in starting:
                    continue
                for nth, source, own in shard.pack(sequence, len(places)):
                    place = places.pop()
                    copy_from_B[place], copy_to_B[place] = source, own
                    self._table_BN[slot, nth] = own

    def _start(self, sequence: Sequence) -> None:
        slot = sequence.slot
        sequence.begin(slot, self._flights.next)
        self._first_B[slot] = sequence.first
        self._crew[slot] = sequence
        if sequence.watched:
            self._watched.add(slot)
        self._known_B[slot], self._upper_B[slot] = sequence.known, 0
        self._limit_B[slot] = sequence.request.max_new_tokens
        self._expected_B[slot] = int(sequence.expected)
        self._table_BN[slot] = 0
        self._held_B[slot] = 0
        self._note_pages(sequence)

    def _note_pages(self, sequence: Sequence) -> None:
        slot, held = sequence.slot, int(self._held_B[sequence.slot])
        self._table_BN[slot, held : len(sequence.pages)] = sequence.pages[held:]
        self._held_B[slot] = len(sequence.pages)

    def _shard(self, slot: int) -> Shard:
        return self.shards[slot * self._shape.shards // self._shape.slots]


def _benchmark(request: Request) -> str:
    return request.id.partition("/")[0]


def check(request: Request, context: int, vocab_size: int) -> None:
    """UsageError for a request that cannot be answered: nothing to do, too long, unknown tokens."""
    length, new = len(request.prompt), request.max_new_tokens
    if length == 0 or new < 1:
        raise UsageError(
            f"item {request.id}: a prompt of {length} tokens and max_new_tokens {new}; "
            "both must be at least 1"
        )
    if max(request.prompt) >= vocab_size:
        raise UsageError(
            f"item {request.id}: its prompt holds token {max(request.prompt)}, the model knows those "
            f"below {vocab_size}: the tokenizer is not the model's"
        )
    if length + new > context:
        raise UsageError(
            f"item {request.id}: its prompt of {length} tokens and max_new_tokens {new} do not fit "
            f"evaluation.context {context}: raise it to {length + new} or lower max_new_tokens"
        )
