"""A request on its way: what it waits for, which pages it has, and what the device made of it so far."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.pages import PrefixKeys
from jax_sft.generation.watch import Ending, Watch


@dataclass(eq=False)
class Sequence:
    """A request, from its admission until it has ended or its memory is taken from it."""

    request: Request
    arrival: int
    """Its place among the requests; it goes back to it when its memory is taken."""
    least: int = 0
    """New tokens that it had made when its memory was taken."""
    told: int = 0
    """New tokens that its listener knows."""
    expected: float = 0.0
    """New tokens that it is thought to make."""
    age: int = -1
    """Admissions before its own."""
    keys: PrefixKeys | None = None
    pages: list[int] = field(default_factory=list)
    found: int = 0
    """Pages, of the first ones, that others had prefilled."""
    chunks: deque[int] = field(default_factory=deque)
    """Chunks of its prompt that are still to be prefilled."""
    tail_from: int = -1
    """Page of another that is copied to this one's last page when it starts."""
    slot: int = -1
    first: int = -1
    """Flight in which it started."""
    watch: Watch | None = None
    tokens: list[int] = field(default_factory=list)
    """Of one that is watched: those so far."""
    gone: bool = False
    """Whether it has ended, or has lost its memory: what a flight still brings of it counts for nothing."""

    def begin(self, slot: int, flight: int) -> None:
        """It starts in a slot."""
        self.slot, self.first = slot, flight
        watch = Watch(self.request)
        self.watch = None if watch.idle else watch
        self.tokens = []

    @property
    def watched(self) -> bool:
        """Whether its tokens are looked at as they come."""
        return self.watch is not None or self.request.listen is not None

    def look(self, new: list[int], stop_ids: Collection[int]) -> Ending | None:
        """Take new tokens of one that is watched, and see whether they end it before the device does."""
        self.tokens += new
        if self.request.listen and len(self.tokens) > self.told:
            self.request.listen(self.tokens[self.told :])
            self.told = len(self.tokens)
        if self.watch is None or not self.tokens:
            return None
        return self.watch.look(self.tokens[:-1] if self.tokens[-1] in stop_ids else self.tokens)

    @property
    def known(self) -> int:
        """Positions that are prefilled; the prompt's last token is the first that is decoded."""
        return len(self.request.prompt) - 1

    @property
    def rank(self) -> tuple[float, int]:
        """Whoever is expected to take longest goes first, and then in the order asked."""
        request = self.request
        return -min(request.expected_tokens or request.max_new_tokens, request.max_new_tokens), self.arrival

    def pages_for(self, new_tokens: float, page: int) -> int:
        """Pages that hold its prompt and so many new tokens (at most its limit)."""
        return -(-(self.known + int(min(new_tokens, self.request.max_new_tokens))) // page)


class Landed(NamedTuple):
    """What one flight, a chunk of decoding, made: arrays on the host."""

    tokens_BC: np.ndarray
    logprobs_BC: np.ndarray
    made_B: np.ndarray
    """New tokens of slot b are tokens_BC[b, :made_B[b]]."""
    active_B: np.ndarray
    """Whether the slot goes on."""


class Flights:
    """The chunks that are under way or were, numbered, as far back as someone may still need them."""

    def __init__(self) -> None:
        """None yet."""
        self._crews: deque[list[Sequence | None]] = deque()
        self._landed: deque[Landed] = deque()
        self._first = 0
        """Number of the oldest that is kept."""

    @property
    def next(self) -> int:
        """Number of the next to start."""
        return self._first + len(self._landed) + len(self._crews)

    @property
    def in_air(self) -> int:
        """How many have started and not landed."""
        return len(self._crews)

    def start(self, crew: list[Sequence | None]) -> None:
        """Another starts, with these sequences in the slots."""
        self._crews.append(crew)

    def land(self, landed: Landed) -> list[Sequence | None]:
        """The oldest in the air lands; its crew."""
        self._landed.append(landed)
        return self._crews.popleft()

    def forget(self, before: int) -> None:
        """Nobody needs those of lower numbers."""
        while self._landed and self._first < before:
            self._landed.popleft()
            self._first += 1

    def made(self, sequence: Sequence) -> tuple[list[int], list[float]]:
        """All that a sequence has made, tokens and (if it wants them) log-probabilities."""
        slot, tokens, logprobs = sequence.slot, list[int](), list[float]()
        for place in range(sequence.first - self._first, len(self._landed)):
            flight = self._landed[place]
            count = flight.made_B[slot]
            tokens += flight.tokens_BC[slot, :count].tolist()
            if sequence.request.logprobs:
                logprobs += flight.logprobs_BC[slot, :count].tolist()
        return tokens, logprobs


def completion(tokens: list[int], logprobs: list[float], stop_ids: Collection[int]) -> Completion:
    """What a sequence is answered that ended on the device: with a stop token, or at its limit."""
    stopped = tokens[-1] in stop_ids
    kept = tuple(tokens[:-1] if stopped else tokens)
    return Completion(kept, len(tokens), "stop" if stopped else "length", tuple(logprobs))


def cut(tokens: list[int], logprobs: list[float], ending: Ending) -> Completion:
    """What a sequence is answered that the host ended; what came after that is dropped."""
    count = ending.token_count
    return Completion(tuple(tokens[:count]), count, ending.finish, tuple(logprobs[:count]), ending.text)
