"""Scores of a run over its snapshots, per benchmark and per group, with base, shape and noise."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jax_sft.analysis.curves import CurveShape, describe
from jax_sft.analysis.pairs import item_changes, unit_change
from jax_sft.analysis.study import RunResults, StudyResults
from jax_sft.statistics.changes import ALPHA, Change, mean_change, unpaired_change
from jax_sft.statistics.intervals import mean_interval
from jax_sft.statistics.selection import held_out_best
from jax_sft.statistics.signs import holm
from jax_sft.study.records import UnitScores
from jax_sft.study.starts import parse_init

GROUP_TITLES = {"in_domain": "In domain", "reasoning": "Reasoning", "general": "General", "safety": "Safety"}


@dataclass(frozen=True)
class Point:
    """One snapshot's score with its 95% interval, and what its completions were like."""

    step: int
    score: float
    low: float
    high: float
    tokens: float | None = None
    """Mean completion length, in tokens."""
    truncated: float | None = None
    """Share of completions cut at the token limit."""
    unanswered: float | None = None
    """Share of completions without an answer to judge."""


@dataclass(frozen=True)
class Series:
    """One curve of one run: a benchmark, or a group as the mean of its benchmarks.

    Points carry the benchmark's own direction; shape and changes are oriented so that higher is better.
    """

    run: str
    name: str
    group: str
    is_group: bool
    points: tuple[Point, ...]
    base: Point | None
    higher_is_better: bool = True
    is_share: bool = True
    shape: CurveShape | None = None
    """None without a base or without a later snapshot."""
    changes: tuple[Change, ...] = ()
    """Of each point after the base against it; empty without a shape."""
    p_final: float = float("nan")
    """Of the final change, two-sided, corrected by Holm's method for the curves of the run beside it."""
    best_elsewhere: float = float("nan")
    """Change of the best step on items that it was not chosen on."""

    @property
    def title(self) -> str:
        """The group's title, or the benchmark's name."""
        return GROUP_TITLES[self.group] if self.is_group else self.name

    @property
    def after_base(self) -> tuple[Point, ...]:
        """The points later than the base."""
        base = self.base
        return tuple(p for p in self.points if base is None or base.step > 0 or p.step > base.step)

    @property
    def paired(self) -> bool:
        """Whether the changes are of the same items."""
        return bool(self.changes) and all(change.paired for change in self.changes)

    @property
    def final(self) -> Change:
        """The change at the last point; ValueError without a shape."""
        if not self.changes:
            raise ValueError(f"{self.run}, {self.name}: no base to compare with")
        return self.changes[-1]

    @property
    def final_is_real(self) -> bool:
        """Whether the final change is larger than noise at 5%, corrected for the run's other curves."""
        return self.shape is not None and self.p_final <= ALPHA

    @property
    def dip_is_real(self) -> bool:
        """Whether the dip is larger than noise at 5%, corrected for its being the lowest of all snapshots."""
        if self.shape is None or self.shape.dip_step is None:
            return False
        falls = holm([change.p_fall for change in self.changes])
        return falls[[p.step for p in self.after_base].index(self.shape.dip_step)] <= ALPHA


def build_series(record: StudyResults) -> list[Series]:
    """The curves of every swept run: each group followed by its benchmarks.

    Final changes are corrected for the run's groups together, and for its benchmarks together.
    """
    series: list[Series] = []
    for run in record.swept:
        of_run: list[Series] = []
        for group in record.groups:
            members = [_benchmark_series(record, run, b.name, group) for b in record.in_group(group)]
            members = [member for member in members if member.points]
            whole = _group_series(record, run, group, members)
            of_run += [whole, *members] if whole else members
        series += _corrected(of_run)
    return series


def _corrected(series: Sequence[Series]) -> list[Series]:
    """The curves with their final p-values adjusted: groups are one family, benchmarks another."""
    corrected = list(series)
    for is_group in (True, False):
        places = [i for i, s in enumerate(series) if s.changes and s.is_group == is_group]
        for i, p in zip(places, holm([series[i].final.p for i in places]), strict=True):
            corrected[i] = replace(series[i], p_final=p)
    return corrected


def distinct(series: Sequence[Series]) -> list[Series]:
    """All curves but those of a benchmark that is alone in its group: the group says the same."""
    groups = {(s.run, s.group) for s in series if s.is_group}
    members = Counter((s.run, s.group) for s in series if not s.is_group)
    return [s for s in series if s.is_group or (s.run, s.group) not in groups or members[s.run, s.group] > 1]


