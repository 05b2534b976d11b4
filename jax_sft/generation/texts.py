"""Given texts in packed rows of a few shapes: which share a row, and which rows a call. Host only, no jax.

A row is as short as its texts allow: `SHORTEST` tokens, doubled as often as the longest of them needs. A call
takes as many rows as make its tokens, so that every length has one compiled program for a whole sweep.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jax_sft.data.packing import best_fit

SHORTEST = 2048
"""Tokens of the shortest rows, where a call has that many."""
AT_ONCE = 4096
"""Texts among which those that share rows are looked for."""


class Text(NamedTuple):
    """Something to read, arrays of one length."""

    tokens: np.ndarray
    positions: np.ndarray
    branches: np.ndarray
    """0 for what all of the text's branches see; 1, 2, … for what is seen by that branch alone."""
    targets: np.ndarray
    """The token that each should predict; -1 where nothing is asked."""

    @staticmethod
    def plain(tokens: Sequence[int]) -> "Text":
        """A text without branches, of which no prediction is asked."""
        count = len(tokens)
        zeros = np.zeros(count, np.int32)
        return Text(np.asarray(tokens, np.int32), np.arange(count, dtype=np.int32), zeros, zeros - 1)

    @staticmethod
    def followed(prompt: Sequence[int], continuation: Sequence[int]) -> "Text":
        """A prompt and its continuation, of whose last token only the prediction is asked."""
        text = Text.plain((*prompt, *continuation[:-1]))
        text.targets[len(prompt) - 1 :] = continuation
        return text


class Place(NamedTuple):
    """Where a text lies in its call."""

    text: int
    """Its number among all texts."""
    row: int
    start: int


@dataclass(frozen=True)
class Call:
    """Texts that are read at once, in R rows of T tokens."""

    shape: tuple[int, int]
    places: tuple[Place, ...]

    def fill(self, texts: Sequence[Text]) -> tuple[Text, np.ndarray]:
        """The texts laid into arrays [R, T], and the segments: texts of a row from 1, padding 0."""
        laid: Any = Text(*(np.full(self.shape, value, np.int32) for value in (0, 0, 0, -1)))
        segments_RT = np.zeros(self.shape, np.int32)
        in_row: dict[int, int] = {}
        for number, row, start in self.places:
            end = start + len(texts[number].tokens)
            in_row[row] = in_row.get(row, 0) + 1
            segments_RT[row, start:end] = in_row[row]
            for x_RT, values in zip(laid, texts[number], strict=True):
                x_RT[row, start:end] = values
        return laid, segments_RT


def plan_calls(lengths: Sequence[int], tokens: int, ways: int) -> Iterator[Call]:
    """The calls that read texts of these lengths, each text once: long rows first.

    `tokens` are those of a call on each of the `ways` devices (or groups of them) that share its rows; a
    text that is longer makes rows of its own length there.
    """
    lengths_E = np.asarray(lengths, np.int64)
    shortest = min(SHORTEST, tokens)
    doublings_E = np.ceil(np.log2(np.maximum(lengths_E, shortest) / shortest)).astype(int)
    for doublings in sorted(set(doublings_E.tolist()), reverse=True):
        row_length = shortest << doublings
        shape = max(1, tokens // row_length) * ways, row_length
        texts = np.flatnonzero(doublings_E == doublings)
        for first in range(0, len(texts), AT_ONCE):
            yield from _calls(texts[first : first + AT_ONCE], lengths_E, shape)


def _calls(texts: np.ndarray, lengths_E: np.ndarray, shape: tuple[int, int]) -> Iterator[Call]:
    rows, row_length = shape
    row_of_text = best_fit(lengths_E[texts][None], row_length)[0]
    calls: dict[int, list[Place]] = {}
    filled: dict[int, int] = {}
    for text, row in zip(texts.tolist(), row_of_text.tolist(), strict=True):
        start = filled.get(row, 0)
        calls.setdefault(row // rows, []).append(Place(text, row % rows, start))
        filled[row] = start + int(lengths_E[text])
    for number in sorted(calls):
        yield Call(shape, tuple(calls[number]))
