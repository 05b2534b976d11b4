"""Paired changes: coverage near the edges, errors held, and tests against libraries."""

import math

import numpy as np
import pytest
from scipy import stats

from jax_sft.statistics.changes import (
    ALPHA,
    mean_change,
    paired_change,
    planned_deviation,
    unpaired_change,
    visible_change,
)
from jax_sft.statistics.intervals import wilson
from jax_sft.statistics.signs import flipped_signs, holm


@pytest.mark.parametrize(("rose", "fell"), [(1, 7), (0, 5), (12, 12), (30, 9)])
def test_single_yes_or_no_samples_give_mcnemars_exact_test(rose: int, fell: int) -> None:
    difference_I = np.array([1.0] * rose + [-1.0] * fell + [0.0] * 20)
    p, p_fall = flipped_signs([difference_I])
    assert p == pytest.approx(stats.binomtest(rose, rose + fell).pvalue)
    assert p_fall == pytest.approx(stats.binomtest(rose, rose + fell, alternative="less").pvalue)


def test_sample_means_give_the_randomisation_test() -> None:
    """scipy goes through all 2^10 signs."""
    rng = np.random.default_rng(0)
    difference_I = (rng.binomial(8, 0.4, 10) - rng.binomial(8, 0.6, 10)) / 8
    p, p_fall = flipped_signs([difference_I])
    for found, alternative in ((p, "two-sided"), (p_fall, "less")):
        other = stats.permutation_test(
            (difference_I,),
            np.mean,
            permutation_type="samples",
            n_resamples=np.inf,
            alternative=alternative,
        )
        assert found == pytest.approx(other.pvalue)


