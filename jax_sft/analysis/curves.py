"""The shape of a score over training: dip, recovery and gain, and which of them are larger than noise.

Everything here is a pure function of numbers. Scores are oriented before they come in: higher is better.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
