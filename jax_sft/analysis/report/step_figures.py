"""Figures over steps: scores, lengths, truncation, behaviours and the training curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from jax_sft.analysis.report.published_figures import with_published
from jax_sft.analysis.series import GROUP_TITLES, Point, Series
from jax_sft.analysis.study import RunResults, StudyResults
from jax_sft.analysis.verdicts import value
from jax_sft.pages.style import (
    HAIRLINE,
    PAGE_WIDTH,
    SHARED,
    Figure,
    Layers,
    Legend,
    Look,
    finish,
    only_shown,
    panel,
)
from jax_sft.responses.habits import PHRASES

TRAINING_POINTS = 240
"""Points of a training curve; longer ones show means of equal stretches of steps."""
FULL_SCALE = [0, 1.04]
"""All shares, with room for the dot at 100%."""
BENCHMARK_CAPTION = (
    "Left: score with its 95% interval; dashed: the start weights. Middle: mean length of completions. "
    "Right: share of completions cut at the token limit (solid) and without an answer to judge (dotted)."
)
Behaviours = Mapping[tuple[str, str, int], dict[str, float]]
"""(run, group, step) -> what its completions do."""


def group_scores(record: StudyResults, series: Sequence[Series], look: Look, legend: Legend) -> Figure | None:
    """Score against step for every group, side by side."""
    groups = [group for group in record.groups if any(s.is_group and s.name == group for s in series)]
    if not groups:
        return None
    width = (PAGE_WIDTH - 70 * len(groups)) // max(len(groups), 2)
    panels = []
    for group in groups:
        members = [s for s in series if s.is_group and s.name == group]
        names = ", ".join(b.name for b in record.in_group(group) if record.is_share(b.name))
        title = alt.TitleParams(GROUP_TITLES[group], subtitle=_clipped(names, width))
        chart = _scores(members, look, legend, width, 230, "score", alt.Scale(domain=FULL_SCALE))
        panels.append(panel(chart, title=title))
    caption = (
        "Mean over the group's benchmarks, equally weighted. Band: 95% interval. Dashed: the start weights."
    )
    return Figure("scores_by_group", "Score by group", caption, finish({"hconcat": panels}, look))


def benchmark_scores(
    record: StudyResults, series: Sequence[Series], group: str, look: Look, legend: Legend
) -> Figure | None:
    """For each benchmark of a group: score, completion length, and truncation beside each other."""
    lines = []
    for benchmark in record.in_group(group):
        members = [s for s in series if not s.is_group and s.name == benchmark.name and s.points]
        if not members:
            continue
        unit = next(u for run in record.runs for (_, b), u in run.units.items() if b == benchmark.name)
        better = "" if members[0].higher_is_better else ", lower is better"
        label = f"{unit.headline}{better}".replace("_", " ")
        title = alt.TitleParams(benchmark.name, subtitle=f"{benchmark.task}, {unit.items:,} items")
        scale = alt.Scale(zero=False, nice=True)
        score = _scores(members, look, legend, 400, 170, label, scale)
        axis = look.step_axis(400), alt.Y("score:Q", title=label, scale=scale)
        score = with_published(score, members, benchmark, look, legend, axis)
        length = _lines(_length_rows(members), look, legend, 268, 170, "tokens per completion", ",d")
        panels = [panel(score, title=title), panel(length), panel(_rates(members, look, legend))]
        lines.append({"hconcat": panels, "spacing": 34})
    if not lines:
        return None
    chart = finish({"vconcat": lines}, look)
    return Figure(f"benchmarks_{group}", f"{GROUP_TITLES[group]} benchmarks", BENCHMARK_CAPTION, chart)


def behaviours_by_step(record: StudyResults, counts: Behaviours, look: Look, legend: Legend) -> Figure | None:
    """Phrases per 1,000 tokens by kind, and the share of completions ending in a loop, per group."""
    kinds = [kind for kind in (*PHRASES, "loops") if any(found[kind] for found in counts.values())]
    groups = [group for group in record.groups if any(key[1] == group for key in counts)]
    if not kinds:
        return None
    width = min(300, (PAGE_WIDTH - 62 * len(kinds)) // len(kinds))
    lines = []
    for group in groups:
        panels = []
        for kind in kinds:
            data = [
                {"run": run, "step": step, "y": found[kind], "value": f"{found[kind]:.3g}"}
                for (run, of, step), found in counts.items()
                if of == group
            ]
            loops = kind == "loops"
            unit = "ending in a loop" if loops else "per 1,000 tokens"
            chart = _lines(data, look, legend, width, 110, unit, ".0%" if loops else ".3~r")
            heading = f"{GROUP_TITLES[group]}: {kind}" if kind == kinds[0] else kind
            panels.append(panel(chart, title=alt.TitleParams(heading, fontSize=12)))
        lines.append({"hconcat": panels})
    caption = (
        "How often completions use words of each kind, whatever for, and how many end repeating themselves."
    )
    return Figure("behaviours", "What completions do", caption, finish({"vconcat": lines}, look))


def training(record: StudyResults, look: Look, legend: Legend) -> Figure | None:
    """Loss, gradient norm and learning rate of every run; runs from random weights in a line of their own."""
    fresh = [run for run in record.runs if run.training and run.config.init == "random"]
    tuned = [run for run in record.runs if run.training and run.config.init != "random"]
    lines = []
    for title, runs in (("Runs from trained weights", tuned), ("Runs from random weights", fresh)):
        if runs:
            panels = [
                _training_panel(runs, "loss", "loss, nats per target token", "linear", look, legend),
                _training_panel(runs, "gradient_norm", "gradient norm (log)", "log", look, legend),
                _training_panel(runs, "learning_rate", "learning rate", "linear", look, legend),
            ]
            panels[0]["title"] = title
            lines.append({"hconcat": panels})
    if not lines:
        return None
    caption = f"Long runs show means of equal stretches of steps, at most {TRAINING_POINTS} points a curve."
    return Figure("training", "Training", caption, finish({"vconcat": lines}, look))


def binned(lines: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of one training number, averaged over equal stretches when there are many lines."""
    known = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    known = [(step, number) for step, number in known if abs(number) < float("inf")]
    size = -(-len(known) // TRAINING_POINTS)
    stretches = [known[i : i + size] for i in range(0, len(known), size)] if size else []
    return [(sum(s for s, _ in of) / len(of), sum(v for _, v in of) / len(of)) for of in stretches]


def _training_panel(
    runs: Sequence[RunResults], name: str, title: str, scale: str, look: Look, legend: Legend
) -> dict[str, Any]:
    log = scale == "log"
    points = [(run.name, step, number) for run in runs for step, number in binned(run.training, name)]
    points = [point for point in points if point[2] > 0 or not log]
    data = [{"run": run, "step": step, "y": number} for run, step, number in points]
    label = "datum.value && datum.value < 0.01 ? format(datum.value, '~e') : format(datum.value, '.3~r')"
    axis = alt.Axis(format="~g", tickCount=5, grid=False) if log else alt.Axis(labelExpr=label, tickCount=5)
    y = alt.Y("y:Q", title=title, scale=alt.Scale(type="log") if log else alt.Scale(zero=True), axis=axis)
    last = max((step for _, step, _ in points), default=1)
    domain = alt.Scale(domain=[0, last], nice=False)
    x = alt.X("step:Q", title="step", scale=domain, axis=alt.Axis(grid=False, format=",d", tickCount=5))
    chart = alt.Chart(look.data(data)).mark_line(strokeWidth=1.5)
    encoded = chart.encode(x=x, y=y, color=look.colour(legend), strokeDash=look.dash())
    return panel(only_shown(encoded), width=(PAGE_WIDTH - 220) // 3, height=170)


def _scores(
    series: Sequence[Series],
    look: Look,
    legend: Legend,
    width: int,
    height: int,
    title: str,
    scale: alt.Scale,
) -> Layers:
    """Band, base line, line and points of one score."""
    share = series[0].is_share
    data = [_point_row(s.run, p, share) for s in series for p in s.points]
    alone = [row for s in series if len(s.points) == 1 for row in data if row["run"] == s.run]
    bases = _base_rows(series)
    x, colour = look.step_axis(width), look.colour(legend)
    y = alt.Y("score:Q", title=title, scale=scale, axis=_grid(".0%" if share else ".3~r"))
    low = alt.Y("low:Q", title=title, scale=scale)
    chart = only_shown(alt.Chart(look.data(data))).encode(x=x, color=colour)
    line = chart.mark_line(strokeWidth=2).encode(y=y, strokeDash=look.dash())
    tooltip = ["run:N", "step:Q", "value:N", "interval:N"]
    layers = [
        chart.mark_area(opacity=0.13 if len(series) <= 4 else 0.05).encode(y=low, y2="high:Q"),
        line,
        chart.mark_circle(size=34, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    if bases:
        rule = only_shown(alt.Chart(look.data(bases))).mark_rule(strokeDash=[4, 3], strokeWidth=1.2)
        layers.insert(1, rule.encode(y=y, color=colour))
    if alone:
        whisker = only_shown(alt.Chart(look.data(alone))).mark_rule(strokeWidth=1.5)
        layers.insert(1, whisker.encode(x=x, y=low, y2="high:Q", color=colour))
    return alt.layer(*layers).properties(width=width, height=height)


def _lines(
    data: list[dict[str, Any]], look: Look, legend: Legend, width: int, height: int, title: str, form: str
) -> Layers:
    """Line and points of one number that has no interval; y from zero."""
    # Nice, so that a tick is at the top of every panel: where titles stand depends on it.
    top = 1.05 * max((row["y"] for row in data), default=0) or 1.0
    y = alt.Y("y:Q", title=title, axis=_grid(form), scale=alt.Scale(domain=[0, top], nice=5))
    chart = only_shown(alt.Chart(look.data(data))).encode(
        x=look.step_axis(width), y=y, color=look.colour(legend)
    )
    line = chart.mark_line(strokeWidth=1.8).encode(strokeDash=look.dash())
    dots = chart.mark_circle(size=24, opacity=1).encode(tooltip=["run:N", "step:Q", "value:N"])
    return alt.layer(line, dots).properties(width=width, height=height)


def _rates(series: Sequence[Series], look: Look, legend: Legend) -> Layers:
    """Truncated (solid) and unanswered (dotted) shares."""
    kinds = (("cut at the limit", "truncated"), ("no answer", "unanswered"))
    data = [
        {"run": s.run, "step": p.step, "kind": kind, "y": share, "value": value(share, True)}
        for kind, field in kinds
        for s in series
        for p in s.points
        if (share := getattr(p, field)) is not None
    ]
    dash = alt.StrokeDash(
        "kind:N", scale=alt.Scale(domain=[kind for kind, _ in kinds], range=[[1, 0], [2, 3]]), legend=None
    )
    y = alt.Y(
        "y:Q", title="cut (solid), no answer (dotted)", scale=alt.Scale(domain=FULL_SCALE), axis=_grid(".0%")
    )
    chart = only_shown(alt.Chart(look.data(data))).encode(
        x=look.step_axis(268), y=y, color=look.colour(legend)
    )
    line = chart.mark_line(strokeWidth=1.8).encode(strokeDash=dash, detail="kind:N")
    dots = chart.mark_circle(size=20, opacity=1).encode(tooltip=["run:N", "step:Q", "kind:N", "value:N"])
    return alt.layer(line, dots).properties(width=268, height=170).resolve_scale(strokeDash="independent")


def _point_row(run: str, point: Point, share: bool) -> dict[str, Any]:
    return {
        "run": run,
        "step": point.step,
        "score": point.score,
        "low": point.low,
        "high": point.high,
        "value": value(point.score, share),
        "interval": f"{value(point.low, share)} to {value(point.high, share)}",
    }


def _length_rows(series: Sequence[Series]) -> list[dict[str, Any]]:
    return [
        {"run": s.run, "step": p.step, "y": p.tokens, "value": f"{p.tokens:,.0f} tokens"}
        for s in series
        for p in s.points
        if p.tokens is not None
    ]


def _base_rows(series: Sequence[Series]) -> list[dict[str, Any]]:
    """One rule per run, or a single grey one for all runs that start from the same score."""
    starts: dict[float, list[str]] = {}
    for s in series:
        if s.base is not None:
            starts.setdefault(s.base.score, []).append(s.run)
    return [{"run": of[0] if len(of) == 1 else SHARED, "score": score} for score, of in starts.items()]


def _grid(form: str) -> alt.Axis:
    return alt.Axis(format=form, tickCount=5, domain=False, ticks=False, gridColor=HAIRLINE)


def _clipped(text: str, width: int) -> str:
    room = max(12, width // 6)
    return text if len(text) <= room else text[: room - 1] + "…"
