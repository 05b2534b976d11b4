"""How far a gain reaches: group gains beside the transferability index of Huan et al. (arXiv 2507.00432).

The index divides the mean relative gain of a group by that of the trained domain. It misleads when either
is not positive (two losses make a large positive index) or when a benchmark's base is near zero, so every
index comes with its gains and with flags.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jax_sft.analysis.series import Series

SMALL_BASE = 0.05
"""Base share under which a relative gain says more about the base than about the gain."""


@dataclass(frozen=True)
class Transfer:
    """One group's gain of one run against the in-domain gain."""

    run: str
    group: str
    gain: float
    """Mean over benchmarks of final minus base, oriented; a share."""
    low: float
    high: float
    relative_gain: float | None
    """Mean over benchmarks of (final - base) / base; None when a base is zero."""
    index: float | None
    """100 x relative gain / in-domain relative gain; None for the domain itself or where it is undefined."""
    real: bool
    """Whether the gain is larger than noise, corrected for the run's other groups."""
    flags: tuple[str, ...]
    """Reasons not to read the index as transfer; empty when there are none."""


def transfers(series: Sequence[Series], run: str) -> list[Transfer]:
    """Transfer of one run to each of its groups, the trained domain first."""
    groups = [s for s in series if s.run == run and s.is_group and s.shape is not None]
    relative = {group.name: _relative_gain(series, group) for group in groups}
    domain = next((group for group in groups if group.name == "in_domain"), None)
    rows = []
    for group in groups:
        assert group.shape is not None
        gain, reasons = relative[group.name]
        index = None
        if domain is not None and group is not domain:
            domain_gain, domain_reasons = relative["in_domain"]
            reasons = [*reasons, *domain_reasons, *_sign_flags(gain, domain_gain, domain)]
            if gain is not None and domain_gain:
                index = 100 * gain / domain_gain
        rows.append(
            Transfer(
                run,
                group.name,
                group.shape.final_gain,
                group.final.low,
                group.final.high,
                gain,
                index,
                group.final_is_real,
                tuple(dict.fromkeys(reasons)),
            )
        )
    return rows


def _relative_gain(series: Sequence[Series], group: Series) -> tuple[float | None, list[str]]:
    """Mean relative gain over the group's benchmarks, and what is wrong with it."""
    members = [s for s in series if s.run == group.run and s.group == group.name and not s.is_group]
    shapes = [(m.name, m.shape) for m in members if m.is_share and m.shape is not None]
    zero = [name for name, shape in shapes if shape.base == 0]
    if zero:
        return None, [f"base is zero on {', '.join(zero)}"]
    small = [name for name, shape in shapes if shape.base < SMALL_BASE]
    reasons = [f"small base on {', '.join(small)}"] if small else []
    return sum(shape.final_gain / shape.base for _, shape in shapes) / len(shapes), reasons


def _sign_flags(gain: float | None, domain_gain: float | None, domain: Series) -> list[str]:
    if domain_gain is None:
        return []
    if domain_gain <= 0:
        both = gain is not None and gain < 0
        return ["in-domain gain is not positive" + ("; two losses look like transfer" if both else "")]
    return [] if domain.final_is_real else ["in-domain gain is within noise"]
