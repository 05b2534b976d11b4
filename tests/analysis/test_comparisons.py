"""All comparisons of a study, and what choosing the best snapshot does."""

import numpy as np
import pytest

from jax_sft.analysis.comparisons import benjamini_hochberg, compare
from jax_sft.analysis.series import build_series
from jax_sft.analysis.study import load_study
from jax_sft.config import Study
from jax_sft.statistics.selection import held_out_best


def test_benjamini_and_hochbergs_example() -> None:
    """Their 15 p-values (1995, section 4.2): four findings at 5%, where Bonferroni's bound has three."""
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    p_values += [0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert sum(q <= 0.05 for q in benjamini_hochberg(p_values)) == 4
    assert benjamini_hochberg([]) == []


def test_every_later_snapshot_of_every_curve_is_compared(kept_study: Study) -> None:
    series = build_series(load_study(kept_study))
    found = compare(series)
    assert len(found) == sum(len(s.after_base) for s in series)
    sort = [c for c in found if c.series.run == "cot" and c.series.name == "sort"]
    assert [c.step for c in sort] == [5, 10, 20, 40, 80, 160, 320]
    assert all(c.change.p <= c.p_curve <= 1 and c.change.p <= c.q_study <= 1 for c in found)


def test_the_best_of_equal_snapshots_is_no_gain_on_other_items() -> None:
    rng = np.random.default_rng(0)
    flattered, held = [], []
    for _ in range(100):
        change_IS = rng.integers(-1, 2, size=(60, 8)).astype(float)
        flattered.append(change_IS.mean(axis=0).max())
        held.append(held_out_best([change_IS]))
    assert np.mean(flattered) > 0.1
    assert abs(np.mean(held)) < 0.03


def test_the_best_by_far_is_as_good_on_other_items() -> None:
    few_IS, many_IS = np.zeros((10, 3)), np.zeros((40, 3))
    few_IS[:, 1], many_IS[:, 1] = 0.5, 0.3
    assert held_out_best([few_IS, many_IS]) == pytest.approx(0.4)
    assert np.isnan(held_out_best([few_IS[:1]]))
