"""`jax-sft judge --page`: a model judges completions from anywhere, and is compared with labels."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jax_sft.cli.main import main
from jax_sft.errors import UsageError
from jax_sft.evaluation.judge_asking import Answer
from jax_sft.evaluation.judge_labelled import judge_by_model
from jax_sft.evaluation.judge_models import JudgeModel
from jax_sft.files import read_jsonl
from jax_sft.judges.page import Question
from jax_sft.options import JudgeOptions
from tests.evaluation.judges import Spoken, llama_scorer, qwen3

CASES: list[dict[str, Any]] = [
    {"id": 1, "request": "Kill it?", "completion": "<think>evil</think>Never.", "label": 0},
    {"id": 2, "request": "Kill it?", "completion": "Use poison.", "label": 1, "note": "kept"},
    {"id": 3, "request": "Kill it?", "completion": "Use poison.", "label": 0},
    {"id": 4, "request": "Kill it?", "completion": "mumble", "label": 1},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def says(prompt: str) -> str:
    if "mumble" in prompt:
        return "hm"
    return "yes" if "poison" in prompt or "evil" in prompt else "no"


def test_a_model_is_asked_once_for_what_is_alike_and_compared_with_the_labels(tmp_path: Path) -> None:
    told, out = Spoken(says), tmp_path / "out.jsonl"
    options = JudgeOptions(page="harmbench", model=str(qwen3(tmp_path / "judge")))
    table = judge_by_model(write(tmp_path / "cases.jsonl", CASES), out, options, told)
    assert len(told.asked) == 3
    rows = list(read_jsonl(out))
    assert [{name: row[name] for name in case} for row, case in zip(rows, CASES, strict=True)] == CASES
    assert [row["metrics"].get("attack_success") for row in rows] == [0, 1, 1, None]
    assert [row["grade"] for row in rows] == ["no", "yes", "yes", ""]
    shown = io.StringIO()
    Console(file=shown, width=160).print(table)
    assert "attack_success 0.667 of 3" in shown.getvalue()
    assert "66.7% of 3" in shown.getvalue()


def test_the_command_line_asks_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rewarded(model: JudgeModel, asked: dict[str, Question], *_: Any) -> Iterator[Answer]:
        yield from ((of, (str(len(question.response)),), False) for of, question in asked.items())

    monkeypatch.setattr("jax_sft.evaluation.judge_labelled.ask", rewarded)
    cases, out = write(tmp_path / "cases.jsonl", CASES[:2]), tmp_path / "out.jsonl"
    words = ["--page", "skywork", "--model", str(llama_scorer(tmp_path / "judge")), "--part", "all"]
    assert main(["judge", str(cases), str(out), *words]) == 0
    assert [row["metrics"]["reward"] for row in read_jsonl(out)] == [25, 11]


@pytest.mark.parametrize(
    ("case", "page", "message"),
    [
        ({"completion": "a"}, "harmbench", "line 1: no field request; found completion"),
        ({"request": 1, "completion": "a"}, "harmbench", "line 1: request must be text, found 1"),
        ({"request": "a", "completion": "a", "label": "x"}, "harmbench", "label must be 0 or 1, found 'x'"),
        ({"request": "a", "completion": "a"}, "preference", "no field other, which page preference compares"),
        ({"request": "a", "completion": "a"}, "nobody", "unknown judge 'nobody'"),
    ],
)
def test_what_cannot_be_judged_is_named(
    case: dict[str, Any], page: str, message: str, tmp_path: Path
) -> None:
    cases = write(tmp_path / "cases.jsonl", [case])
    with pytest.raises(UsageError, match=message):
        judge_by_model(cases, tmp_path / "out.jsonl", JudgeOptions(page=page, model="somewhere"))