def test_what_has_no_exact_distribution_is_drawn() -> None:
    difference_I = np.random.default_rng(1).normal(0.4, 1, 14)
    other = stats.permutation_test((difference_I,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert flipped_signs([difference_I])[0] == pytest.approx(other.pvalue, abs=0.01)
    two = flipped_signs([np.array([1.0, 1, 1, -1]), np.array([1.0, 1, 1])])
    # 7 signs: mean/4 and mean/3; |sum| at least 0.5 + 1 in 10 of 128 cases, counted by hand below.
    sums = [
        sum(signs[:4]) / 4 + sum(signs[4:]) / 3
        for signs in np.array(np.meshgrid(*[[-1, 1]] * 7)).T.reshape(-1, 7).tolist()
    ]
    assert two[0] == pytest.approx(np.mean([abs(s) >= 1.5 - 1e-9 for s in sums]), abs=0.01)


def test_nothing_that_differs_is_no_change() -> None:
    assert flipped_signs([np.zeros(5)]) == pytest.approx((1.0, 1.0))
    found = paired_change(np.ones(30), np.ones(30), 1, share=True)
    assert found.low < 0 < found.high
    assert found.visible == 6 / 30  # of 5 that differ all in one way an exact test thinks nothing
    with pytest.raises(ValueError, match="at least one item"):
        paired_change(np.zeros(0), np.zeros(0), 1, share=True)


def test_holms_published_example() -> None:
    """P-values 0.01, 0.04, 0.03, 0.005: adjusted 0.03, 0.06, 0.06, 0.02 (R's p.adjust)."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.7, 0.9]) == [1.0, 1.0]


CELLS = [
    (1.0, 0.97, 1, 0.0),
    (0.97, 1.0, 8, 0.6),
    (0.02, 0.97, 8, 0.6),
    (0.0, 0.02, 8, 0.2),
    (0.5, 0.97, 8, 0.6),
    (0.5, 0.5, 1, 0.6),
    (0.02, 0.5, 1, 0.6),
]


@pytest.mark.parametrize(("before", "after", "samples", "alike"), CELLS)
def test_intervals_of_changes_hold_at_thirty_items(
    before: float, after: float, samples: int, alike: float
) -> None:
    """The cells in which other methods failed: a percentile bootstrap covers 1.0 to 0.97 in 55 of 100."""
    rng, held, worlds = np.random.default_rng(3), 0, 400
    for _ in range(worlds):
        first_I, second_I = (
            rng.binomial(samples, _rates(rng, score, alike)) / samples for score in (before, after)
        )
        found = paired_change(first_I, second_I, samples, share=True)
        held += found.low - 1e-9 <= after - before <= found.high + 1e-9
    assert held / worlds >= 0.93


@pytest.mark.parametrize(("score", "samples"), [(0.5, 1), (0.5, 8), (0.97, 1), (0.97, 8)])
def test_where_nothing_changes_at_most_five_in_a_hundred_are_called_changed_or_dips(
    score: float, samples: int
) -> None:
    rng, changed, dips, worlds = np.random.default_rng(4), 0, 0, 300
    for _ in range(worlds):
        rates_I = _rates(rng, score, 0.5)
        base_I, *later = (rng.binomial(samples, rates_I) / samples for _ in range(9))
        changes = [paired_change(base_I, after_I, samples, share=True) for after_I in later]
        changed += changes[-1].p <= ALPHA
        assert (changes[-1].p <= ALPHA) or changes[-1].low <= 0 <= changes[-1].high
        lowest = int(np.argmin([change.mean for change in changes]))
        dips += holm([change.p_fall for change in changes])[lowest] <= ALPHA
    assert changed / worlds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / worlds)
    assert dips / worlds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / worlds)


def test_differences_scaled_by_weights_cover_the_weighted_change() -> None:
    """60 items of weight 1 to 5, whose scores rise from 0.7 to 0.8."""
    rng, held, worlds = np.random.default_rng(9), 0, 300
    for _ in range(worlds):
        weights_I = rng.integers(1, 6, 60).astype(float)
        weights_I /= weights_I.mean()
        before_I, after_I = (weights_I * rng.binomial(1, share, 60) for share in (0.7, 0.8))
        found = paired_change(before_I, after_I, 1, share=True)
        held += found.low <= 0.1 <= found.high
    assert 0.92 <= held / worlds <= 0.98
    everything = paired_change(np.zeros(60), weights_I, 1, share=True)
    assert 0.8 < everything.low < 0.95 < everything.high


def test_a_group_is_the_mean_of_its_benchmarks() -> None:
    rng = np.random.default_rng(5)
    pairs = [(rng.binomial(1, 0.4, n) * 1.0, rng.binomial(1, 0.6, n) * 1.0) for n in (40, 90)]
    parts = [paired_change(*pair, 1, share=True) for pair in pairs]
    whole = mean_change(parts, [after_I - before_I for before_I, after_I in pairs])
    assert whole.mean == pytest.approx(np.mean([part.mean for part in parts]))
    assert whole.low < whole.mean < whole.high
    assert whole.high - whole.low < max(part.high - part.low for part in parts)
    assert whole.p == flipped_signs([after_I - before_I for before_I, after_I in pairs])[0]
    assert (whole.items, whole.paired) == (130, True)


def test_estimates_on_other_items_are_compared_by_their_intervals() -> None:
    before, after = (0.6, *wilson(0.6, 80)), (0.8, *wilson(0.8, 70))
    found = unpaired_change(before, after, 70)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert found.p < ALPHA
    assert found.p_fall > 0.99
    assert not found.paired
    assert unpaired_change(before, before, 80).p == 1


def test_numbers_without_bounds_are_compared_by_their_mean() -> None:
    rng = np.random.default_rng(6)
    before_I = rng.normal(size=60)
    after_I = before_I + rng.normal(0.5, 1, size=60)
    found = paired_change(before_I, after_I, 1, share=False)
    assert found.p == pytest.approx(stats.ttest_rel(after_I, before_I).pvalue, abs=0.01)
    half = stats.sem(after_I - before_I) * stats.t.ppf(0.975, 59)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


def test_the_visible_change_is_seen_in_eighty_of_a_hundred() -> None:
    """200 items of 4 samples whose rates stay, and a gain of that size."""
    rng, seen, worlds, items = np.random.default_rng(8), 0, 600, 200
    deviation = planned_deviation(4, share=0.5, alike=0.5, kept=1.0)
    assert deviation == pytest.approx(math.sqrt(2 * 0.25 * 0.5 / 4))
    size = visible_change(deviation, items)
    for _ in range(worlds):
        rates_I = rng.beta(0.5, 0.5, items)  # an item's samples correlate by 1 / (0.5 + 0.5 + 1)
        first_I, second_I = rng.binomial(4, np.stack([rates_I, rates_I])) / 4
        seen += stats.ttest_rel(second_I + size, first_I).pvalue <= ALPHA
    assert 0.76 <= seen / worlds <= 0.84
    assert math.isnan(visible_change(0.3, 1))


def _rates(rng: np.random.Generator, score: float, alike: float) -> np.ndarray:
    """Rates of 30 items."""
    if score in (0.0, 1.0) or alike == 0:
        return np.full(30, score)
    strength = 1 / alike - 1
    return rng.beta(score * strength, (1 - score) * strength, 30)
