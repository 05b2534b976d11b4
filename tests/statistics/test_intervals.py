"""Intervals against published values, a library, and the coverage they promise."""

import math

import numpy as np
import pytest
from scipy import stats

from jax_sft.statistics.intervals import (
    Estimate,
    change_interval,
    estimate,
    mean_interval,
    mean_of,
    paired_interval,
    wilson,
)


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
    # Student's quantile, because how alike samples are has to be estimated.
    assert often.low < once.low < once.high < often.high
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.03)


def test_independent_samples_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = {str(i): rng.integers(0, 2, 16).astype(float).tolist() for i in range(60)}
    found = estimate(values)
    low, high = wilson(found.mean, 60 * 16)
    assert found.high - found.low == pytest.approx(high - low, rel=0.3)


def test_no_success_at_all_still_has_a_width() -> None:
    found = estimate({str(i): [0.0, 0.0] for i in range(20)})
    assert found.low == 0
    assert found.high == pytest.approx(wilson(0, 20, float(stats.t.ppf(0.975, 19)))[1])


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


def test_values_beyond_one_use_students_interval() -> None:
    values = [2.0, 4.0, 9.0, 11.0, 7.0, 6.0]  # symmetric around 6.5
    found = estimate({str(i): [value] for i, value in enumerate(values)})
    mean, half = float(np.mean(values)), stats.sem(values) * stats.t.ppf(0.975, 5)
    assert (found.mean, found.low, found.high) == pytest.approx((mean, mean - half, mean + half), rel=1e-5)


def test_the_interval_of_a_skewed_mean_covers_better_than_students() -> None:
    """Exponential numbers, 20 of them: Student's interval holds in 91 of 100."""
    rng, hall, plain = np.random.default_rng(5), 0, 0
    for _ in range(600):
        values = rng.exponential(size=20)
        found = mean_of(values)
        hall += found.low <= 1 <= found.high
        plain += abs(values.mean() - 1) <= stats.sem(values) * stats.t.ppf(0.975, 19)
    assert hall > plain
    assert 0.93 <= hall / 600 <= 0.97


def test_the_transform_of_a_skewed_mean_is_halls() -> None:
    """It inverts T + a T^2 + a^2 T^3 / 3 + a / 2 with a = skewness / (3 sqrt(n)) (Hall 1992)."""
    values = np.random.default_rng(6).exponential(size=40)
    found = mean_of(values)
    slope = ((values - values.mean()) ** 3).mean() / values.std(ddof=1) ** 3 / (3 * math.sqrt(40))
    for bound, quantile in ((found.low, 0.975), (found.high, 0.025)):
        t = (values.mean() - bound) / stats.sem(values)
        transformed = t + slope * t**2 + slope**2 * t**3 / 3 + slope / 2
        assert transformed == pytest.approx(stats.t.ppf(quantile, 39), rel=1e-6)


def test_one_number_without_bounds_has_no_width() -> None:
    assert estimate({"a": [7.0]}) == Estimate(7.0, 7.0, 7.0, 1)


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


def test_fractions_are_worth_more_than_so_many_yes_or_no() -> None:
    """Grades between 0.4 and 0.6 say more of their mean than as many flips of a coin."""
    grades = {str(i): [0.4 + 0.2 * (i % 5) / 4] for i in range(50)}
    found = estimate(grades)
    half = stats.sem([of[0] for of in grades.values()]) * stats.t.ppf(0.975, 49)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert estimate(grades, dict.fromkeys(grades, 1.0)) == found


@pytest.mark.parametrize(("score", "alike"), [(0.02, 0.5), (0.02, 0.0), (0.97, 0.5), (0.97, 0.8), (0.5, 0.2)])
def test_intervals_of_eight_samples_cover_at_thirty_items(score: float, alike: float) -> None:
    """Where few items differ from the rest: without a prior on the effective size 85% hold (0.97, 0.5)."""
    rng, held, worlds = np.random.default_rng(7), 0, 500
    strength = 1 / alike - 1 if alike else 1e9
    for _ in range(worlds):
        rates_I = rng.beta(score * strength, (1 - score) * strength, 30)
        draws_IS = (rng.random((30, 8)) < rates_I[:, None]).astype(float)
        found = estimate({str(i): row.tolist() for i, row in enumerate(draws_IS)})
        held += found.low <= score <= found.high
    assert 0.93 <= held / worlds <= 0.99


def test_mean_interval_covers_the_true_mean_near_the_edge() -> None:
    """Mean of three shares, one of them near 1, from Wilson intervals: about 95% of samples cover it."""
    rng = np.random.default_rng(3)
    shares, n, covered = np.array([0.98, 0.5, 0.9]), 50, 0
    for _ in range(1000):
        means = rng.binomial(n, shares) / n
        bounds = [wilson(float(mean), n) for mean in means]
        _, low, high = mean_interval(means.tolist(), [b[0] for b in bounds], [b[1] for b in bounds])
        covered += low <= shares.mean() <= high
    assert 0.92 <= covered / 1000 <= 0.985


def test_mean_interval_of_one_is_its_own() -> None:
    assert mean_interval([0.5], [0.3], [0.6]) == pytest.approx((0.5, 0.3, 0.6))


def test_change_interval_is_newcombes_interval() -> None:
    """Newcombe (1998), method 10: 56/70 against 48/80 gives 0.0524 to 0.3339."""
    before, after = 48 / 80, 56 / 70
    change, low, high = change_interval((before, *wilson(before, 80)), (after, *wilson(after, 70)))
    assert change == pytest.approx(0.2)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_change_from_all_to_none_has_an_interval() -> None:
    """Under a difference d the rest of the pairs rose: z^2 = 30 (1 + d) / (1 - d)."""
    low, high = paired_interval(0.0, 1.0, 30)
    square = float(stats.norm.ppf(0.975)) ** 2
    assert (low, high) == pytest.approx((-1.0, -(30 - square) / (30 + square)))


def test_paired_interval_is_tangos() -> None:
    """Fagerland, Lydersen and Laake (2014): 1 rose and 7 fell of 21, -0.517 to -0.026."""
    assert paired_interval(1 / 21, 7 / 21, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_paired_interval_turns_round_with_the_pairs() -> None:
    low, high = paired_interval(0.3, 0.1, 50)
    assert paired_interval(0.1, 0.3, 50) == pytest.approx((-high, -low))
