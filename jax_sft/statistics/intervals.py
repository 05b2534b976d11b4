"""95% intervals of scores, and of the difference between two steps on the same items.

The formulas, their sources and how often they cover are in docs/statistics.md.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

Z = 1.959963984540054  # two-sided 95% of the normal distribution
PRIOR_ITEMS = 0.75
"""Items whose samples all agree that the estimate of the effective size is started with."""
FINENESS = 100
"""Draws that a sample is worth at most, where it may have other values than 0 and 1."""


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95% interval, and the number of items it rests on."""

    mean: float
    low: float
    high: float
    n: int


def wilson(share: float, count: float, quantile: float = Z) -> tuple[float, float]:
    """Wilson's interval of a share seen in `count` independent draws (count need not be whole).

    `quantile` is that of its level, by default the normal distribution's for 95%. (Wilson 1927)
    """
    if count <= 0:
        return 0.0, 1.0
    spread = quantile * math.sqrt(share * (1 - share) / count + quantile**2 / (4 * count**2))
    scale = 1 + quantile**2 / count
    middle = share + quantile**2 / (2 * count)
    # At the ends the formula gives exactly 0 or 1, up to rounding.
    low = 0.0 if share == 0 else max(0.0, (middle - spread) / scale)
    high = 1.0 if share == 1 else min(1.0, (middle + spread) / scale)
    return low, high


def student(items: int) -> float:
    """Two-sided 95% point of Student's distribution for a variance estimated from `items` values."""
    return float(special.stdtrit(items - 1, 0.975)) if items > 1 else Z


def effective_size(resolved: float, squares: float, least: float, most: float) -> float:
    """Independent draws that a mean over items is worth, between `least` and `most`.

    `resolved` is the sum over items of the variance that one draw alone would have (for a share
    n*share*(1-share)), `squares` that of the items' values as estimated from them; their ratio is the share
    of a draw's variance that averaging an item's samples leaves. Few items away from the edge say little
    about it, so that it is drawn to 1, its worst, by `PRIOR_ITEMS` of the resolved**2/squares items that
    say something.
    """
    if resolved <= 0 or least >= most:
        return least
    informative = resolved**2 / max(squares, 1e-12 * resolved)
    left = (resolved + PRIOR_ITEMS) / (informative + PRIOR_ITEMS)
    return min(max(least / left, least), most)


def estimate(
    values_by_item: Mapping[str, Sequence[float]],
    weights: Mapping[str, float] | None = None,
    shares: bool = True,
) -> Estimate:
    """Mean over items of the mean over samples, with a 95% interval that knows samples of an item are alike.

    `weights` are those of the items in the mean (without them all are 1): an item of weight 3 counts like
    three questions that are alike.

    Values between 0 and 1: Wilson's interval at the effective size; with one 0/1 sample an item that is
    Wilson's interval itself, otherwise with Student's quantile, because a variance is estimated. The size is
    kept between the number of items (samples of an item all equal; with weights Kish's effective number) and
    that of all samples (independent; where they are graded, `FINENESS` times that). Other values, and those
    that are no `shares` wherever they lie: the interval of `mean_of`. No items: mean 0, interval 0 … 1.
    """
    if not values_by_item:
        return Estimate(0.0, 0.0, 1.0, 0)
    means_E = np.array([sum(values) / len(values) for values in values_by_item.values()], np.float64)
    weights_E = np.array([1.0 if weights is None else weights[item] for item in values_by_item])
    every = np.array([value for values in values_by_item.values() for value in values], np.float64)
    if not shares or every.min() < 0 or every.max() > 1:
        return mean_of(means_E, weights_E)
    counts_E = np.array([len(values) for values in values_by_item.values()])
    # An item's weight is how many questions it is, whose share of right ones is its value.
    graded = bool(((every != 0) & (every != 1)).any() and (weights_E == weights_E[0]).all())
    fine = FINENESS if graded else 1
    items, whole = len(means_E), float(weights_E.sum())
    mean = float(np.average(means_E, weights=weights_E))
    least, most = whole**2 / float((weights_E**2).sum()), fine * float(weights_E @ counts_E)
    if items == 1:
        return Estimate(mean, *wilson(mean, least), items)
    variance = float(((weights_E * (means_E - mean)) ** 2).sum()) / whole**2 * items / (items - 1)
    size = effective_size(least * mean * (1 - mean), variance * least**2, least, most)
    low, high = wilson(mean, size, student(items) if least < most else Z)
    return Estimate(mean, low, high, items)


