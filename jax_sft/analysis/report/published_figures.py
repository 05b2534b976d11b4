"""Printed numbers over a benchmark's curves: hollow diamonds on a dotted line, in the colour of the run."""

from collections.abc import Sequence

import altair as alt

from jax_sft.analysis.published import published_of
from jax_sft.analysis.series import Series
from jax_sft.analysis.verdicts import value
from jax_sft.config import BenchmarkConfig
from jax_sft.pages.style import Layers, Legend, Look, only_shown

CAPTION = " Diamonds: what arXiv 2604.06628 printed of runs of these names."


def with_published(
    chart: Layers,
    series: Sequence[Series],
    benchmark: BenchmarkConfig,
    look: Look,
    legend: Legend,
    axis: tuple[alt.X, alt.Y],
) -> Layers:
    """The chart of a benchmark's scores, with what was printed of its runs; as it is where nothing was."""
    data = [
        {
            "run": s.run,
            "step": each.step,
            "score": each.score,
            "value": value(each.score, s.is_share),
            "source": f"{each.source}, certainty {each.certainty}",
        }
        for s in series
        for each in published_of(s.run, benchmark)
    ]
    if not data:
        return chart
    x, y = axis
    printed = only_shown(alt.Chart(look.data(data))).encode(x=x, y=y, color=look.colour(legend))
    line = printed.mark_line(strokeWidth=1.2, strokeDash=[1, 3])
    dots = printed.mark_point(shape="diamond", size=46, filled=False, opacity=1)
    tooltip = ["run:N", "step:Q", "value:N", "source:N"]
    return alt.layer(chart, line, dots.encode(tooltip=tooltip))
