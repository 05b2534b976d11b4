"""Curves from files: bases, orientation, groups, noise and words."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from jax_sft.analysis.series import Series, build_series, distinct
from jax_sft.analysis.study import load_study
from jax_sft.analysis.verdicts import find, sentence, verdict
from jax_sft.config import BenchmarkConfig, Study
from jax_sft.files import read_json, write_json
from jax_sft.study.folder import run_folder, unit_folder


def one(series: list[Series], run: str, name: str) -> Series:
    return next(s for s in series if s.run == run and s.name == name)


def rewrite(study: Study, run: str, step: int, benchmark: str, **changes: object) -> None:
    path = unit_folder(study, run, step, benchmark) / "scores.json"
    write_json(path, read_json(path) | changes)


def test_shapes_of_the_made_up_study(kept_study: Study) -> None:
    series = build_series(load_study(kept_study))
    reasoning = one(series, "cot", "reasoning")
    assert reasoning.shape is not None
    assert (reasoning.shape.dip_step, reasoning.shape.recovery_step) == (20, 320)
    assert reasoning.dip_is_real
    assert reasoning.paired
    assert verdict(reasoning) == ("dip, then gain", "gain")
    assert verdict(one(series, "cot", "safety"))[0] == "loss"
    assert verdict(one(series, "nocot", "general")) == ("no clear change", "flat")


def test_a_run_is_described_as_it_was_trained(study: Study) -> None:
    """Flags of the training differ from what the study says."""
    path = run_folder(study, "cot") / "run.json"
    identity = read_json(path)
    identity["run"]["optimizer"]["learning_rate"] = 7e-6
    write_json(path, identity)
    record = load_study(study)
    rates = {run.name: run.config.optimizer.learning_rate for run in record.runs}
    assert (rates["cot"], rates["nocot"]) == (7e-6, 2e-4)


def test_a_fall_after_the_recovery_is_said(kept_study: Study) -> None:
    series = one(build_series(load_study(kept_study)), "cot", "reasoning")
    assert series.shape is not None
    fallen = replace(series, shape=replace(series.shape, final=series.shape.base - 0.08), p_final=0.01)
    assert fallen.final_is_real
    assert verdict(fallen) == ("dip, recovered, then loss", "loss")
    never = replace(fallen, shape=replace(fallen.shape, recovery_step=None))
    assert verdict(never) == ("dip, not recovered", "loss")


def test_group_is_the_mean_of_its_benchmarks(kept_study: Study) -> None:
    record = load_study(kept_study)
    group = one(build_series(record), "cot", "reasoning")
    cot = next(run for run in record.runs if run.name == "cot")
    scores = [cot.units[40, name].score for name in ("sort", "arithmetic")]
    point = next(p for p in group.points if p.step == 40)
    assert point.score == pytest.approx(sum(s for s in scores if s is not None) / 2)
    assert point.low < point.score < point.high


def test_group_skips_steps_where_a_benchmark_is_missing(study: Study) -> None:
    (unit_folder(study, "cot", 20, "sort") / "scores.json").unlink()
    record = load_study(study)
    assert record.missing == ["cot, sort, step 20: generated, not scored"]
    group = one(build_series(record), "cot", "reasoning")
    assert 20 not in [p.step for p in group.points]
    assert 40 in [p.step for p in group.points]
    assert group.paired


def test_missing_units_are_named(study: Study) -> None:
    folder = unit_folder(study, "cot", 320, "format")
    for name in ("scores.json", "completions.jsonl"):
        (folder / name).unlink()
    lines = (run_folder(study, "nocot") / "metrics.jsonl").read_text().splitlines()
    (run_folder(study, "nocot") / "metrics.jsonl").write_text("\n".join(lines[:200]) + "\n")
    assert load_study(study).missing == [
        "cot, format, step 320: no completions",
        "run nocot is trained to step 200 of 320",
    ]


def test_lower_is_better_is_turned_round(study: Study) -> None:
    for step in (0, 5, 10, 20, 40, 80, 160, 320):
        rewrite(study, "cot", step, "refusals", higher_is_better=False)
        rewrite(study, "nocot", step, "refusals", higher_is_better=False)
    safety, refusals = (one(build_series(load_study(study)), "cot", name) for name in ("safety", "refusals"))
    assert refusals.shape is not None
    assert refusals.shape.final_gain > 0
    assert refusals.points[-1].score < 0.6
    assert safety.points[-1].score == pytest.approx(1 - refusals.points[-1].score)
    assert safety.points[-1].low < safety.points[-1].score < safety.points[-1].high
    assert verdict(refusals)[1] == "gain"


def test_base_comes_from_the_parent_when_step_0_is_not_there(make_study: Callable[..., Study]) -> None:
    study = make_study(runs=("cot",), steps=(20, 320))
    assert verdict(one(build_series(load_study(study)), "cot", "sort")) == ("no base to compare with", "flat")
    whole = make_study(runs=("cot",))
    parent = unit_folder(whole, "base", 1200, "sort")
    parent.mkdir(parents=True)
    start = read_json(unit_folder(whole, "cot", 0, "sort") / "scores.json")
    for step in (0, 5, 10, 40, 80, 160):
        (unit_folder(whole, "cot", step, "sort") / "scores.json").unlink()
    write_json(parent / "scores.json", start | {"run": "base", "step": 1200})
    sort = one(build_series(load_study(whole)), "cot", "sort")
    assert sort.base is not None
    assert sort.base.step == 1200
    assert [p.step for p in sort.after_base] == [20, 320]
    assert sort.shape is not None
    assert sort.shape.dip_step == 20


def test_other_items_fall_back_to_unpaired_intervals(study: Study) -> None:
    scores = read_json(unit_folder(study, "cot", 320, "sort") / "scores.json")
    rewrite(study, "cot", 320, "sort", verdicts=scores["verdicts"][1:])
    record = load_study(study)
    series = build_series(record)
    assert not one(series, "cot", "sort").paired
    assert not one(series, "cot", "reasoning").paired
    assert one(series, "nocot", "sort").paired
    lines = find(record, series)[0].lines
    assert next(line for line in lines if line.series.name == "sort").interval.endswith("†")


def test_scores_beyond_one_are_no_shares(study: Study) -> None:
    for step, score in (
        (0, -0.5),
        (5, 0.2),
        (10, 1.5),
        (20, 2.0),
        (40, 2.1),
        (80, 2.2),
        (160, 2.3),
        (320, 2.4),
    ):
        rewrite(study, "cot", step, "sort", score=score, low=score - 0.1, high=score + 0.1)
    series = build_series(load_study(study))
    sort, group = one(series, "cot", "sort"), one(series, "cot", "reasoning")
    assert not sort.is_share
    assert sentence(sort).startswith("sort: −0.5 to 2.4, +2.9 (95%")
    arithmetic = one(series, "cot", "arithmetic")
    assert [p.score for p in group.points] == [p.score for p in arithmetic.points]


def test_sentence_says_dip_return_and_gain(kept_study: Study) -> None:
    group = one(build_series(load_study(kept_study)), "cot", "reasoning")
    text = sentence(group, ["sort", "arithmetic"])
    assert text.startswith(
        "Reasoning (sort, arithmetic): dipped 36.9 points at step 20, back at its base by step 320;"
    )
    assert "within noise" not in text


def test_a_benchmark_alone_in_its_group_is_said_once(kept_study: Study) -> None:
    names = [s.name for s in distinct(build_series(load_study(kept_study))) if s.run == "cot"]
    assert names == ["in_domain", "reasoning", "sort", "arithmetic", "general", "safety"]


def test_headline_that_applies_to_no_item_is_missing_not_zero(study: Study) -> None:
    nothing = {"accuracy": {"mean": 0.0, "low": 0.0, "high": 1.0, "n": 0}}
    rewrite(study, "cot", 5, "sort", metrics=nothing, verdicts=[])
    record = load_study(study)
    assert record.missing == ["cot, sort, step 5: scored on no items"]
    assert 5 not in [p.step for p in one(build_series(record), "cot", "sort").points]


def test_run_without_evaluations_has_no_series(kept_study: Study) -> None:
    assert "base" not in {s.run for s in build_series(load_study(kept_study))}


def test_benchmarks_that_the_study_dropped_are_ignored(kept_study: Study) -> None:
    kept = tuple(b for b in kept_study.benchmarks if b.name != "sort")
    record = load_study(replace(kept_study, benchmarks=kept))
    assert "sort" not in {b.name for b in record.benchmarks}
    assert record.missing == []


def test_groups_keep_their_order(kept_study: Study) -> None:
    extra = BenchmarkConfig(name="unswept", task="countdown", group="general")
    record = load_study(replace(kept_study, benchmarks=(*reversed(kept_study.benchmarks), extra)))
    assert [b.group for b in record.benchmarks] == [
        "in_domain",
        "reasoning",
        "reasoning",
        "general",
        "safety",
    ]
    assert "cot, unswept, step 0, 5, 10, 20, 40, 80, 160, 320: no completions" in record.missing
