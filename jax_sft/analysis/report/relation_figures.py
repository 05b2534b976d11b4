"""Figures that set numbers against each other: final gains, length and score, safety and reasoning."""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt

from jax_sft.analysis.series import GROUP_TITLES, Series, distinct
from jax_sft.analysis.study import StudyResults
from jax_sft.analysis.verdicts import change, value
from jax_sft.pages.style import (
    GREY,
    HAIRLINE,
    INK,
    PAGE_WIDTH,
    Figure,
    Layers,
    Legend,
    Look,
    finish,
    only_shown,
    panel,
)


def gains(series: Sequence[Series], look: Look, legend: Legend) -> Figure | None:
    """Final gain of every group and benchmark with its interval, runs one above the other."""
    shown = [s for s in distinct(series) if s.shape is not None and s.is_share]
    if not shown:
        return None
    names = {_key(s): s.title for s in shown}
    order = sorted(names, key=lambda key: (list(GROUP_TITLES).index(key.split("/")[0]), "/group/" not in key))
    table = alt.Chart(look.data([_gain_row(s) for s in shown]))
    choices = (f"datum.value === {json.dumps(key)} ? {json.dumps(name)}" for key, name in names.items())
    label = f"{' : '.join(choices)} : ''"
    weight = {"condition": {"test": "indexof(datum.value, '/group/') >= 0", "value": 600}, "value": 400}
    axis = alt.Axis(
        labelExpr=label, labelFontWeight=weight, ticks=False, domain=False, labelLimit=220, labelPadding=10
    )
    runs = [run for run in look.runs if any(s.run == run for s in shown)]
    gap = alt.Scale(paddingInner=0.35 if len(runs) <= 3 else 0.15)
    y = alt.Y("key:N", sort=order, title=None, axis=axis, scale=gap)
    offset = alt.YOffset("run:N", scale=alt.Scale(domain=runs))
    x_axis = alt.Axis(format="+d", gridColor=HAIRLINE, domain=False, ticks=False, tickCount=10)
    title = "final score minus base, points"
    x = alt.X("gain:Q", title=title, axis=x_axis)
    whole = only_shown(table).encode(
        y=y, yOffset=offset, color=look.colour(legend), tooltip=["run:N", "name:N", "change:N", "interval:N"]
    )
    zero = alt.Chart(look.data([{"zero": 0}])).mark_rule(color=INK).encode(x=alt.X("zero:Q", title=title))
    bars = whole.mark_rule(strokeWidth=2, opacity=0.55).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    dots = whole.mark_circle(size=64, opacity=1).encode(x=x)
    height = alt.Step(13, **{"for": "offset"}) if len(runs) > 1 else alt.Step(24)
    chart = panel(alt.layer(zero, bars, dots), width=PAGE_WIDTH - 150, height=height)
    caption = "Last snapshot minus start weights, with 95% intervals over items. Bold: the mean of a group."
    return Figure("gains", "Final gains", caption, finish({"hconcat": [chart]}, look))


def length_and_score(
    record: StudyResults, series: Sequence[Series], look: Look, legend: Legend
) -> Figure | None:
    """Mean completion length against score, one path through the snapshots for each run and benchmark."""
    panels = []
    # Room for the names of steps: one standing out above its panel would push the title out of line.
    room = alt.Scale(zero=False, nice=False, padding=18)
    for benchmark in record.benchmarks:
        data = [
            _path_row(s.run, p.step, p.tokens, p.score, s, [q.step for q in s.points])
            for s in series
            if s.name == benchmark.name and not s.is_group
            for p in s.points
            if p.tokens is not None
        ]
        if data:
            share = record.is_share(benchmark.name)
            x = alt.X("x:Q", title="tokens per completion", scale=room, axis=_axis(",d"))
            y = alt.Y("y:Q", title="score", scale=room, axis=_axis(".0%" if share else ".3~r"))
            panels.append(panel(_path(data, x, y, look, legend, 210, 180), title=benchmark.name))
    if not panels:
        return None
    caption = "Each path runs through the snapshots in order, from the ring to the named step."
    spec = finish({"concat": panels, "columns": 4}, look)
    return Figure("length_and_score", "Length and score", caption, spec)


