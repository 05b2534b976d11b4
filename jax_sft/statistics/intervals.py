"""95% intervals of scores, and of the difference between two steps on the same items."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054  # two-sided 95% of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95% interval, and the number of items it rests on."""

    mean: float
    low: float
    high: float
    n: int


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share seen in `count` independent draws (count need not be whole)."""
    if count <= 0:
        return 0.0, 1.0
    spread = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    scale = 1 + Z**2 / count
    middle = share + Z**2 / (2 * count)
    # At the ends the formula gives exactly 0 or 1, up to rounding.
    low = 0.0 if share == 0 else max(0.0, (middle - spread) / scale)
    high = 1.0 if share == 1 else min(1.0, (middle + spread) / scale)
    return low, high


def estimate(
    values_by_item: Mapping[str, Sequence[float]], weights: Mapping[str, float] | None = None
) -> Estimate:
    """Mean over items of the mean over samples, with a 95% interval that knows samples of an item are alike.

    `weights` are those of the items in the mean (without them all are 1): an item of weight 3 counts like
    three questions that are alike.

    Values between 0 and 1: Wilson's interval for the effective sample size mean*(1-mean)/variance(mean),
    where the variance is that of the mean of item means; with one 0/1 sample an item that is Wilson's
    interval itself. The size is kept between the number of items (samples of an item all equal; with weights
    Kish's effective number) and that of all samples (independent). Other values: the normal interval of the
    item means. No items: mean 0, interval 0 … 1.
    """
    if not values_by_item:
        return Estimate(0.0, 0.0, 1.0, 0)
    means_E = np.array([np.mean(values) for values in values_by_item.values()], np.float64)
    weights_E = np.array([1.0 if weights is None else weights[item] for item in values_by_item])
    items, whole = len(means_E), float(weights_E.sum())
    mean = float(np.average(means_E, weights=weights_E))
    squares = float(((weights_E * (means_E - mean)) ** 2).sum())
    variance = squares / whole**2 * items / (items - 1) if items > 1 else 0.0
    lowest = min(min(values) for values in values_by_item.values())
    highest = max(max(values) for values in values_by_item.values())
    if lowest < 0 or highest > 1:
        spread = Z * math.sqrt(variance)
        return Estimate(mean, mean - spread, mean + spread, items)
    least = whole**2 / float((weights_E**2).sum())
    most = sum(weights_E[at] * len(values) for at, values in enumerate(values_by_item.values()))
    size = mean * (1 - mean) / variance if variance > 0 else least
    low, high = wilson(mean, min(max(size, least), most))
    return Estimate(mean, low, high, items)


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
    before: tuple[float, float, float], after: tuple[float, float, float], correlation: float = 0.0
) -> tuple[float, float, float]:
    """Difference of two estimates (mean, low, high) with its 95% interval, from theirs.

    `correlation` is that of the two over the same items; 0 for independent ones. By MOVER (Zou and Donner,
    2008; with Wilson's intervals it is Newcombe's method 10, 1998), which keeps its coverage near 0 and 1,
    where a bootstrap of few items sees no variance.
    """
    change = after[0] - before[0]
    fall, rise = after[0] - after[1], after[2] - after[0]
    base_fall, base_rise = before[0] - before[1], before[2] - before[0]
    below = math.sqrt(max(fall**2 + base_rise**2 - 2 * correlation * fall * base_rise, 0.0))
    above = math.sqrt(max(rise**2 + base_fall**2 - 2 * correlation * rise * base_fall, 0.0))
    return change, change - below, change + above


def item_correlation(before: Sequence[float], after: Sequence[float]) -> float:
    """Correlation of two scores of the same items; 0 where one of them is the same for all items."""
    if np.std(before) == 0 or np.std(after) == 0:
        return 0.0
    return float(np.corrcoef(before, after)[0, 1])
