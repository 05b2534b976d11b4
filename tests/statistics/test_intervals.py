"""Intervals against published values, a library, and the coverage they promise."""

import math

import numpy as np
import pytest
from scipy import stats

from jax_sft.statistics.intervals import estimate, wilson


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (1, 10), (5, 20), (81, 263), (20, 20)])
def test_wilson_equals_scipy(successes: int, count: int) -> None:
    expected = stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson(successes / count, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_one_sample_an_item_is_wilsons_interval() -> None:
    values = {str(i): [float(i < 30)] for i in range(100)}
    found = estimate(values)
    assert (found.mean, found.n) == (pytest.approx(0.3), 100)
    # The variance of the item means divides by n - 1, which the cap at n undoes.
    assert (found.low, found.high) == pytest.approx(wilson(0.3, 100))


def test_equal_samples_of_an_item_add_nothing() -> None:
    once = estimate({str(i): [float(i % 3 == 0)] for i in range(60)})
    often = estimate({str(i): [float(i % 3 == 0)] * 8 for i in range(60)})
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_independent_samples_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = {str(i): rng.integers(0, 2, 16).astype(float).tolist() for i in range(60)}
    found = estimate(values)
    low, high = wilson(found.mean, 60 * 16)
    assert found.high - found.low == pytest.approx(high - low, rel=0.3)


def test_no_success_at_all_still_has_a_width() -> None:
    found = estimate({str(i): [0.0, 0.0] for i in range(20)})
    assert found.low == 0
    assert found.high == pytest.approx(wilson(0, 20)[1])


def test_the_interval_covers_the_truth_when_items_differ_in_difficulty() -> None:
    """200 worlds: difficulty by item from a beta distribution, 4 samples each; about 95% must cover."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        rates_E = rng.beta(0.5, 1.0, 80)
        draws_ES = (rng.random((80, 4)) < rates_E[:, None]).astype(float)
        found = estimate({str(i): draws_ES[i].tolist() for i in range(80)})
        covered += found.low <= 1 / 3 <= found.high
    assert 0.92 <= covered / 400 <= 0.985


def test_values_beyond_one_use_the_normal_interval() -> None:
    values = [2.0, 4.0, 9.0, 1.0]
    found = estimate({str(i): [value] for i, value in enumerate(values)})
    half = 1.959964 * np.std(values, ddof=1) / math.sqrt(4)
    assert (found.mean, found.low, found.high) == pytest.approx((4.0, 4.0 - half, 4.0 + half), rel=1e-5)


def test_no_items() -> None:
    found = estimate({})
    assert (found.mean, found.low, found.high, found.n) == (0.0, 0.0, 1.0, 0)


def test_an_item_of_weight_three_counts_like_three_that_are_alike() -> None:
    values = {str(i): [i % 5 / 4] for i in range(50)}
    weights = {item: 1.0 + 2 * (int(item) % 2) for item in values}
    found = estimate(values, weights)
    spread = [value[0] for item, value in values.items() for _ in range(int(weights[item]))]
    assert found.mean == pytest.approx(np.mean(spread))
    assert found.n == 50
    # Not narrower than all of them independent, not wider than Kish's effective number.
    inner, outer = wilson(found.mean, 100), wilson(found.mean, 100**2 / sum(w**2 for w in weights.values()))
    assert outer[0] <= found.low <= inner[0] <= inner[1] <= found.high <= outer[1]


def test_weighted_intervals_cover_the_truth() -> None:
    """400 worlds of 100 prompts with 1 to 3 instructions each, of which 0.8 are followed."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        counts_E = rng.integers(1, 4, 100)
        shares_E = rng.binomial(counts_E, rng.beta(4.0, 1.0, 100)) / counts_E
        found = estimate(
            {str(i): [share] for i, share in enumerate(shares_E)},
            {str(i): float(count) for i, count in enumerate(counts_E)},
        )
        covered += found.low <= 0.8 <= found.high
    assert 0.925 <= covered / 400 <= 0.985
