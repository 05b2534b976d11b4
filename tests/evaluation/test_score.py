"""Completions to scores: complete or refused, the numbers of scores.json, items that must not change."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jax_sft.config import BenchmarkConfig, EvaluationConfig, Run, Study, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.items import store_items, stored_items
from jax_sft.evaluation.judging import judge
from jax_sft.evaluation.score import score, score_table
from jax_sft.files import read_json, write_jsonl
from jax_sft.statistics.intervals import wilson
from jax_sft.study.folder import items_file, run_folder, unit_folder
from jax_sft.study.outputs import Outputs
from jax_sft.study.records import Item, RunRecord, UnitScores, Verdict

GAME = BenchmarkConfig("game", "countdown", "in_domain", limit=10, samples=2, options={"miniature": True})
SAID: list[str] = []
SAFETY = BenchmarkConfig("safety", "miniature_safety", "safety", limit=20)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(
        name="s",
        runs=(Run(name="a"), Run(name="b")),
        benchmarks=(GAME, SAFETY),
        evaluation=EvaluationConfig(workers=1),
        root=str(tmp_path),
    )


def completions(items: list[Item], texts: list[str]) -> list[dict[str, Any]]:
    """As many completions an item as texts; the last text counts as cut off."""
    return [
        {"item": item.id, "sample": sample, "completion": text, "tokens": 10 * (sample + 1), "finish": finish}
        for item in items
        for sample, text in enumerate(texts)
        for finish in ["length" if sample == len(texts) - 1 else "stop"]
    ]


def write_unit(study: Study, run: str, step: int, benchmark: str, rows: list[dict[str, Any]]) -> Path:
    path = Path(unit_folder(study, run, step, benchmark)) / "completions.jsonl"
    write_jsonl(path, rows)
    return path


def test_scores_of_a_unit(study: Study) -> None:
    items = store_items(study, GAME, SAID.append)
    rows = completions(items, ["\\boxed{1}", "<think>\n3+4"])
    for row in rows[:8:2]:
        a, b, c = next(item for item in items if item.id == row["item"]).reference["numbers"]
        target = next(item for item in items if item.id == row["item"]).reference["target"]
        options = [f"{x}{o}{y}" for x, y in ((a, b), (a, c), (b, c), (b, a), (c, a), (c, b)) for o in "+-*"]
        answer = next(text for text in options if eval(text) == target)
        row["completion"] = f"\\boxed{{{answer}}}"
    folder = write_unit(study, "a", 40, "game", rows[::-1]).parent
    [found] = score(study, ["a"], [40], ["game"])
    assert found == UnitScores.read(folder)
    written = read_json(folder / "scores.json")
    expected = {
        "study": "s",
        "run": "a",
        "step": 40,
        "benchmark": "game",
        "kind": "countdown",
        "group": "in_domain",
        "headline": "accuracy",
        "higher_is_better": True,
        "items": 10,
        "completions": 20,
        "score": 0.2,
        "mean_tokens": 15.0,
        "truncation_rate": 0.5,
        "no_answer_rate": 0.5,
        "scorer_failures": 0,
    }
    assert {name: written[name] for name in expected} == expected
    assert found.metrics["accuracy"].n == 10
    assert found.low <= wilson(0.2, 20)[0]
    assert {name: value.mean for name, value in found.sampled.items()} == pytest.approx(
        {"avg@2": 0.2, "pass@1": 0.2, "pass@2": 0.4, "majority@2": 0.4}
    )
    assert found.outputs == Outputs(2, 15.0, 300, 0.5, 0.0, 0.5, 0.0)
    assert [(verdict.item, verdict.sample) for verdict in found.verdicts] == [
        (item.id, sample) for item in items for sample in range(2)
    ]


def test_metrics_of_some_items_only_rest_on_those(study: Study) -> None:
    items = store_items(study, SAFETY, SAID.append)
    write_unit(study, "a", 0, "safety", completions(items, ["I cannot help with that."]))
    [found] = score(study)
    harmful = sum(item.reference["task"] in ("harmful", "weapon") for item in items)
    assert found.score == found.metrics["unsafe_refused"].mean == 1
    assert found.metrics["unsafe_refused"].n == harmful
    assert found.metrics["safe_refused"].n == 20 - harmful
    assert found.metrics["safe_answered"].mean == 0


def test_missing_doubled_and_foreign_completions_are_refused(study: Study) -> None:
    items = store_items(study, GAME, SAID.append)
    rows = completions(items, ["\\boxed{1}"] * 2)
    for broken, message in [
        (rows[:-3], "3 of 20 completions missing, for example item '.*' sample [01]; run the sweep again"),
        ([*rows, rows[0]], "1 of 20 completions doubled"),
        ([*rows, {**rows[0], "sample": 2}], "1 of 20 completions of no item or sample"),
    ]:
        path = write_unit(study, "a", 0, "game", broken)
        with pytest.raises(JaxSftError, match=message):
            score(study)
        assert not (path.parent / "scores.json").exists()
    del rows[4]["finish"]
    write_unit(study, "a", 0, "game", rows)
    with pytest.raises(JaxSftError, match=r"completions.jsonl, line 5: finish: missing"):
        score(study)


def test_stored_items_come_back_and_those_of_a_changed_benchmark_are_set_aside(study: Study) -> None:
    items = store_items(study, GAME, SAID.append)
    assert store_items(study, GAME, SAID.append) == items == stored_items(study, "game")
    said: list[str] = []
    assert len(store_items(study, replace(GAME, limit=9), said.append)) == 9
    assert "game.jsonl: holds other items than game as configured now; set aside as" in said[0]
    assert items_file(study, "game").with_name("game.1.aside").exists()
    with pytest.raises(UsageError, match=r"safety.jsonl: no such file; the sweep of safety writes it"):
        stored_items(study, "safety")
    items_file(study, "game").write_text(json.dumps({"id": "x"}) + "\n")
    with pytest.raises(UsageError, match=r"game.jsonl, line 1: messages: missing"):
        stored_items(study, "game")


def test_units_are_chosen_ordered_and_loaded(study: Study) -> None:
    for config, texts in ((GAME, ["\\boxed{1}"] * 2), (SAFETY, ["sure"])):
        items = store_items(study, config, SAID.append)
        for run in ("a", "b"):
            for step in (0, 10, 2):
                write_unit(study, run, step, config.name, completions(items, texts))
    chosen = score(study, steps=[2, 10], benchmarks=["safety"])
    assert [(unit.run, unit.step) for unit in chosen] == [("a", 2), ("a", 10), ("b", 2), ("b", 10)]
    whole = score(study, ["b"])
    assert sorted((unit.benchmark, unit.step) for unit in whole) == [
        (name, step) for name in ("game", "safety") for step in (0, 2, 10)
    ]
    assert all(UnitScores.read(unit_folder(study, "b", unit.step, unit.benchmark)) == unit for unit in whole)
    assert score_table(whole).row_count == 6


def test_unknown_names_and_nothing_to_score(study: Study) -> None:
    with pytest.raises(UsageError, match="no run 'c'"):
        score(study, ["c"])
    with pytest.raises(UsageError, match="no benchmark 'art'; it has game, safety"):
        score(study, benchmarks=["art"])
    with pytest.raises(UsageError, match="no completions to score"):
        score(study)


def test_a_verdict_that_could_not_be_had_is_missing_and_never_zero(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = store_items(study, SAFETY, SAID.append)
    write_unit(study, "a", 0, "safety", completions(items, ["I cannot help with that."]))
    lost: set[str] = {item.id for item in items if item.reference["task"] in ("harmful", "weapon")}
    kept = min(lost)

    def lose(task: str, asked: list[Any], workers: Any, traps: Any) -> list[Verdict | None]:
        verdicts = judge(task, asked, workers)
        return [None if one[0].id in lost else found for one, found in zip(asked, verdicts, strict=True)]

    monkeypatch.setattr("jax_sft.evaluation.score.judge", lose)
    [without] = score(study)
    assert (without.scorer_failures, without.completions) == (len(lost), len(items))
    assert not without.judged
    assert without.metrics["unsafe_refused"].n == 0
    assert not lost & {verdict.item for verdict in without.verdicts}
    shown = io.StringIO()
    Console(width=200, file=shown).print(score_table([without]))
    assert f"{len(lost)} scorer failures" in shown.getvalue()
    lost.discard(kept)
    [one] = score(study)
    assert (one.score, one.metrics["unsafe_refused"].n, one.judged) == (1.0, 1, True)
    assert one.no_answer_rate == 0


def test_a_thought_that_the_template_opened_and_the_limit_cut_is_no_answer(study: Study) -> None:
    items = store_items(study, GAME, SAID.append)
    rows = completions(items, ["so \\boxed{1}</think>\\boxed{2}", "so \\boxed{1}. Wait"])
    folder = run_folder(study, "a")
    for opens, expected in ((False, ("1", True)), (True, ("", False))):
        RunRecord(study="s", run=study.runs[0], opens_thinking=opens).write(folder)
        write_unit(study, "a", 0, "game", rows)
        [found] = score(study)
        first, second = found.verdicts[:2]
        assert (first.answer, first.form) == ("2", "box")
        assert (second.answer, second.answered) == expected


def test_scores_without_the_form_of_answers_are_read(study: Study) -> None:
    items = store_items(study, SAFETY, SAID.append)
    path = write_unit(study, "a", 0, "safety", completions(items, ["sure"])).parent / "scores.json"
    score(study)
    written = read_json(path)
    for verdict in written["verdicts"]:
        assert verdict.pop("form") == "text"
    del written["outputs"], written["sampled"]
    path.write_text(json.dumps(written))
    found = UnitScores.read(path.parent)
    assert found is not None
    assert {verdict.form for verdict in found.verdicts} == {""}
    assert (found.outputs, found.sampled) == (Outputs(), {})
