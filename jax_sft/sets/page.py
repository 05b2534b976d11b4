"""The page of sets: their numbers side by side, and figures of lengths, answers and habits of speech."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from etils import epath

from jax_sft.files import write_atomically
from jax_sft.pages.page import page_templates
from jax_sft.pages.style import PALETTE, draw, panel
from jax_sft.sets.describe import SetDescription, comparison

EDGES_PER_DOUBLING = 3
"""Of the histogram of lengths."""
WIDTH = 720
"""Pixels of a figure."""


def write_page(descriptions: Sequence[SetDescription], path: epath.PathLike) -> None:
    """Write the numbers and the figures of some sets as one HTML file that needs no other."""
    page = page_templates("jax_sft.sets", "templates").get_template("sets.html.jinja")
    figures = [(caption, draw(spec)) for caption, spec in charts(descriptions)]
    names = [description.name for description in descriptions]
    write_atomically(path, page.render(names=names, rows=comparison(descriptions), figures=figures))


def charts(descriptions: Sequence[SetDescription]) -> list[tuple[str, dict[str, Any]]]:
    """Caption and panel of each figure; that of habits only where some were counted."""
    colour = _colour([description.name for description in descriptions])
    lengths = (
        alt.Chart(alt.Data(values=length_histogram(descriptions)))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("tokens:Q", scale=alt.Scale(type="log", base=2, nice=False), title="tokens of a row"),
            y=alt.Y("share:Q", axis=alt.Axis(format="%"), title="share of rows"),
            color=colour,
        )
    )
    answers = [
        {"set": description.name, "kind": kind, "value": share}
        for description in descriptions
        for kind, share in description.answers.items()
    ]
    habits = [
        {"set": description.name, "kind": kind, "value": value}
        for description in descriptions
        for kind, value in description.behaviours.items()
        if kind != "loops"
    ]
    figures = [
        ("Share of rows by their tokens, three bins to a doubling.", panel(lengths, width=WIDTH, height=240)),
        ("Share of rows whose response answers in each form.", _bars(answers, "share of rows", "%", colour)),
    ]
    if habits:
        figures.append(
            (
                "Phrases that count as a habit, in 1,000 tokens of responses.",
                _bars(habits, "phrases per 1,000 tokens", ".1f", colour),
            )
        )
    return figures


def length_histogram(descriptions: Sequence[SetDescription]) -> list[dict[str, Any]]:
    """Share of each set's rows between edges that are equally far apart in the logarithm."""
    longest = max(description.longest_row for description in descriptions)
    count = int(np.ceil(np.log2(longest + 1) * EDGES_PER_DOUBLING)) + 1
    edges = 2 ** (np.arange(count + 1) / EDGES_PER_DOUBLING)
    return [
        {"set": description.name, "tokens": float(edge), "share": float(rows / description.rows)}
        for description in descriptions
        for edge, rows in zip(edges[:-1], np.histogram(description.lengths, edges)[0], strict=True)
    ]


def _colour(names: list[str]) -> alt.Color:
    """Encodes the set; without a legend where there is only one."""
    scale = alt.Scale(domain=names, range=[PALETTE[place % len(PALETTE)] for place in range(len(names))])
    legend = alt.Legend(title=None, orient="top") if len(names) > 1 else None
    return alt.Color("set:N", scale=scale, legend=legend)


def _bars(values: list[dict[str, Any]], title: str, number: str, colour: alt.Color) -> dict[str, Any]:
    bars = (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            y=alt.Y("kind:N", title=None, sort=None),
            x=alt.X("value:Q", axis=alt.Axis(format=number), title=title),
            yOffset=alt.YOffset("set:N", sort=None),
            color=colour,
        )
    )
    return panel(bars, width=WIDTH, height=alt.Step(12))
