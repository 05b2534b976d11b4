"""`jax-sft judge`: completions from anywhere, one a line, with the verdict of their task added."""

import json
from pathlib import Path
from typing import Any

import pytest

from jax_sft.cli.main import main
from jax_sft.evaluation.judging import judge
from jax_sft.files import read_jsonl

CASES: list[dict[str, Any]] = [
    {"id": 1, "task": "gsm8k", "reference": {"answer": "18"}, "completion": "#### 18", "finish": "stop"},
    {
        "id": "two",
        "task": "commonsenseqa",
        "reference": {"answer": "B", "letters": "ABC"},
        "completion": "<think>A</think>The answer is C.",
        "finish": "stop",
        "note": "kept",
    },
    {"id": "3", "task": "gsm8k", "reference": {"answer": "5"}, "completion": "<think>5", "finish": "length"},
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def test_the_same_lines_come_back_with_their_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases, out = write(tmp_path / "cases.jsonl", [CASES[0], "", *CASES[1:]]), tmp_path / "out.jsonl"
    assert main(["judge", str(cases), str(out)]) == 0
    found = list(read_jsonl(out))
    assert [{name: row[name] for name in case} for row, case in zip(found, CASES, strict=True)] == CASES
    assert [(row["metrics"], row["answered"], row["answer"], row["form"]) for row in found] == [
        ({"accuracy": 1.0}, True, "18", "marked"),
        ({"accuracy": 0.0}, True, "C", "stated"),
        ({"accuracy": 0.0}, False, "", ""),
    ]
    assert "accuracy 50.0% of 2" in capsys.readouterr().out


def test_tasks_that_need_processes_of_their_own(tmp_path: Path) -> None:
    reference = {"answer": "\\frac{1}{2}"}
    case = {**CASES[0], "task": "math500", "reference": reference, "completion": "So \\boxed{0.5}."}
    cases, out = write(tmp_path / "cases.jsonl", [case]), tmp_path / "out.jsonl"
    assert main(["judge", str(cases), str(out), "--workers", "1", "--seconds", "30"]) == 0
    assert next(read_jsonl(out))["metrics"] == {"accuracy": 1.0}


def test_a_verdict_that_could_not_be_had_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_the_first(*given: Any) -> list[Any]:
        return [None, *judge(*given)[1:]]

    monkeypatch.setattr("jax_sft.evaluation.judge_cases.judge", lose_the_first)
    cases, out = write(tmp_path / "cases.jsonl", CASES[::2]), tmp_path / "out.jsonl"
    assert main(["judge", str(cases), str(out)]) == 0
    first, second = read_jsonl(out)
    assert (first["metrics"], first["answered"]) == ({}, False)
    assert second["metrics"] == {"accuracy": 0.0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 3: not JSON"),
        ({"id": 1}, "line 3: no field task and no reference and no completion and no finish; found id"),
        ({**CASES[0], "task": "poetry"}, "line 3: unknown task 'poetry'; known: "),
        ({**CASES[0], "finish": "eos"}, "line 3: finish must be one of stop, length, loop; found 'eos'"),
        ({**CASES[0], "completion": None}, "line 3: completion must be text, found None"),
        ({**CASES[0], "reference": "18"}, "line 3: reference must be an object, found '18'"),
        ({**CASES[0], "reference": {}}, "line 3: reference: no field 'answer'"),
        ({**CASES[0], "reference": {"answer": "four"}}, "line 3: reference: answer must end in"),
    ],
)
def test_what_cannot_be_judged_is_named_with_file_and_line(
    row: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = write(tmp_path / "cases.jsonl", [CASES[0], "", row])
    assert main(["judge", str(cases), str(tmp_path / "out.jsonl")]) == 2
    told = capsys.readouterr().err
    assert f"{cases}, {message}" in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_the_cases_are_not_written_over_and_there_are_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = write(tmp_path / "cases.jsonl", CASES)
    before = cases.read_text()
    assert main(["judge", str(cases), str(cases)]) == 2
    assert cases.read_text() == before
    empty = write(tmp_path / "empty.jsonl", [])
    assert main(["judge", str(empty), str(tmp_path / "out.jsonl")]) == 2
    assert f"{empty}: holds no cases" in capsys.readouterr().err
    assert main(["judge", str(cases), str(tmp_path / "out.jsonl"), "--seconds", "0"]) == 2


def test_the_wordings_of_public_reports(shared_data: Path, tmp_path: Path) -> None:
    """At least 97 of 100 in every kind of answer but refusals, and nothing wrong accepted."""
    out = tmp_path / "out.jsonl"
    limits = ["--seconds", "60"]
    assert main(["judge", str(shared_data / "fixtures" / "answers.jsonl"), str(out), *limits]) == 0
    rows = [row for row in read_jsonl(out) if row["task"] != "xstest"]
    assert len(rows) == 395
    for task in {row["task"] for row in rows}:
        of_task = [row for row in rows if row["task"] == task]
        agrees = [row["metrics"]["accuracy"] == row["right"] for row in of_task]
        assert sum(agrees) / len(agrees) >= 0.97, task
        assert not [row["id"] for row in of_task if row["metrics"]["accuracy"] > row["right"]]
