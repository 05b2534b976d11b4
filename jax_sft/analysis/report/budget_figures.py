"""Figures of scores at smaller token budgets, and the same numbers as a table."""

from collections.abc import Sequence
from typing import Any

import altair as alt
from etils import epath

from jax_sft.analysis.budgets import BudgetPoint
from jax_sft.analysis.report.tables import write_csv
from jax_sft.analysis.series import GROUP_TITLES
from jax_sft.analysis.study import StudyResults
from jax_sft.analysis.verdicts import value
from jax_sft.pages.style import GREY, HAIRLINE, PAGE_WIDTH, Figure, Look, finish, panel

PALEST = 0.3
"""How much of a run's colour the first snapshot after the base has."""
COLUMNS = 4
CAPTION = (
    "The score if outputs had been cut at fewer tokens: an output counts with its verdict if it ended within "
    "the budget, otherwise as wrong. Grey, dashed: the first snapshot; later ones are darker, the last named."
)


def budget_scores(
    record: StudyResults, points: Sequence[BudgetPoint], group: str, look: Look
) -> Figure | None:
    """Score against budget: a panel for each benchmark of the group and run, a line for each snapshot."""
    panels = []
    for benchmark in record.in_group(group):
        for run in look.runs:
            of = [p for p in points if (p.benchmark, p.run) == (benchmark.name, run)]
            if of:
                title = alt.TitleParams(benchmark.name, subtitle=run, fontSize=12)
                panels.append(panel(_lines(of, run, look), title=title))
    if not panels:
        return None
    spec = finish({"concat": panels, "columns": COLUMNS}, look)
    return Figure(f"budgets_{group}", f"{GROUP_TITLES[group]}: token budgets", CAPTION, spec)


def write_budgets(study: str, points: Sequence[BudgetPoint], folder: epath.Path) -> None:
    """Write the points as budgets.csv into `folder`."""
    columns: dict[str, list[Any]] = {"study": [study] * len(points)}
    of_points = ("run", "step", "benchmark", "tokens", "ended")
    columns |= {name: [getattr(p, name) for p in points] for name in of_points}
    columns |= {name: [getattr(p.score, name) for p in points] for name in ("mean", "low", "high", "n")}
    write_csv(columns, folder / "budgets.csv")


def _lines(points: Sequence[BudgetPoint], run: str, look: Look) -> alt.LayerChart:
    steps = sorted({point.step for point in points})
    longest = max(point.tokens for point in points)
    data = [_row(point, steps, look.colour_of(run), longest) for point in points]
    shortest = min(point.tokens for point in points)
    domain = alt.Scale(type="log", base=2, domain=[shortest, max(longest, shortest + 1)], nice=False)
    x = alt.X(
        "tokens:Q", title="token budget", scale=domain, axis=alt.Axis(format=",d", tickCount=5, grid=False)
    )
    share = alt.Axis(format=".0%", tickCount=5, domain=False, ticks=False, gridColor=HAIRLINE)
    highest = max(row["score"] for row in data)
    # A nice scale would go on to 120%.
    scale = (
        alt.Scale(domain=[0, 1.04]) if highest > 0.8 else alt.Scale(domain=[0, max(highest, 0.05)], nice=5)
    )
    y = alt.Y("score:Q", title="score", axis=share, scale=scale)
    colour = alt.Color("colour:N", scale=None)
    chart = alt.Chart(look.data(data)).encode(x=x, y=y, color=colour)
    dash = alt.StrokeDash("first:N", scale=alt.Scale(domain=[0, 1], range=[[1, 0], [4, 3]]), legend=None)
    line = chart.mark_line(strokeWidth=1.7).encode(detail="step:N", strokeDash=dash)
    dots = chart.mark_circle(size=16, opacity=1).encode(
        tooltip=["run:N", "step:Q", "tokens:Q", "value:N", "ended:N"]
    )
    end = chart.transform_filter("datum.end === 1").mark_text(align="left", dx=5, fontSize=10)
    width = (PAGE_WIDTH - 75 * COLUMNS) // COLUMNS
    layers = [line, dots, end.encode(text="step:N")]
    return alt.layer(*layers).properties(width=width, height=150).resolve_scale(strokeDash="independent")


def _row(point: BudgetPoint, steps: Sequence[int], colour: str, longest: int) -> dict[str, Any]:
    first = point.step == steps[0] and len(steps) > 1
    depth = steps.index(point.step) / max(len(steps) - 1, 1) if len(steps) > 1 else 1.0
    return {
        "run": point.run,
        "step": point.step,
        "tokens": point.tokens,
        "score": point.score.mean,
        "value": f"{value(point.score.mean, True)} ({value(point.score.low, True)} to "
        f"{value(point.score.high, True)})",
        "ended": value(point.ended, True),
        "colour": GREY if first else _tint(colour, PALEST + (1 - PALEST) * depth),
        "first": int(first),
        "end": int(point.step == steps[-1] and point.tokens == longest),
    }


def _tint(colour: str, strength: float) -> str:
    """The colour (#RRGGBB) mixed with white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - strength * (255 - part)):02X}" for part in parts)
