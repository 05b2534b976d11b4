"""Packing: nothing overflows, few packed rows, the same answer whatever is packed beside it."""

import itertools
import math

import numpy as np
import pytest

from jax_sft.data.packing import balance, best_fit


def reference_best_fit(lengths: list[int], row_length: int) -> list[int]:
    """Best-fit decreasing in plain Python; the packed row of each length."""
    free: list[int] = []
    chosen = [0] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = [(room, row) for row, room in enumerate(free) if room >= lengths[index]]
        if not fits:
            free.append(row_length)
            fits = [(row_length, len(free) - 1)]
        chosen[index] = min(fits)[1]
        free[chosen[index]] -= lengths[index]
    return chosen


def fewest_packed_rows(lengths: list[int], row_length: int) -> int:
    """The optimum by trying every assignment."""
    for count in range(math.ceil(sum(lengths) / row_length), len(lengths) + 1):
        for bins in itertools.product(range(count), repeat=len(lengths)):
            if np.bincount(bins, weights=lengths).max() <= row_length:
                return count
    raise AssertionError


def test_is_best_fit_decreasing() -> None:
    rng = np.random.default_rng(0)
    lengths_SB = np.minimum(rng.lognormal(4, 1, (40, 24)).astype(int) + 1, 200)
    packed_row_SB = best_fit(lengths_SB, 200)
    for lengths_B, packed_row_B in zip(lengths_SB, packed_row_SB, strict=True):
        assert packed_row_B.tolist() == reference_best_fit(lengths_B.tolist(), 200)


def test_close_to_the_optimum() -> None:
    rng = np.random.default_rng(1)
    lengths_SB = rng.integers(1, 17, (30, 6))
    counts_S = best_fit(lengths_SB, 16).max(axis=1) + 1
    best_S = np.array([fewest_packed_rows(lengths_B.tolist(), 16) for lengths_B in lengths_SB])
    # The proven bound for best-fit decreasing is 11/9 of the optimum plus 4; here it is at most one off.
    assert (counts_S >= best_S).all()
    assert (counts_S - best_S).max() <= 1
    assert (counts_S == best_S).mean() > 0.9


@pytest.mark.parametrize("places", [1, 2, 3, 5, 8])
def test_balance_only_renumbers(places: int) -> None:
    rng = np.random.default_rng(2)
    lengths_SB = np.minimum(rng.lognormal(4, 1, (20, 30)).astype(int) + 1, 256)
    before_SB = best_fit(lengths_SB, 256)
    after_SB = balance(lengths_SB, before_SB, places)
    for before_B, after_B in zip(before_SB, after_SB, strict=True):
        pairs = set(zip(before_B.tolist(), after_B.tolist(), strict=True))
        count = before_B.max() + 1
        assert len(pairs) == count == len({after for _, after in pairs})
        assert max(after for _, after in pairs) // places == (count - 1) // places


def test_balance_evens_out_what_devices_hold() -> None:
    rng = np.random.default_rng(3)
    lengths_SB = np.minimum(rng.lognormal(5, 1, (10, 200)).astype(int) + 1, 1024)
    packed_row_SB = best_fit(lengths_SB, 1024)

    def imbalance(numbered_SB: np.ndarray) -> float:
        """Time lost waiting for the busiest of 4 devices, 4 packed rows each, as a share of the work."""
        worst, mean = 0.0, 0.0
        for lengths_B, numbers_B in zip(lengths_SB, numbered_SB, strict=True):
            cost_P = np.bincount(numbers_B, weights=lengths_B.astype(float) ** 2, minlength=16 * 13)
            cost_MD = cost_P[: 16 * 13].reshape(13, 4, 4).sum(axis=2)
            worst, mean = worst + cost_MD.max(axis=1).sum(), mean + cost_MD.mean(axis=1).sum()
        return worst / mean - 1

    assert imbalance(balance(lengths_SB, packed_row_SB, 16)) < 0.5 * imbalance(packed_row_SB)


def test_many_batches_at_once_equal_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    lengths_SB = rng.integers(1, 65, (17, 12))
    together_SB = best_fit(lengths_SB, 64)
    monkeypatch.setattr("jax_sft.data.packing._CELLS_AT_ONCE", 12)
    assert np.array_equal(best_fit(lengths_SB, 64), together_SB)


def test_lengths_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"1\.\.8"):
        best_fit(np.array([[9]]), 8)
    with pytest.raises(ValueError, match=r"1\.\.8"):
        best_fit(np.array([[0]]), 8)
