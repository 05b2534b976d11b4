"""Every snapshot against its base, and runs against each other, on the same items: tested and corrected."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from jax_sft.analysis.pairs import unit_change
from jax_sft.analysis.series import Series
from jax_sft.analysis.study import RunResults, StudyResults
from jax_sft.statistics.changes import ALPHA, Change
from jax_sft.statistics.signs import holm
from jax_sft.study.records import UnitScores


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


@dataclass(frozen=True)
class RunComparison:
    """The last snapshots of two runs from the same start weights on one benchmark."""

    first: UnitScores
    second: UnitScores
    change: Change
    """Second minus first, oriented so that higher is better."""
    p: float
    """Two-sided, corrected by Holm's method for the benchmarks of the two runs."""
    is_share: bool

    @property
    def is_real(self) -> bool:
        """Whether the difference is larger than noise at 5%."""
        return self.p <= ALPHA


def compare_runs(record: StudyResults) -> list[RunComparison]:
    """Every two swept runs starting from the same weights, where their last scores are of the same items."""
    found = []
    for first, second in itertools.combinations(record.swept, 2):
        if first.config.init != second.config.init or first.config.model != second.config.model:
            continue
        rows = []
        for benchmark in record.benchmarks:
            before, after = _last(first, benchmark.name), _last(second, benchmark.name)
            if before is not None and after is not None:
                change = unit_change(before, after, record.is_share(benchmark.name))
                if change.paired:
                    rows.append((before, after, change))
        corrected = holm([change.p for _, _, change in rows])
        found += [
            RunComparison(before, after, change, p, record.is_share(before.benchmark))
            for (before, after, change), p in zip(rows, corrected, strict=True)
        ]
    return found


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


def _last(run: RunResults, benchmark: str) -> UnitScores | None:
    """The run's last judged unit of the benchmark after the start."""
    of = {step: unit for (step, name), unit in run.units.items() if name == benchmark}
    units = {step: unit for step, unit in of.items() if step > 0 and unit.judged}
    return units[max(units)] if units else None
