"""All comparisons of a study, and what choosing the best snapshot does."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from jax_sft.analysis.comparisons import benjamini_hochberg, compare, compare_runs
from jax_sft.analysis.series import build_series
from jax_sft.analysis.study import load_study
from jax_sft.config import Study
from jax_sft.files import read_json, write_json
from jax_sft.statistics.selection import held_out_best
from jax_sft.study.folder import run_folder, unit_folder


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


def test_runs_from_the_same_start_are_compared_on_the_same_items(kept_study: Study) -> None:
    record = load_study(kept_study)
    found = {pair.first.benchmark: pair for pair in compare_runs(record)}
    assert list(found) == [b.name for b in record.benchmarks]
    countdown = found["countdown"]
    assert (countdown.first.run, countdown.second.run) == ("cot", "nocot")
    scores = [next(r for r in record.runs if r.name == of).units[320, "countdown"] for of in ("cot", "nocot")]
    before_I, after_I = (np.array(list(unit.item_scores.values())) for unit in scores)
    assert countdown.change.mean == pytest.approx((after_I - before_I).mean())
    fell, rose = int((after_I < before_I).sum()), int((after_I > before_I).sum())
    assert countdown.change.p == pytest.approx(stats.binomtest(rose, rose + fell).pvalue)
    assert countdown.is_real
    assert all(pair.change.p <= pair.p <= 1 for pair in found.values())


def test_runs_of_other_starts_or_items_are_not_compared(make_study: Callable[..., Study]) -> None:
    study = make_study(steps=(0, 320))
    cot, nocot = study.runs[1:]
    path = run_folder(study, "nocot") / "run.json"
    record = read_json(path)
    record["run"]["init"] = "random"
    write_json(path, record)
    assert compare_runs(load_study(study)) == []
    record["run"]["init"] = cot.init
    write_json(path, record)
    assert compare_runs(load_study(study)) != []
    scores = unit_folder(study, nocot.name, 320, "sort") / "scores.json"
    write_json(scores, {**(whole := read_json(scores)), "verdicts": whole["verdicts"][1:]})
    assert "sort" not in {pair.first.benchmark for pair in compare_runs(load_study(study))}


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
