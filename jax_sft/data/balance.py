"""Balance: similar attention work for packed rows that are computed side by side.

Work is attention cost, the sum of the squared lengths of the rows in a packed row. Devices wait for each
other in every micro-batch, so what counts is how the packed rows of one micro-batch compare.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

_HELD = 6
"""So many rows of a packed row are considered for an exchange at once."""
_SUBSETS_KN = np.array(
    [
        [place in chosen for place in range(_HELD)]
        for size in (0, 1, 2)
        for chosen in combinations(range(_HELD), size)
    ],
    np.int64,
)
_ROUNDS = 64
"""Most packed rows that one packed row meets in a pass."""
_PASSES = 3
_WORTH_EXCHANGING = 2048
"""In shorter packed rows attention is too little of the work to spend the loader's time on."""


def balance(
    lengths_B: np.ndarray, packed_row_B: np.ndarray, row_length: int, rows_per_micro_batch: int
) -> np.ndarray:
    """Another packing of one batch into no more micro-batches, with similar work side by side; int32 [B].

    Pairs of packed rows exchange rows until their costs are close, first over the whole batch, then, once
    packed rows are ordered by cost (costliest first) and cut into micro-batches, inside each micro-batch:
    devices wait for each other there.
    Last, the packed rows of a micro-batch are dealt so that every half, quarter, eighth … of its places,
    which is what a device holds, sums to nearly the same cost. Packed row p sits in micro-batch
    p // rows_per_micro_batch at place p % rows_per_micro_batch.
    """
    size = rows_per_micro_batch
    micro_batches = -(-(int(packed_row_B.max()) + 1) // size)
    packed_row_B = packed_row_B.astype(np.int64)
    if size > 1 and row_length >= _WORTH_EXCHANGING:
        packed_row_B = _exchange(lengths_B, packed_row_B, row_length, _meetings(micro_batches * size, 1))
        packed_row_B = _costliest_first(lengths_B, packed_row_B, micro_batches * size, 1)
        for turn in range(_PASSES):
            meetings = _meetings(size, micro_batches)
            packed_row_B = _exchange(lengths_B, packed_row_B, row_length, meetings, turn)
    packed_row_B = _costliest_first(lengths_B, packed_row_B, size, micro_batches)
    place_R = np.empty(size, np.int64)
    place_R[_dealt(list(range(size)))] = np.arange(size)
    return (packed_row_B - packed_row_B % size + place_R[packed_row_B % size]).astype(np.int32)


def attention_cost(lengths_B: np.ndarray, packed_row_B: np.ndarray, packed_rows: int) -> np.ndarray:
    """Sum of the squared lengths in each packed row, float64 [packed_rows]."""
    return np.bincount(packed_row_B, weights=lengths_B.astype(np.float64) ** 2, minlength=packed_rows)


def _costliest_first(lengths_B: np.ndarray, packed_row_B: np.ndarray, size: int, groups: int) -> np.ndarray:
    """Packed rows renumbered by falling cost within each of `groups` groups of `size`."""
    cost_GR = attention_cost(lengths_B, packed_row_B, groups * size).reshape(groups, size)
    order_GR = np.argsort(-cost_GR, axis=1, kind="stable")
    number_GR = np.empty_like(order_GR)
    np.put_along_axis(number_GR, order_GR, np.arange(size)[None], axis=1)
    return (number_GR + np.arange(groups)[:, None] * size).reshape(-1)[packed_row_B]


def _meetings(size: int, groups: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rounds of disjoint pairs in which every two packed rows of a group of `size` meet, as in a tournament.

    A large group stops after `_ROUNDS` rounds: by then another meeting gains little.
    """
    even = size + size % 2
    circle = np.arange(1, even)
    for turn in range(min(even - 1, _ROUNDS)):
        seats = np.concatenate([[0], np.roll(circle, turn)])
        one, other = seats[: even // 2], seats[: even // 2 - 1 : -1]
        playing = (one < size) & (other < size)
        first_G = np.arange(groups)[:, None] * size
        yield (one[playing] + first_G).reshape(-1), (other[playing] + first_G).reshape(-1)


def _exchange(
    lengths_B: np.ndarray,
    packed_row_B: np.ndarray,
    row_length: int,
    meetings: Iterator[tuple[np.ndarray, np.ndarray]],
    turn: int = 0,
) -> np.ndarray:
    """Packed rows after each pair that meets has swapped up to two rows each where that evens their costs."""
    packed_row_B = packed_row_B.copy()
    lengths_B = lengths_B.astype(np.int64)
    # Row number B stands for "no row": no tokens, no cost.
    padded_B = np.append(lengths_B, 0)
    for one_Q, other_Q in meetings:
        packed_rows = int(max(one_Q.max(), other_Q.max(), packed_row_B.max())) + 1
        held_PN = _held(lengths_B, packed_row_B, packed_rows, turn)
        tokens_PK = padded_B[held_PN] @ _SUBSETS_KN.T
        cost_PK = padded_B[held_PN] ** 2 @ _SUBSETS_KN.T
        fill_P = np.bincount(packed_row_B, weights=lengths_B, minlength=packed_rows).astype(np.int64)
        cost_P = attention_cost(lengths_B, packed_row_B, packed_rows).astype(np.int64)
        moved_QKK = tokens_PK[one_Q][:, :, None] - tokens_PK[other_Q][:, None, :]
        gap_Q = cost_P[one_Q] - cost_P[other_Q]
        gap_QKK = np.abs(
            gap_Q[:, None, None] - 2 * (cost_PK[one_Q][:, :, None] - cost_PK[other_Q][:, None, :])
        )
        fits_QKK = (moved_QKK >= (fill_P[one_Q] - row_length)[:, None, None]) & (
            moved_QKK <= (row_length - fill_P[other_Q])[:, None, None]
        )
        gap_QKK[~fits_QKK] = np.iinfo(np.int64).max
        best_Q = gap_QKK.reshape(len(one_Q), -1).argmin(axis=1)
        give_Q, take_Q = np.divmod(best_Q, len(_SUBSETS_KN))
        better_Q = gap_QKK.reshape(len(one_Q), -1)[np.arange(len(one_Q)), best_Q] < np.abs(gap_Q)
        for mine_Q, subset_Q, to_Q in ((one_Q, give_Q, other_Q), (other_Q, take_Q, one_Q)):
            leaves_QN = (_SUBSETS_KN[subset_Q] > 0) & better_Q[:, None] & (held_PN[mine_Q] < len(lengths_B))
            q, place = np.nonzero(leaves_QN)
            packed_row_B[held_PN[mine_Q[q], place]] = to_Q[q]
    return packed_row_B


def _held(lengths_B: np.ndarray, packed_row_B: np.ndarray, packed_rows: int, turn: int) -> np.ndarray:
    """Rows of every packed row, [packed_rows, _HELD]: its longest on turn 0, later ones shorter ones.

    The number of all rows stands where a packed row holds fewer.
    """
    order_B = np.lexsort((-lengths_B, packed_row_B))
    sorted_B = packed_row_B[order_B]
    first_B = np.searchsorted(sorted_B, sorted_B)
    count_B = np.searchsorted(sorted_B, sorted_B, side="right") - first_B
    rank_B = (np.arange(len(order_B)) - first_B - turn * (_HELD - 2)) % count_B
    kept_B = rank_B < _HELD
    held_PN = np.full((packed_rows, _HELD), len(lengths_B))
    held_PN[sorted_B[kept_B], rank_B[kept_B]] = order_B[kept_B]
    return held_PN


def imbalance(
    lengths_B: np.ndarray, packed_row_B: np.ndarray, rows_per_micro_batch: int
) -> tuple[float, float]:
    """Attention cost of one batch as (waited for, done): of the costliest packed row and the mean one.

    Both are summed over micro-batches; waited for / done - 1 is the time lost where every device holds one
    packed row of a micro-batch, and more than is lost where it holds several.
    """
    micro_batches = int(packed_row_B.max()) // rows_per_micro_batch + 1
    cost_P = attention_cost(lengths_B, packed_row_B, micro_batches * rows_per_micro_batch)
    cost_MR = cost_P.reshape(micro_batches, rows_per_micro_batch)
    return float(cost_MR.max(axis=1).sum()), float(cost_MR.mean(axis=1).sum())


def _dealt(items: list[int]) -> list[int]:
    """Sorted items in an order whose contiguous halves, quarters, … have nearly equal sums."""
    if len(items) <= 2:
        return items
    first = [item for index, item in enumerate(items) if index % 4 in (0, 3)]
    second = [item for index, item in enumerate(items) if index % 4 in (1, 2)]
    return _dealt(first) + _dealt(second)
