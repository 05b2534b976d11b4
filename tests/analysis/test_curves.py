"""Landmarks on constructed curves."""

import pytest

from jax_sft.analysis.curves import describe

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