def safety_and_reasoning(series: Sequence[Series], look: Look, legend: Legend) -> Figure | None:
    """Safety against in-domain and reasoning scores, one path through the snapshots for each run."""
    panels = []
    for group in ("in_domain", "reasoning"):
        data = []
        for run in look.runs:
            across = next((s for s in series if s.run == run and s.is_group and s.name == group), None)
            up = next((s for s in series if s.run == run and s.is_group and s.name == "safety"), None)
            if across is None or up is None:
                continue
            safety = {p.step: p.score for p in up.points}
            steps = [p.step for p in across.points if p.step in safety]
            data += [
                _path_row(run, p.step, p.score, safety[p.step], across, steps)
                for p in across.points
                if p.step in safety
            ]
        if data:
            domain = alt.Scale(domain=[0, 1.06], nice=False)
            x = alt.X("x:Q", title=f"{GROUP_TITLES[group]} score", scale=domain, axis=_axis(".0%"))
            y = alt.Y("y:Q", title="Safety score", scale=domain, axis=_axis(".0%"))
            panels.append(panel(_path(data, x, y, look, legend, (PAGE_WIDTH - 160) // 2, 320)))
    if not panels:
        return None
    caption = (
        "Up is safer, right is better. Paths run through the snapshots, from the ring to the named step."
    )
    spec = finish({"hconcat": panels}, look)
    return Figure("safety_and_reasoning", "Safety against reasoning", caption, spec)


def _path(
    data: list[dict[str, Any]], x: alt.X, y: alt.Y, look: Look, legend: Legend, width: int, height: int
) -> Layers:
    """A line through the points in the order of steps, its ends named."""
    tooltip = ["run:N", "step:Q", "across:N", "up:N"]
    chart = only_shown(alt.Chart(look.data(data))).encode(x=x, y=y, color=look.colour(legend))
    line = chart.mark_line(strokeWidth=1.3, opacity=0.6).encode(order="step:Q", strokeDash=look.dash())
    dots = chart.mark_circle(opacity=1).encode(
        size=alt.Size("last:Q", scale=alt.Scale(domain=[0, 1], range=[22, 60]), legend=None), tooltip=tooltip
    )
    start = chart.transform_filter("datum.first === 1").mark_point(size=70, fill="white", strokeWidth=1.8)
    names = chart.transform_filter("datum.last === 1").mark_text(dy=-9, fontSize=11, fontWeight=600)
    layers = [line, dots, start.encode(tooltip=tooltip), names.encode(text="step:Q")]
    return alt.layer(*layers).properties(width=width, height=height)


def _path_row(run: str, step: int, x: float, y: float, across: Series, steps: list[int]) -> dict[str, Any]:
    shown = value(x, True) if across.is_group else f"{x:,.0f} tokens"
    ends = {"first": int(step == steps[0]), "last": int(step == steps[-1])}
    return {
        "run": run,
        "step": step,
        "x": x,
        "y": y,
        **ends,
        "across": shown,
        "up": value(y, across.is_share),
    }


def _gain_row(s: Series) -> dict[str, Any]:
    assert s.shape is not None
    low, high = change(s.final.low, True), change(s.final.high, True)
    return {
        "run": s.run,
        "key": _key(s),
        "name": s.title,
        "gain": 100 * s.shape.final_gain,
        "low": 100 * s.final.low,
        "high": 100 * s.final.high,
        "change": f"{change(s.shape.final_gain, True)} points",
        "interval": f"{low} to {high}",
    }


def _key(s: Series) -> str:
    return f"{s.group}/{'group' if s.is_group else 'benchmark'}/{s.name}"


def _axis(form: str) -> alt.Axis:
    return alt.Axis(format=form, tickCount=5, gridColor=HAIRLINE, domainColor=GREY)
