"""What changed between two steps on the same items: interval, exact test, and the smallest change seen.

An interval and the verdict never disagree: where the exact test finds no change at 5%, the interval is
drawn out to zero. Sources and measured coverage are in docs/statistics.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from jax_sft.statistics.intervals import (
    Z,
    change_interval,
    effective_size,
    mean_interval,
    mean_of,
    paired_interval,
    student,
)
from jax_sft.statistics.signs import flipped_signs

ALPHA = 0.05
"""Two-sided level of every test, and the one-sided one of a dip."""
POWER = 0.8
FEWEST = 6
"""Samples that must differ, all in one way, before an exact test finds anything at 5% two-sided."""


@dataclass(frozen=True)
class Change:
    """A score minus the base's on the same items, with its 95% interval and the tests of no change."""

    mean: float
    low: float
    high: float
    p: float
    """Two-sided: neither rose nor fell."""
    p_fall: float
    """One-sided: did not fall."""
    items: int
    paired: bool = True
    visible: float = float("nan")
    """The change in the mean that 80% of such comparisons would find, at 5% two-sided."""


def paired_change(before_I: np.ndarray, after_I: np.ndarray, samples: int, share: bool) -> Change:
    """The change of item scores, each a mean over `samples`, on the same items in the same order.

    `share`: scores lie in [0, 1], and the interval is Tango's at the effective size; otherwise it is that of
    `mean_of`. The test flips the signs of the items' differences, which nothing but chance gave them if
    nothing changed: with one 0/1 sample an item it is McNemar's exact test. ValueError without items.
    """
    difference_I = np.asarray(after_I, np.float64) - np.asarray(before_I, np.float64)
    items = len(difference_I)
    if items == 0:
        raise ValueError("a paired change needs at least one item")
    p, p_fall = flipped_signs([difference_I])
    mean = float(difference_I.mean())
    deviation = float(difference_I.std(ddof=1)) if items > 1 else float("nan")
    if share:
        low, high = _share_interval(difference_I, samples)
    else:
        estimate = mean_of(difference_I)
        low, high = estimate.low, estimate.high
    visible = max(visible_change(deviation, items), FEWEST / (samples * items) if share else 0.0)
    return _as_tested(Change(mean, low, high, p, p_fall, items, True, visible))


def _share_interval(difference_I: np.ndarray, samples: int) -> tuple[float, float]:
    items, mean = len(difference_I), float(difference_I.mean())
    gained, lost = float(np.maximum(difference_I, 0).mean()), float(np.maximum(-difference_I, 0).mean())
    binary = samples == 1 and bool(np.isin(difference_I, (-1.0, 0.0, 1.0)).all())
    if binary or items == 1:
        return paired_interval(gained, lost, items)
    squares, resolved = items * float(difference_I.var(ddof=1)), items * (gained + lost - mean**2)
    # Differences scaled by weights may go beyond 1; they are worth fewer items then.
    least = items / max(1.0, float((difference_I**2).mean()))
    if squares > 0:
        least = max(least, items * min(1.0, resolved / squares * items / (items - 1)))
    size = effective_size(resolved, squares, least, 32.0 * samples * items)
    return paired_interval(gained, lost, size, student(items))


def mean_change(changes: Sequence[Change], differences: Sequence[np.ndarray]) -> Change:
    """The mean of the changes of several benchmarks, equally weighted, from the item differences of each."""
    mean, low, high = mean_interval(
        [change.mean for change in changes],
        [change.low for change in changes],
        [change.high for change in changes],
    )
    p, p_fall = flipped_signs(differences)
    visible = math.sqrt(sum(change.visible**2 for change in changes)) / len(changes)
    return _as_tested(Change(mean, low, high, p, p_fall, sum(c.items for c in changes), True, visible))


def unpaired_change(
    before: tuple[float, float, float], after: tuple[float, float, float], items: int
) -> Change:
    """The change between two estimates (mean, low, high) on other items, by MOVER, tested by its interval."""
    change, low, high = change_interval(before, after)
    towards_zero = change - low if change > 0 else high - change
    z = change / (towards_zero / Z) if towards_zero > 0 else math.copysign(math.inf, change)
    z = 0.0 if change == 0 else z
    return Change(change, low, high, float(2 * special.ndtr(-abs(z))), float(special.ndtr(z)), items, False)


def _as_tested(change: Change) -> Change:
    """The interval with zero in it where the test does not leave it out."""
    if change.p <= ALPHA:
        return change
    return replace(change, low=min(change.low, 0.0), high=max(change.high, 0.0))


def visible_change(deviation: float, items: int) -> float:
    """The change of a mean that 80% of paired comparisons find at 5% two-sided, normal theory.

    `deviation` is that of an item's difference.
    """
    if items < 2:
        return float("nan")
    return (Z + float(special.ndtri(POWER))) * deviation / math.sqrt(items)


def planned_deviation(samples: int, share: float = 0.5, alike: float = 0.5, kept: float = 0.5) -> float:
    """Standard deviation of an item's difference between two snapshots, before anything is drawn.

    A share is worst at 0.5. `alike` is the correlation of an item's samples, `kept` that of items' rates
    between the snapshots; the variance is 2 share (1 - share) (alike (1 - kept) + (1 - alike) / samples).
    """
    return math.sqrt(2 * share * (1 - share) * (alike * (1 - kept) + (1 - alike) / samples))
