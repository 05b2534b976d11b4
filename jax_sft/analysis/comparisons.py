"""Every snapshot against its base on the same items: change, interval, exact test, corrected two ways."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from jax_sft.analysis.series import Series
from jax_sft.statistics.changes import Change
from jax_sft.statistics.signs import holm


@dataclass(frozen=True)
class Comparison:
    """One snapshot of one curve against the base."""

    series: Series
    step: int
    change: Change
    p_curve: float
    """Two-sided, corrected by Holm's method for the snapshots of the curve."""
    q_study: float
    """Share of false findings among all that are this clear in the study (Benjamini and Hochberg)."""


def compare(series: Iterable[Series]) -> list[Comparison]:
    """All comparisons of the curves, in their order."""
    rows = []
    for s in series:
        corrected = holm([change.p for change in s.changes])
        for point, change, p in zip(s.after_base, s.changes, corrected, strict=False):
            rows.append((s, point.step, change, p))
    q_values = benjamini_hochberg([change.p for _, _, change, _ in rows])
    return [Comparison(*row, q) for row, q in zip(rows, q_values, strict=True)]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that of those at most q a share of at most q is false (1995)."""
    from scipy import stats

    return np.asarray(stats.false_discovery_control(p_values)).tolist() if p_values else []
