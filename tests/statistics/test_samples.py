"""avg@n, pass@k and majority@n against published and counted values."""

import itertools

import numpy as np
import pytest

from jax_sft.statistics.intervals import estimate
from jax_sft.statistics.samples import majority, pass_at_k, sampled_scores


@pytest.mark.parametrize(("right", "count", "k"), [(0, 5, 3), (1, 5, 3), (3, 8, 2), (5, 5, 1), (6, 8, 4)])
def test_pass_at_k_is_the_share_of_all_choices_with_a_right_one(right: int, count: int, k: int) -> None:
    marks = [True] * right + [False] * (count - right)
    choices = [any(choice) for choice in itertools.combinations(marks, k)]
    assert pass_at_k(right, count, k) == pytest.approx(np.mean(choices))


@pytest.mark.parametrize(("right", "count", "k"), [(3, 200, 1), (3, 200, 10), (40, 200, 100)])
def test_pass_at_k_equals_the_product_that_was_published(right: int, count: int, k: int) -> None:
    """Chen et al. (2021), figure 3: 1 - prod(1 - k / i) for i from n - c + 1 to n."""
    product = 1 - np.prod(1 - k / np.arange(count - right + 1, count + 1))
    assert pass_at_k(right, count, k) == pytest.approx(product)


@pytest.mark.parametrize("of", [(1, 4, 5), (1, 4, 0), (5, 4, 1)])
def test_pass_at_k_refuses_more_than_there_is(of: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"pass@{of[2]}"):
        pass_at_k(*of)


def test_majority_takes_the_answer_of_most_and_the_mean_of_tied_ones() -> None:
    assert majority([(0.0, "7"), (1.0, "8"), (1.0, "8")]) == 1
    assert majority([(0.0, "7"), (1.0, "8"), (0.0, "7"), (1.0, "8")]) == 0.5
    assert majority([(1.0, "8"), (0.0, ""), (0.0, "")]) == 1  # no answer, no vote
    assert majority([(0.0, ""), (0.0, "")]) == 0


def test_scores_of_several_samples() -> None:
    samples = {
        "a": [(1.0, "1"), (1.0, "1"), (0.0, "2"), (0.0, "3")],
        "b": [(0.0, "5")] * 4,
        "c": [(1.0, "9")] * 3 + [(0.0, "")],
    }
    found = sampled_scores(samples)
    assert list(found) == ["avg@4", "pass@1", "pass@2", "pass@4", "majority@4"]
    assert found["avg@4"] == found["pass@1"] == estimate({k: [v for v, _ in of] for k, of in samples.items()})
    assert found["pass@2"].mean == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert found["pass@4"].mean == found["majority@4"].mean == pytest.approx(2 / 3)
    weighted = sampled_scores(samples, {"a": 2.0, "b": 1.0, "c": 1.0})
    assert weighted["avg@4"].mean == pytest.approx((2 * 0.5 + 0 + 0.75) / 4)
    assert weighted["majority@4"].mean == pytest.approx(3 / 4)
    assert all(value.low <= value.mean <= value.high and value.n == 3 for value in found.values())


def test_one_sample_or_missing_ones_have_no_such_scores() -> None:
    assert sampled_scores({"a": [(1.0, "1")]}) == {}
    assert sampled_scores({"a": [(1.0, "1")] * 2, "b": [(1.0, "1")]}) == {}
    assert sampled_scores({}) == {}


def test_values_that_are_no_verdicts_have_no_pass_at_k() -> None:
    assert list(sampled_scores({"a": [(0.3, "x"), (2.0, "y")]})) == ["avg@2", "majority@2"]
