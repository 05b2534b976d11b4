"""The transferability index against its formula, and the flags that keep it from misleading."""

import pytest

from jax_sft.analysis.curves import describe
from jax_sft.analysis.series import Point, Series
from jax_sft.analysis.transfer import Transfer, transfers
from jax_sft.statistics.changes import Change


def pair(group: str, base: float, final: float, real: bool = True) -> list[Series]:
    """A group of one benchmark going from base to final."""
    start, end = Point(0, base, base, base), Point(10, final, final, final)
    shape = describe([10], [final], base)
    gain = final - base
    p = 0.001 if real else 0.4
    of = {
        "points": (start, end),
        "base": start,
        "shape": shape,
        "changes": (Change(gain, gain - 0.1, gain + 0.1, p, p / 2, 100),),
        "p_final": p,
    }
    return [Series("run", group, group, True, **of), Series("run", f"{group}-1", group, False, **of)]


def by_group(series: list[Series]) -> dict[str, Transfer]:
    return {row.group: row for row in transfers(series, "run")}


def test_index_is_the_ratio_of_relative_gains() -> None:
    found = by_group([*pair("in_domain", 0.4, 0.8), *pair("reasoning", 0.5, 0.6)])
    assert found["in_domain"].index is None
    assert found["reasoning"].relative_gain == pytest.approx(0.2)
    assert found["reasoning"].index == pytest.approx(20)
    assert found["reasoning"].flags == ()


def test_relative_gains_average_over_benchmarks() -> None:
    """Qwen3-14B, Math-CoT, general group of arXiv 2604.06628, Table 2: 13.9% (original.md's arithmetic)."""
    members = [pair("general", *of)[1] for of in ((0.642, 0.689), (0.547, 0.728), (0.944, 0.956))]
    group = pair("general", 0.711, 0.791)[0]
    found = by_group([*pair("in_domain", 0.4, 0.8), group, *members])
    assert found["general"].relative_gain == pytest.approx(0.139, abs=0.001)


def test_two_losses_are_flagged_although_the_index_is_large() -> None:
    found = by_group([*pair("in_domain", 0.8, 0.78), *pair("reasoning", 0.6, 0.4)])
    assert found["reasoning"].index is not None
    assert found["reasoning"].index > 100
    assert "two losses look like transfer" in found["reasoning"].flags[0]


def test_small_and_zero_bases_are_flagged() -> None:
    small = by_group([*pair("in_domain", 0.02, 0.5), *pair("reasoning", 0.5, 0.6)])
    assert small["reasoning"].flags == ("small base on in_domain-1",)
    zero = by_group([*pair("in_domain", 0.0, 0.5), *pair("reasoning", 0.5, 0.6)])
    assert zero["in_domain"].relative_gain is None
    assert zero["reasoning"].index is None
    assert zero["reasoning"].flags == ("base is zero on in_domain-1",)


def test_gain_within_noise_is_flagged() -> None:
    found = by_group([*pair("in_domain", 0.5, 0.6, real=False), *pair("reasoning", 0.5, 0.6)])
    assert found["reasoning"].flags == ("in-domain gain is within noise",)


def test_no_domain_no_index() -> None:
    found = by_group(pair("safety", 0.9, 0.5))
    assert found["safety"].index is None
    assert found["safety"].gain == pytest.approx(-0.4)
