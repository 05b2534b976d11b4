"""Packing: laying the rows of one batch into as few fixed-length packed rows as best-fit finds.

Rows are never split and never leave their batch, so a packed step sees exactly the examples of the
unpacked one. All functions work on many batches at once (axis S), because a run plans every step before
it compiles its programs. The same lengths always give the same packing.
"""

from collections.abc import Sequence

import numpy as np

_CELLS_AT_ONCE = 1 << 22
_ROOM = 0.01
"""Share of a packed row that is left free where rows allow it: room for `balance` to exchange rows."""


def best_fit(lengths_SB: np.ndarray, row_length: int) -> np.ndarray:
    """Best-fit-decreasing packing of each of S batches; the packed row of every row, int32 [S, B].

    Packed rows are numbered from 0 in the order they are opened. Each length must lie in 1..row_length.
    """
    steps, rows = lengths_SB.shape
    if ((lengths_SB < 1) | (lengths_SB > row_length)).any():
        raise ValueError(f"lengths must lie in 1..{row_length}")
    chunk = max(1, _CELLS_AT_ONCE // max(rows, 1))
    pieces = [_best_fit_chunk(lengths_SB[at : at + chunk], row_length) for at in range(0, steps, chunk)]
    return np.concatenate(pieces) if pieces else np.zeros((0, rows), np.int32)


def _best_fit_chunk(lengths_SB: np.ndarray, row_length: int) -> np.ndarray:
    steps, rows = lengths_SB.shape
    longest_first_SB = np.argsort(-lengths_SB, axis=1, kind="stable")
    sorted_SB = np.take_along_axis(lengths_SB, longest_first_SB, axis=1).astype(np.int32)
    # One empty packed row per row is always enough; an opened one has less room than an untouched one,
    # so taking the tightest fit opens a new one only when it must, and in order.
    free_SP = np.full((steps, rows), row_length, np.int32)
    chosen_SB = np.empty((steps, rows), np.int32)
    each_step, opened = np.arange(steps), 0
    for index in range(rows):
        left_SP = free_SP[:, : opened + 1] - sorted_SB[:, index : index + 1]
        left_SP[left_SP < 0] = row_length + 1
        chosen_S = left_SP.argmin(axis=1)
        free_SP[each_step, chosen_S] -= sorted_SB[:, index]
        chosen_SB[:, index] = chosen_S
        opened = max(opened, int(chosen_S.max()) + 1)
    packed_row_SB = np.empty_like(chosen_SB)
    np.put_along_axis(packed_row_SB, longest_first_SB, chosen_SB, axis=1)
    return packed_row_SB


def capacity(longest: int, row_length: int) -> int:
    """Tokens to put in a packed row: a little less than its length, but enough for the longest row."""
    return max(min(longest, row_length), int(row_length * (1 - _ROOM)))


def positions(
    packed_rows_S: np.ndarray, row_length: int | np.ndarray, rows_per_micro_batch: int
) -> np.ndarray:
    """Token positions computed, int64 [S]: packed rows that only fill the last micro-batch count too."""
    micro_batches_S = -(-packed_rows_S.astype(np.int64) // rows_per_micro_batch)
    return micro_batches_S * rows_per_micro_batch * row_length


def pack(
    lengths_SB: np.ndarray, row_lengths: Sequence[int], rows_per_micro_batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each step the row length that computes fewest positions, int64 [S], and its packing, int32 [S, B].

    Rows are packed with a little room left and, where that computes fewer positions, without. A row length
    too short for a step's rows is passed over there. ValueError when none is long enough.
    """
    longest_S = lengths_SB.max(axis=1)
    if (longest_S > max(row_lengths)).any():
        raise ValueError(f"a row of {longest_S.max()} tokens fits none of the row lengths {row_lengths}")
    fewest_S = np.full(len(lengths_SB), np.iinfo(np.int64).max)
    chosen_S = np.zeros(len(lengths_SB), np.int64)
    packed_row_SB = np.zeros(lengths_SB.shape, np.int32)
    for row_length in sorted(row_lengths):
        fits_S = np.flatnonzero(longest_S <= row_length)
        if not len(fits_S):
            continue
        longest = int(longest_S[fits_S].max())
        for limit in (capacity(longest, row_length), row_length):
            tried_SB = best_fit(lengths_SB[fits_S], limit)
            needed_S = positions(tried_SB.max(axis=1) + 1, row_length, rows_per_micro_batch)
            better_S = needed_S < fewest_S[fits_S]
            improved_S = fits_S[better_S]
            fewest_S[improved_S], chosen_S[improved_S] = needed_S[better_S], row_length
            packed_row_SB[improved_S] = tried_SB[better_S]
    return chosen_S, packed_row_SB


def fit_row_lengths(
    lengths_SB: np.ndarray, rows_per_micro_batch: int, count: int, candidates: Sequence[int]
) -> tuple[int, ...]:
    """At most `count` of the candidates that together compute the fewest positions, ascending.

    Lengths are added one by one, each time exchanging those chosen for better ones while that helps: not
    always the optimum, but close to it. ValueError when no candidate holds the longest row.
    """
    longest = int(lengths_SB.max())
    usable = [length for length in candidates if length >= longest]
    if not usable:
        raise ValueError(f"none of the candidate row lengths holds a row of {longest} tokens")
    packed = [
        np.minimum(
            *(best_fit(lengths_SB, limit).max(axis=1) + 1 for limit in (capacity(longest, length), length))
        )
        for length in usable
    ]
    needed_CS = np.stack(
        [
            positions(rows_S, length, rows_per_micro_batch)
            for rows_S, length in zip(packed, usable, strict=True)
        ]
    )
    chosen: list[int] = []
    for _ in range(min(count, len(usable))):
        chosen.append(_best_addition(needed_CS, chosen))
        total = None
        while total != (total := int(needed_CS[chosen].min(axis=0).sum())):
            for _ in range(len(chosen)):
                chosen = [*chosen[1:], _best_addition(needed_CS, chosen[1:])]
    return tuple(sorted({usable[index] for index in chosen}))


def _best_addition(needed_CS: np.ndarray, chosen: list[int]) -> int:
    """The candidate that, added to those chosen, leaves the fewest positions in total."""
    others_S = (
        needed_CS[chosen].min(axis=0) if chosen else np.full(needed_CS.shape[1], np.iinfo(np.int64).max)
    )
    return int(np.minimum(needed_CS, others_S).sum(axis=1).argmin())
