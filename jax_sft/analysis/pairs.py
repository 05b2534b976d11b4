"""A unit beside the one its run started from: changes of the same items, higher being better."""

import numpy as np

from jax_sft.statistics.changes import Change, paired_change, unpaired_change
from jax_sft.study.records import UnitScores


def unit_change(base: UnitScores, unit: UnitScores, is_share: bool) -> Change:
    """The change of the headline metric: of the same items, or else of two estimates as if independent."""
    pair = paired_scores(base, unit)
    if pair is None:
        sign = 1.0 if unit.higher_is_better else -1.0
        before, after = (_turned(of, sign) for of in (base, unit))
        return unpaired_change(before, after, unit.metrics[unit.headline].n)
    samples = max(1, round(unit.completions / max(unit.items, 1)))
    return paired_change(*pair, samples, is_share)


def paired_scores(base: UnitScores, unit: UnitScores) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores [items] at the base and later, in one order; None unless both judge the same items.

    Where items count unlike, scores are scaled by their weights, so that the mean is that of the headline.
    """
    items = list(base.item_scores)
    if not items or set(unit.item_scores) != set(items):
        return None
    sign = 1.0 if unit.higher_is_better else -1.0
    before_I, after_I = (
        sign * np.array([of.item_scores[item] for item in items], np.float64) for of in (base, unit)
    )
    if unit.item_weights:
        weights_I = np.array([unit.item_weights[item] for item in items])
        weights_I = weights_I / weights_I.mean()
        return weights_I * before_I, weights_I * after_I
    return before_I, after_I


def item_changes(base: UnitScores | None, unit: UnitScores) -> np.ndarray | None:
    """Change of each item [items]; None unless both units judge the same ones."""
    pair = paired_scores(base, unit) if base is not None else None
    return None if pair is None else pair[1] - pair[0]


def _turned(unit: UnitScores, sign: float) -> tuple[float, float, float]:
    low, high = sorted((sign * unit.low, sign * unit.high))
    return sign * unit.score, low, high
