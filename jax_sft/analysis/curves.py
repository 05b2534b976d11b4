"""The shape of a score over training: dip, recovery and gain, and which of them are larger than noise.

Everything here is a pure function of numbers. Scores are oriented before they come in: higher is better.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class CurveShape:
    """Landmarks of one curve. Depths and gains are in the units of the score."""

    base: float
    """Score of the start weights."""
    final: float
    final_step: int
    best: float
    """Highest score after the base, chosen after the fact."""
    best_step: int
    dip_depth: float
    """Base minus the lowest later score; 0 when the curve never goes below its base."""
    dip_step: int | None
    """First step with the lowest score; None without a dip."""
    recovery_step: int | None
    """First step after the dip at or above the base; None without a dip or a return."""

    @property
    def final_gain(self) -> float:
        """Last score minus base."""
        return self.final - self.base

    @property
    def best_gain(self) -> float:
        """Highest later score minus base."""
        return self.best - self.base

    @property
    def recovered_share(self) -> float | None:
        """How much of the dip the last score has won back: 0 none, 1 all, more above the base."""
        if self.dip_depth <= 0:
            return None
        return (self.final - self.base + self.dip_depth) / self.dip_depth


def describe(steps: Sequence[int], scores: Sequence[float], base: float) -> CurveShape:
    """Landmarks of the scores after the base. `steps` ascend and do not hold the base's own step.

    Raises ValueError when there is no step, when steps do not ascend, or when a score is not finite.
    """
    if not steps or len(steps) != len(scores):
        raise ValueError(f"expected as many scores as steps, got {len(scores)} and {len(steps)}")
    if any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(f"steps must ascend: {list(steps)}")
    if not all(math.isfinite(score) for score in (*scores, base)):
        raise ValueError("scores must be finite")
    lowest, highest = int(np.argmin(scores)), int(np.argmax(scores))
    depth = max(0.0, base - scores[lowest])
    recovery = None
    if depth > 0:
        later = zip(steps[lowest + 1 :], scores[lowest + 1 :], strict=True)
        recovery = next((step for step, score in later if score >= base), None)
    return CurveShape(
        base=base,
        final=scores[-1],
        final_step=steps[-1],
        best=scores[highest],
        best_step=steps[highest],
        dip_depth=depth,
        dip_step=steps[lowest] if depth > 0 else None,
        recovery_step=recovery,
    )


@dataclass(frozen=True)
class ChangeBands:
    """Changes against the base at each step, with two kinds of 95% interval from one paired bootstrap.

    `low`/`high` hold for one step chosen beforehand (the last). `margin` holds for all steps at once, so
    that it may judge a step picked because it was the lowest or the highest.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    margin: np.ndarray


def change_bands(changes: Sequence[np.ndarray], seed: int = 0) -> ChangeBands:
    """Bands for the mean over benchmarks of the mean over items of paired changes.

    `changes` holds one array [items, steps] per benchmark: the item's score at the step minus its score at
    the base. Items are resampled with replacement, the same items for all steps, each benchmark on its own.
    The joint margin is the 95% point of the largest studentised deviation over the steps, times each step's
    standard error (the max-t method). Raises ValueError for no benchmark, or one without items.
    """
    if not changes or any(change.ndim != 2 or len(change) == 0 for change in changes):
        raise ValueError("every benchmark needs at least one paired item")
    means_RS = np.zeros((RESAMPLES, changes[0].shape[1]))
    for i, change_IS in enumerate(changes):
        counts_RI = _resample_counts(len(change_IS), seed + i)
        means_RS += (counts_RI @ change_IS.astype(np.float32)) / len(change_IS)
    means_RS /= len(changes)
    mean_S = np.mean([change.mean(axis=0) for change in changes], axis=0)
    low_S, high_S = np.quantile(means_RS, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    error_S = means_RS.std(axis=0)
    deviation_RS = np.abs(means_RS - mean_S) / np.where(error_S > 1e-9, error_S, np.inf)
    margin_S = np.quantile(deviation_RS.max(axis=1), LEVEL) * error_S
    return ChangeBands(mean_S, low_S, high_S, margin_S)


@functools.lru_cache(maxsize=4)
def _resample_counts(items: int, seed: int) -> np.ndarray:
    """How often each item is drawn in each resample, [resamples, items]."""
    rng = np.random.default_rng((seed, items))
    return rng.multinomial(items, np.full(items, 1 / items), size=RESAMPLES).astype(np.float32)


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


def unpaired_change(
    before: tuple[float, float, float], after: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Difference of two independent estimates (mean, low, high) with its 95% interval (MOVER)."""
    change = after[0] - before[0]
    below = math.hypot(after[0] - after[1], before[2] - before[0])
    above = math.hypot(after[2] - after[0], before[0] - before[1])
    return change, change - below, change + above
