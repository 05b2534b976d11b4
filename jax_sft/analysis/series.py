"""Scores of a run over its snapshots, per benchmark and per group, with base, shape and noise."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jax_sft.analysis.curves import CurveShape, describe
from jax_sft.analysis.study import RunResults, StudyResults
from jax_sft.statistics.bootstrap import ChangeBands, change_bands
from jax_sft.statistics.intervals import change_interval, item_correlation, mean_interval
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

    Points carry the benchmark's own direction; shape and bands are oriented so that higher is better.
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
    bands: ChangeBands | None = None
    """Over the points after the base; None where items cannot be paired."""
    paired: bool = False
    final_low: float = float("nan")
    """95% interval of the final gain."""
    final_high: float = float("nan")

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
    def final_is_real(self) -> bool:
        """Whether the final gain's 95% interval leaves out zero."""
        return self.shape is not None and (self.final_low > 0 or self.final_high < 0)

    @property
    def dip_is_real(self) -> bool:
        """Whether the dip is larger than noise, allowing for its being the lowest of all snapshots."""
        if self.shape is None or self.shape.dip_step is None:
            return False
        i = [p.step for p in self.after_base].index(self.shape.dip_step)
        if self.bands is not None:
            return bool(self.bands.mean[i] + self.bands.margin[i] < 0)
        assert self.base is not None
        _, low, high = change_interval(_interval(self.base), _interval(self.after_base[i]))
        return low > 0 or high < 0


def build_series(record: StudyResults) -> list[Series]:
    """The curves of every swept run: each group followed by its benchmarks."""
    series = []
    for run in record.swept:
        for group in record.groups:
            members = [_benchmark_series(record, run, b.name, group) for b in record.in_group(group)]
            members = [member for member in members if member.points]
            whole = _group_series(record, run, group, members)
            series += [whole, *members] if whole else members
    return series


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
    changes = _paired_changes(start, later, 1 if better else -1) if start is not None else None
    if changes is None or start is None:
        return _with_shape(series, None)
    last = later[-1].item_scores
    correlation = item_correlation(
        *zip(*((start.item_scores[item], last[item]) for item in last), strict=True)
    )
    return _with_shape(series, [changes], correlation)


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
    steps = [p.step for p in series.after_base]
    changes = []
    for member in shares:
        start = base_unit(record, run, member.name)
        later = [run.units[step, member.name] for step in steps]
        sign = 1 if member.higher_is_better else -1
        changes.append(_paired_changes(start, later, sign) if start is not None else None)
    usable = [change for change in changes if change is not None]
    whole = _with_shape(series, usable if len(usable) == len(changes) else None)
    finals = [member for member in shares if member.shape and member.points[-1].step == points[-1].step]
    if whole.shape is None or len(finals) < len(shares):
        return whole
    _, low, high = mean_interval(
        [member.shape.final_gain for member in finals if member.shape],
        [member.final_low for member in finals],
        [member.final_high for member in finals],
    )
    return replace(whole, final_low=low, final_high=high)


def _with_shape(series: Series, changes: list[np.ndarray] | None, correlation: float = 0.0) -> Series:
    """Add shape, bands and the interval of the final gain, whose two scores correlate so over the items."""
    base, later = series.base, series.after_base
    if base is None or not later:
        return series
    oriented = [_oriented(point, series) for point in later]
    start = _oriented(base, series)
    shape = describe([p.step for p in oriented], [p.score for p in oriented], start.score)
    bands = change_bands(changes) if changes else None
    _, low, high = change_interval(_interval(start), _interval(oriented[-1]), correlation)
    return replace(series, shape=shape, bands=bands, paired=bands is not None, final_low=low, final_high=high)


def _paired_changes(base: UnitScores, later: Sequence[UnitScores], sign: int) -> np.ndarray | None:
    """Item-wise changes against the base, [items, steps]; None unless all units judge the same items."""
    items = list(base.item_scores)
    if not items or not later or any(set(unit.item_scores) != set(items) for unit in later):
        return None
    start_I = np.array([base.item_scores[item] for item in items])
    after_IS = np.array([[unit.item_scores[item] for unit in later] for item in items])
    return sign * (after_IS - start_I[:, None])


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