def mean_of(values_E: np.ndarray, weights_E: np.ndarray | None = None) -> Estimate:
    """Mean of numbers without bounds (rewards, lengths, nats) with Student's interval, skewness undone.

    The interval is that of Hall's cubic transformation (Hall 1992), which is Student's for symmetric
    values. One item gives no width.
    """
    items = len(values_E)
    weights_E = np.ones(items) if weights_E is None else weights_E
    whole = float(weights_E.sum())
    mean = float(np.average(values_E, weights=weights_E))
    if items < 2:
        return Estimate(mean, mean, mean, items)
    away_E = weights_E * (values_E - mean) * items / whole
    spread = math.sqrt(float((away_E**2).sum()) / (items - 1))
    if spread == 0:
        return Estimate(mean, mean, mean, items)
    skewness = float((away_E**3).mean()) / spread**3
    quantile = student(items)
    below, above = (_unskewed(t, skewness, items) * spread / math.sqrt(items) for t in (quantile, -quantile))
    return Estimate(mean, mean - below, mean - above, items)


def _unskewed(t: float, skewness: float, items: int) -> float:
    """The quantile of a mean's t statistic whose transform by Hall's cubic is `t`."""
    slope = skewness / (3 * math.sqrt(items))
    if abs(slope) < 1e-9:
        return t
    # t = x + slope x^2 + slope^2 x^3 / 3 + slope / 2, which is monotone, solved for x.
    return (math.copysign(abs(inner := 1 + 3 * slope * (t - slope / 2)) ** (1 / 3), inner) - 1) / slope


def mean_interval(
    means: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> tuple[float, float, float]:
    """Mean of independent estimates with its 95% interval, from theirs (MOVER: Zou and Donner, 2008).

    Keeps the asymmetry of Wilson intervals near 0 and 1, where a normal interval would have no width.
    """
    count = len(means)
    mean = sum(means) / count
    below = math.sqrt(sum((m - low) ** 2 for m, low in zip(means, lows, strict=True))) / count
    above = math.sqrt(sum((high - m) ** 2 for m, high in zip(means, highs, strict=True))) / count
    return mean, mean - below, mean + above


def change_interval(
    before: tuple[float, float, float], after: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Difference of two independent estimates (mean, low, high) with its 95% interval, from theirs.

    By MOVER (Zou and Donner, 2008; with Wilson's intervals it is Newcombe's method 10, 1998).
    """
    change = after[0] - before[0]
    below = math.hypot(after[0] - after[1], before[2] - before[0])
    above = math.hypot(after[2] - after[0], before[0] - before[1])
    return change, change - below, change + above


def paired_interval(gained: float, lost: float, size: float, quantile: float = Z) -> tuple[float, float]:
    """95% interval of `gained` - `lost`: shares of `size` independent pairs that rose and fell by 1.

    Tango's score interval (Tango 1998): the differences that a score test does not reject, whose variance is
    the most likely one under each difference.
    """
    change = gained - lost

    def score(difference: float) -> float:
        linear = gained + lost - (2 - change) * difference
        root = math.sqrt(max(linear**2 + 8 * lost * difference * (1 - difference), 0.0))
        fell = max(linear + root, 0.0) / 4  # the likeliest share of falls under this difference
        variance = max(2 * fell + difference * (1 - difference), 0.0) / size
        return (change - difference) / math.sqrt(max(variance, 1e-300))

    return _crossing(score, quantile, -1.0, change), _crossing(score, -quantile, change, 1.0)


def _crossing(score: Callable[[float], float], level: float, low: float, high: float) -> float:
    """Where between `low` and `high` a falling score comes down to the level."""
    for _ in range(48):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > level else (low, middle)
    return (low + high) / 2