def base_unit(record: StudyResults, run: RunResults, benchmark: str) -> UnitScores | None:
    """The unit of the weights the run started from: its own step 0, or else its parent's snapshot."""
    if (0, benchmark) in run.units:
        return run.units[0, benchmark]
    parent = next((other for other in record.runs if other.name == run.parent), None)
    if parent is None:
        return None
    start = parse_init(run.config.init)
    last = max(parent.expected_steps, default=0)
    step = last if start is None or start.step is None else start.step
    return parent.units.get((step, benchmark))


def _benchmark_series(record: StudyResults, run: RunResults, benchmark: str, group: str) -> Series:
    units = [u for (_, b), u in sorted(run.units.items()) if b == benchmark and u.judged]
    start = base_unit(record, run, benchmark)
    base = _point(start) if start is not None and start.judged else None
    better = units[0].higher_is_better if units else True
    series = Series(
        run=run.name,
        name=benchmark,
        group=group,
        is_group=False,
        points=tuple(_point(unit) for unit in units),
        base=base,
        higher_is_better=better,
        is_share=record.is_share(benchmark),
    )
    later = [unit for unit in units if start is None or unit is not start]
    if start is None or base is None:
        return series
    changes = [unit_change(start, unit, series.is_share) for unit in later]
    return _with_shape(series, changes, [[item_changes(start, unit) for unit in later]])


def _group_series(
    record: StudyResults, run: RunResults, group: str, members: Sequence[Series]
) -> Series | None:
    """The mean over the group's benchmarks, at the steps where every one of them is there."""
    shares = [member for member in members if member.is_share]
    wanted = [b for b in record.in_group(group) if record.is_share(b.name)]
    if not shares or len(shares) < len(wanted):
        return None
    common = set.intersection(*({p.step for p in member.points} for member in shares))
    points = [_mean_point(step, [_oriented(_at(m, step), m) for m in shares]) for step in sorted(common)]
    if not points:
        return None
    bases = [_oriented(m.base, m) for m in shares if m.base is not None]
    base = _mean_point(bases[0].step, bases) if len(bases) == len(shares) else None
    series = Series(run.name, group, group, True, tuple(points), base)
    if base is None:
        return series
    bases_of = {member.name: base_unit(record, run, member.name) for member in shares}
    steps = [point.step for point in series.after_base]
    pairs = [[item_changes(bases_of[m.name], run.units[step, m.name]) for step in steps] for m in shares]
    changes = []
    for i, point in enumerate(series.after_base):
        parts = [_change_at(member, point.step) for member in shares]
        known = [change_I for of in pairs if (change_I := of[i]) is not None]
        if len(known) == len(pairs):
            changes.append(mean_change(parts, known))
        else:
            items = sum(part.items for part in parts)
            changes.append(unpaired_change(_interval(base), _interval(point), items))
    return _with_shape(series, changes, pairs)


def _with_shape(
    series: Series, changes: Sequence[Change], pairs: Sequence[Sequence[np.ndarray | None]]
) -> Series:
    """Add the shape and what it is judged by: changes, and each benchmark's item changes at each step."""
    base, later = series.base, series.after_base
    if base is None or not later:
        return series
    scores = [_oriented(point, series).score for point in later]
    shape = describe([p.step for p in later], scores, _oriented(base, series).score)
    known = [[of for of in steps if of is not None] for steps in pairs]
    whole = all(len(of) == len(later) for of in known)
    elsewhere = held_out_best([np.stack(of, axis=1) for of in known]) if whole else float("nan")
    return replace(series, shape=shape, changes=tuple(changes), best_elsewhere=elsewhere)


def _change_at(series: Series, step: int) -> Change:
    steps = [p.step for p in series.after_base]
    return series.changes[steps.index(step)]


def _point(unit: UnitScores) -> Point:
    return Point(
        unit.step,
        unit.score,
        unit.low,
        unit.high,
        unit.mean_tokens,
        unit.truncation_rate,
        unit.no_answer_rate,
    )


def _at(series: Series, step: int) -> Point:
    return next(point for point in series.points if point.step == step)


def _oriented(point: Point, series: Series) -> Point:
    """The point with higher meaning better: 1 - score for a share, -score for any other number."""
    if series.higher_is_better:
        return point
    top = 1.0 if series.is_share else 0.0
    return Point(
        point.step,
        top - point.score,
        top - point.high,
        top - point.low,
        point.tokens,
        point.truncated,
        point.unanswered,
    )


def _mean_point(step: int, points: Sequence[Point]) -> Point:
    score, low, high = mean_interval(
        [p.score for p in points], [p.low for p in points], [p.high for p in points]
    )
    rest = (_mean([getattr(p, name) for p in points]) for name in ("tokens", "truncated", "unanswered"))
    return Point(step, score, low, high, *rest)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if values and len(known) == len(values) else None


def _interval(point: Point) -> tuple[float, float, float]:
    return point.score, point.low, point.high
