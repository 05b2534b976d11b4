"""Curves the size of a word, for the verdict tables."""

from markupsafe import Markup

from jax_sft.analysis.series import Series
from jax_sft.pages.style import GREY, Look

WIDTH, HEIGHT, MARGIN = 112, 30, 5
SMALLEST_SPAN = 0.2
"""Scores are drawn over at least this range, so that noise does not look like a landslide."""


def swatch(run: str, look: Look) -> Markup:
    """The colour and dashes of a run as a short line of inline SVG."""
    dashes = " ".join(map(str, look.dash_of(run))) if look.dash_of(run) != [1, 0] else "none"
    line = f'<line x1="0" x2="22" y1="5" y2="5" stroke="{look.colour_of(run)}" stroke-width="4"'
    return Markup(f'<svg class="swatch" width="22" height="10">{line} stroke-dasharray="{dashes}"/></svg>')


def sparkline(series: Series, look: Look) -> Markup:
    """The curve as inline SVG: dashed base, line over log steps, a ring at the dip and a dot at the end."""
    scores = [p.score for p in series.points] + ([series.base.score] if series.base else [])
    low, high = min(scores), max(scores)
    least = SMALLEST_SPAN if series.is_share else 1e-9
    missing = max(0.0, least - (high - low)) / 2
    low, high = low - missing, high + missing
    last = look.position(look.steps[-1]) or 1.0

    def x(step: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * look.position(step) / last

    def y(score: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (score - low) / (high - low)

    colour = look.colour_of(series.run)
    line = " ".join(f"{x(p.step):.1f},{y(p.score):.1f}" for p in series.points)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>']
    if series.base is not None:
        level = f"{y(series.base.score):.1f}"
        ends = f'x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{level}" y2="{level}"'
        parts.insert(0, f'<line {ends} stroke="{GREY}" stroke-dasharray="3 2"/>')
    dip = series.shape.dip_step if series.shape and series.dip_is_real else None
    for point in series.points:
        place = f'cx="{x(point.step):.1f}" cy="{y(point.score):.1f}"'
        if point is series.points[-1]:
            parts.append(f'<circle {place} r="2.8" fill="{colour}"/>')
        elif point.step == dip:
            parts.append(f'<circle {place} r="2.8" fill="#fff" stroke="{colour}" stroke-width="1.4"/>')
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return Markup(f'<svg class="spark" {size} aria-hidden="true">{"".join(parts)}</svg>')
