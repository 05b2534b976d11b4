"""Packing: laying the rows of one batch into as few fixed-length packed rows as best-fit finds.

Rows are never split and never leave their batch, so a packed step sees exactly the examples of the
unpacked one. All functions work on many batches at once (axis S), because a run plans every step before
it compiles its program. The same lengths always give the same packing.
"""

import numpy as np

_CELLS_AT_ONCE = 1 << 22


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


def balance(lengths_SB: np.ndarray, packed_row_SB: np.ndarray, rows_per_micro_batch: int) -> np.ndarray:
    """Renumber packed rows so that devices working side by side get similar work; int32 [S, B].

    Packed rows are ordered by attention cost (the sum of their squared lengths), costliest first, so the
    packed rows of one micro-batch resemble each other; inside a micro-batch they are dealt so that every
    half, quarter, eighth … of its places, which is what a device holds, sums to nearly the same cost.
    Packed row p then sits in micro-batch p // rows_per_micro_batch at place p % rows_per_micro_batch.
    """
    steps, rows = lengths_SB.shape
    cost_SP = np.zeros((steps, rows), np.int64)
    np.add.at(cost_SP, (np.arange(steps)[:, None], packed_row_SB), lengths_SB.astype(np.int64) ** 2)
    costliest_first_SP = np.argsort(-cost_SP, axis=1, kind="stable")
    ranks_P = np.arange(rows, dtype=np.int32)
    place_R = np.empty(rows_per_micro_batch, np.int32)
    place_R[_dealt(list(range(rows_per_micro_batch)))] = np.arange(rows_per_micro_batch)
    number_P = ranks_P - ranks_P % rows_per_micro_batch + place_R[ranks_P % rows_per_micro_batch]
    number_SP = np.empty((steps, rows), np.int32)
    np.put_along_axis(number_SP, costliest_first_SP, np.broadcast_to(number_P, (steps, rows)), axis=1)
    return np.take_along_axis(number_SP, packed_row_SB, axis=1)


def _dealt(items: list[int]) -> list[int]:
    """Sorted items in an order whose contiguous halves, quarters, … have nearly equal sums."""
    if len(items) <= 2:
        return items
    first = [item for index, item in enumerate(items) if index % 4 in (0, 3)]
    second = [item for index, item in enumerate(items) if index % 4 in (1, 2)]
    return _dealt(first) + _dealt(second)
