"""How every figure looks: colours of runs, the step axis, and altair's configuration."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
"""Okabe and Ito's colours, told apart by colour-blind readers; without yellow, which fades on white."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1])
"""One dash pattern for every round through the palette."""
GREY, SOFT, INK, HAIRLINE = "#8A8F98", "#57606A", "#1F2328", "#E6E8EB"
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, sans-serif"
PAGE_WIDTH = 1120
"""Pixels a figure may fill."""
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""Version of Vega-Lite that draws the charts, in the page as in the files: the one altair writes for."""
Legend = Sequence[str]
"""Runs that a figure's legend names."""
Layers = alt.Chart | alt.LayerChart | alt.FacetChart
SHARED = "shared base"
"""Stands in for a run's name where several runs have one and the same base line."""


CONFIG: dict[str, Any] = {
    "font": FONT,
    "background": "white",
    "padding": 6,
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": SOFT,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "gridColor": HAIRLINE,
        "domainColor": "#AEB4BC",
        "tickColor": "#AEB4BC",
        "tickSize": 4,
        "titlePadding": 7,
    },
    "title": {
        "anchor": "start",
        "fontSize": 13,
        "fontWeight": 600,
        "color": INK,
        "subtitleColor": SOFT,
        "subtitleFontSize": 11,
        "offset": 8,
    },
    "legend": {"labelFontSize": 12, "labelColor": INK, "symbolSize": 180},
    "concat": {"spacing": 26},
}


class Look:
    """Colours and step axis of one study: the same in every figure."""

    def __init__(self, runs: Sequence[str], steps: Sequence[int]) -> None:
        self.runs = list(runs)
        self.steps = sorted(set(steps)) or [0]
        self._constant = min((step for step in self.steps if step > 0), default=1)
        self._data: dict[str, list[dict[str, Any]]] = {}

    def data(self, values: list[dict[str, Any]]) -> alt.NamedData:
        """Rows for a chart of the figure being made, by name: altair would copy them again and again."""
        name = f"data{len(self._data)}"
        self._data[name] = values
        return alt.NamedData(name=name)

    def take_data(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of the figure being made, by name; the next figure begins with none."""
        taken, self._data = self._data, {}
        return taken

    def colour_of(self, run: str) -> str:
        """The run's colour."""
        return PALETTE[self.runs.index(run) % len(PALETTE)]

    def dash_of(self, run: str) -> list[int]:
        """The run's dash pattern: solid for as many runs as there are colours."""
        return DASHES[self.runs.index(run) // len(PALETTE) % len(DASHES)]

    def colour(self, legend: Legend) -> alt.Color:
        """Encodes `run`; the legend at the top names the given runs."""
        scale = alt.Scale(domain=[*self.runs, SHARED], range=[*map(self.colour_of, self.runs), GREY])
        shown = alt.Legend(
            title=None,
            orient="top",
            symbolType="stroke",
            symbolStrokeWidth=3,
            symbolOpacity=1,
            values=list(legend),
            columns=6,
        )
        return alt.Color("run:N", scale=scale, legend=shown)

    def dash(self) -> alt.StrokeDash:
        """Encodes `run` by dash pattern."""
        scale = alt.Scale(domain=[*self.runs, SHARED], range=[*map(self.dash_of, self.runs), [4, 3]])
        return alt.StrokeDash("run:N", scale=scale, legend=None)

    def step_axis(self, width: int, title: str = "step (log scale)") -> alt.X:
        """Steps on an axis that is logarithmic from the first snapshot on and still shows step 0."""
        scale = alt.Scale(type="symlog", constant=self._constant, domain=[0, self.steps[-1]], nice=False)
        axis = alt.Axis(values=self.ticks(width), format=",d", grid=False, labelFlush=False)
        return alt.X("step:Q", scale=scale, axis=axis, title=title)

    def ticks(self, width: int) -> list[int]:
        """Snapshot steps with room for their labels on an axis of that many pixels; first and last always."""
        last = self.position(self.steps[-1]) or 1.0
        chosen: list[int] = []
        for step in reversed(self.steps):
            room = 7 * len(f"{step:,}") + 6
            if not chosen or width * (self.position(chosen[-1]) - self.position(step)) / last >= room:
                chosen.append(step)
        return chosen[::-1]

    def position(self, step: float) -> float:
        """Where a step lies on the axis, in arbitrary units from 0."""
        return math.log1p(step / self._constant)


def panel(chart: Layers, **properties: Any) -> dict[str, Any]:
    """One panel of a figure. Panels are put together as plain data: altair would copy them at every step."""
    spec = chart.properties(**properties).to_dict(validate=False)
    return {name: value for name, value in spec.items() if name not in ("$schema", "config")}


def draw(spec: dict[str, Any]) -> str:
    """The picture (SVG) of a specification, or of panels, drawn by the version that pages load."""
    whole = {"$schema": alt.SCHEMA_URL, "config": CONFIG, **spec}
    return vl_convert.vegalite_to_svg(whole, vl_version=VEGA_LITE)


def finish(layout: dict[str, Any], look: Look) -> dict[str, Any]:
    """The specification: shared colours, the parameter that hides runs, the look of axes, and the data.

    `layout` holds panels under `hconcat`, `vconcat` or `concat`.
    """
    return {
        "$schema": alt.SCHEMA_URL,
        "config": CONFIG,
        "params": [{"name": "shown", "value": look.runs}],
        "resolve": {"scale": {"color": "shared", "strokeDash": "shared"}},
        "datasets": look.take_data(),
        **layout,
    }


def only_shown(chart: Any) -> Any:
    """Leave out the runs that the reader has switched off."""
    return chart.transform_filter(f"datum.run === '{SHARED}' || indexof(shown, datum.run) >= 0")


@dataclass(frozen=True)
class Figure:
    """A chart with its file name, heading and the sentence that explains it."""

    name: str
    title: str
    caption: str
    spec: dict[str, Any]
    """Vega-Lite, with a legend of its own."""

    @property
    def page_spec(self) -> dict[str, Any]:
        """The same without the legend: the page has one for all figures."""
        return _without_legends(self.spec)


def _without_legends(spec: Any) -> Any:
    if isinstance(spec, list):
        return [_without_legends(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    return {
        name: part if name in ("datasets", "config") else None if name == "legend" else _without_legends(part)
        for name, part in spec.items()
    }
