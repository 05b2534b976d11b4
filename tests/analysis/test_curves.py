"""Landmarks on constructed curves, and intervals against independent computations."""

import numpy as np
import pytest
from scipy import stats

from jax_sft.analysis.curves import describe
from jax_sft.statistics.bootstrap import change_bands
from jax_sft.statistics.intervals import change_interval, item_correlation, mean_interval, wilson

STEPS = [10, 20, 40, 80]


def test_dip_and_recovery() -> None:
    shape = describe(STEPS, [0.6, 0.3, 0.5, 0.9], base=0.7)
    assert shape.dip_depth == pytest.approx(0.4)
    assert (shape.dip_step, shape.recovery_step) == (20, 80)
    assert shape.final_gain == pytest.approx(0.2)
    assert shape.recovered_share == pytest.approx(1.5)


def test_paper_curve_of_qwen3_4b_on_ifeval() -> None:
    """Table 9 of arXiv 2604.06628: the dip is at step 20, and the score is back by 480."""
    steps = [10, 20, 40, 80, 160, 320, 480, 640]
    scores = [0.463, 0.330, 0.372, 0.404, 0.416, 0.454, 0.500, 0.494]
    shape = describe(steps, scores, base=0.492)
    assert (shape.dip_step, shape.recovery_step, shape.best_step) == (20, 480, 480)
    assert shape.dip_depth == pytest.approx(0.162)
    assert shape.final_gain == pytest.approx(0.002)


def test_no_dip_when_never_below_the_base() -> None:
    shape = describe(STEPS, [0.7, 0.8, 0.8, 0.75], base=0.7)
    assert (shape.dip_depth, shape.dip_step, shape.recovery_step) == (0, None, None)
    assert shape.recovered_share is None
    assert (shape.best_step, shape.final_step) == (20, 80)


def test_steady_fall_has_its_dip_at_the_end_and_no_recovery() -> None:
    shape = describe(STEPS, [0.6, 0.5, 0.4, 0.3], base=0.7)
    assert (shape.dip_step, shape.recovery_step) == (80, None)
    assert shape.recovered_share == pytest.approx(0)


def test_an_earlier_return_does_not_count_as_recovery_from_the_lowest_point() -> None:
    shape = describe(STEPS, [0.6, 0.8, 0.4, 0.6], base=0.7)
    assert (shape.dip_step, shape.recovery_step) == (40, None)
    assert shape.recovered_share == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("steps", "scores"),
    [([], []), ([1, 2], [0.5]), ([2, 1], [0.5, 0.5]), ([1, 1], [0.5, 0.5]), ([1], [float("nan")])],
)
def test_bad_curves_are_refused(steps: list[int], scores: list[float]) -> None:
    with pytest.raises(ValueError):
        describe(steps, scores, base=0.5)


def test_margin_of_one_step_is_that_of_the_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.random(150) < 0.6, rng.random(150) < 0.4
    change_IS = (after.astype(float) - before.astype(float))[:, None]
    bands = change_bands([change_IS])
    other = stats.bootstrap((change_IS[:, 0],), np.mean, method="percentile", rng=np.random.default_rng(0))
    low, high = other.confidence_interval
    assert bands.mean[0] == pytest.approx(change_IS.mean())
    assert bands.margin[0] == pytest.approx((high - low) / 2, abs=0.015)


def test_joint_margin_rarely_finds_a_dip_where_there_is_none() -> None:
    """With eight noisy snapshots the lowest often leaves its own interval, and seldom the joint one."""
    rng = np.random.default_rng(2)
    single = joint = 0
    studies = 200
    for _ in range(studies):
        change_IS = rng.integers(-1, 2, size=(60, 8)).astype(float)
        bands = change_bands([change_IS])
        lowest = int(bands.mean.argmin())
        alone = change_bands([change_IS[:, [lowest]]])
        single += alone.mean[0] + alone.margin[0] < 0
        joint += bands.mean[lowest] + bands.margin[lowest] < 0
    assert single / studies > 0.1
    assert joint / studies <= 0.06


def test_group_bands_weigh_benchmarks_equally() -> None:
    few, many = np.full((5, 1), 1.0), np.zeros((500, 1))
    bands = change_bands([few, many])
    assert bands.mean[0] == pytest.approx(0.5)
    assert bands.margin[0] == pytest.approx(0, abs=1e-6)


def test_bands_need_items() -> None:
    with pytest.raises(ValueError):
        change_bands([np.zeros((0, 3))])
    with pytest.raises(ValueError):
        change_bands([])


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


@pytest.mark.parametrize(
    ("before", "after", "least"),
    [(1.0, 0.97, 0.93), (0.97, 1.0, 0.93), (0.5, 0.5, 0.92), (0.02, 0.5, 0.92), (0.0, 0.02, 0.93)],
)
def test_the_interval_of_a_paired_change_covers_it_also_near_the_edge(
    before: float, after: float, least: float
) -> None:
    """30 items, correlated; a percentile bootstrap covers 1.0 to 0.97 in 55 of 100."""
    rng, covered, studies = np.random.default_rng(4), 0, 400
    for _ in range(studies):
        first, second = rng.random(30), rng.random(30)
        second = np.where(rng.random(30) < 0.6, first, second)
        x, y = first < before, second < after
        found = change_interval(
            (float(x.mean()), *wilson(float(x.mean()), 30)),
            (float(y.mean()), *wilson(float(y.mean()), 30)),
            item_correlation(x.astype(float).tolist(), y.astype(float).tolist()),
        )
        covered += found[1] <= after - before <= found[2]
    assert covered / studies >= least


def test_a_change_from_all_to_none_has_an_interval() -> None:
    _, low, high = change_interval((1.0, *wilson(1.0, 30)), (0.0, *wilson(0.0, 30)))
    assert low == -1.0
    assert -0.9 < high < -0.8
