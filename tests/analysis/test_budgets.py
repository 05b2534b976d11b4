"""Scores at smaller token budgets."""

from dataclasses import replace

import pytest

from jax_sft.analysis.budgets import budget_curve, budgets
from jax_sft.statistics.intervals import Estimate, estimate
from jax_sft.study.likelihoods import Likelihood
from jax_sft.study.records import CompletionLine, JudgedCompletion, UnitScores

ROWS = [  # item, sample, tokens, finish, right
    ("a", 0, 10, "stop", 1.0),
    ("a", 1, 40, "stop", 1.0),
    ("b", 0, 33, "stop", 0.0),
    ("b", 1, 100, "length", 1.0),  # right by an answer that it gave before it was cut
]
LINES = [
    CompletionLine.from_json(
        {"item": item, "sample": sample, "completion": "", "tokens": tokens, "finish": finish}, "here"
    )
    for item, sample, tokens, finish, _ in ROWS
]
UNIT = UnitScores(
    study="s",
    run="r",
    step=5,
    benchmark="b",
    kind="countdown",
    group="in_domain",
    headline="accuracy",
    higher_is_better=True,
    items=2,
    completions=4,
    score=0.75,
    low=0.1,
    high=0.9,
    metrics={"accuracy": Estimate(0.75, 0.1, 0.9, 2)},
    mean_tokens=45.75,
    truncation_rate=0.25,
    no_answer_rate=0.0,
    scorer_failures=0,
    verdicts=tuple(
        JudgedCompletion(item, sample, {"accuracy": right}, True) for item, sample, _, _, right in ROWS
    ),
)


def test_budgets_double_up_to_the_longest() -> None:
    assert budgets(100) == [16, 24, 32, 48, 64, 96, 100]
    assert budgets(24) == [16, 24]
    assert budgets(16) == [16]
    assert budgets(9) == [9]


def test_an_output_counts_once_it_has_ended_and_not_before() -> None:
    curve = budget_curve(UNIT, LINES)
    assert [(point.tokens, point.score.mean, point.ended) for point in curve] == [
        (16, 0.25, 0.25),
        (24, 0.25, 0.25),
        (32, 0.25, 0.25),
        (48, 0.5, 0.75),
        (64, 0.5, 0.75),
        (96, 0.5, 0.75),
        (100, 0.5, 0.75),
    ]
    assert curve[0].score == estimate({"a": [1.0, 0.0], "b": [0.0, 0.0]})
    assert budget_curve(UNIT, LINES, 20) == curve
    assert budget_curve(UNIT, LINES, 128)[:6] == curve[:6]
    assert budget_curve(UNIT, LINES, 128)[-1].tokens == 128


def test_what_is_cut_is_worst_where_lower_is_better() -> None:
    curve = budget_curve(replace(UNIT, higher_is_better=False), LINES)
    assert [point.score.mean for point in curve] == [1.0] * 3 + [0.75] * 4


@pytest.mark.parametrize("value", [2.5, -1.0])
def test_what_is_no_share_has_no_curve(value: float) -> None:
    other = replace(UNIT.verdicts[0], metrics={"accuracy": value})
    assert budget_curve(replace(UNIT, verdicts=(other, *UNIT.verdicts[1:])), LINES) == []
    assert budget_curve(replace(UNIT, verdicts=()), LINES) == []


def test_what_was_asked_for_likelihoods_has_no_curve() -> None:
    scored = [replace(line, likelihoods=(Likelihood(-1.0, 3, True),)) for line in LINES]
    assert budget_curve(UNIT, scored) == []
