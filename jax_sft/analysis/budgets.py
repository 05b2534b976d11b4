"""What a benchmark's score would be if outputs were cut at fewer tokens, from the same completions.

The rule: an output counts at a budget of k tokens with its verdict if it ended by itself within k tokens;
otherwise it would have been cut, and counts as wrong. An answer that was given before k inside an output that
went on does not count: the rules of this package read what follows the thinking of a whole output, a server
that stops at k returns an output that is cut, and nothing is judged twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jax_sft.statistics.intervals import Estimate, estimate
from jax_sft.study.records import CompletionLine, UnitScores

SMALLEST = 16
"""Budgets are this and half as much again, doubled and doubled, up to the longest output."""


@dataclass(frozen=True)
class BudgetPoint:
    """A unit's score at one budget."""

    run: str
    step: int
    benchmark: str
    tokens: int
    """The budget."""
    score: Estimate
    ended: float
    """Share of the outputs that ended within it."""


def budget_curve(unit: UnitScores, lines: Sequence[CompletionLine], limit: int = 0) -> list[BudgetPoint]:
    """The headline score at each budget, up to `limit` tokens or else the unit's longest output.

    Empty for a unit without judged completions, for one that was asked for likelihoods, and for a metric that
    is no share: what an output that was cut is worth is known only where 0 (or, where lower is better, 1) is
    the worst.
    """
    found = {line.key: line for line in lines}
    judged = [
        (verdict.item, verdict.metrics[unit.headline], found[verdict.item, verdict.sample])
        for verdict in unit.verdicts
        if unit.headline in verdict.metrics and (verdict.item, verdict.sample) in found
    ]
    if any(line.likelihoods or line.divergence for line in lines):
        return []
    if not judged or any(not 0 <= value <= 1 for _, value, _ in judged):
        return []
    worst = 0.0 if unit.higher_is_better else 1.0
    curve = []
    for budget in budgets(max(limit, *(line.tokens for _, _, line in judged))):
        values: dict[str, list[float]] = {}
        ended = 0
        for item, value, line in judged:
            within = line.finish == "stop" and line.tokens <= budget
            ended += within
            values.setdefault(item, []).append(value if within else worst)
        score = estimate(values)
        curve.append(BudgetPoint(unit.run, unit.step, unit.benchmark, budget, score, ended / len(judged)))
    return curve


def budgets(longest: int) -> list[int]:
    """16, 24, 32, 48, 64, 96, … and last the longest output."""
    found = []
    budget = SMALLEST
    while budget < longest:
        found += [budget, 3 * budget // 2]
        budget *= 2
    return [*(budget for budget in found if budget < longest), longest]
