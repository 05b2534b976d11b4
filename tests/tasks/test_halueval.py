"""HaluEval: which text a row shows, what is asked, and how answers are judged."""

from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.files import write_jsonl
from jax_sft.tasks.task import get_task, group_of, load_items

QA = {
    "knowledge": "It is red.",
    "question": "Which colour?",
    "right_answer": "Red.",
    "hallucinated_answer": "Blue.",
}


def test_half_of_the_rows_show_what_is_made_up(tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks" / "halueval"
    folder.mkdir(parents=True)
    write_jsonl(folder / "qa_data.json", [QA] * 200)
    config = BenchmarkConfig("halueval")
    items, task = load_items(config, str(tmp_path)), get_task("halueval")
    assert group_of(config) == "general"
    assert 80 < sum(item.reference["answer"] == "Yes" for item in items) < 120
    for item in items[:10]:
        made_up = item.reference["answer"] == "Yes"
        answer = "Blue." if made_up else "Red."
        start = f"Knowledge: It is red.\n\nQuestion: Which colour?\n\nAnswer: {answer}\n\n"
        assert item.messages[0]["content"].startswith(
            f"{start}Does the answer hold information that is made up"
        )
        for text, right in (("Yes", made_up), ("\\boxed{No}", not made_up), ("The answer is yes.", made_up)):
            assert task.verdict(item, text, "stop").metrics["accuracy"] == right
        assert not task.verdict(item, "<think>Yes", "length").answered


@pytest.mark.parametrize(
    ("kind", "columns", "question"),
    [
        (
            "dialogue",
            ("knowledge", "dialogue_history", "right_response", "hallucinated_response"),
            "Knowledge: k\n\nDialogue: d\n\nResponse: r\n\nDoes the response hold",
        ),
        (
            "summarization",
            ("document", "right_summary", "hallucinated_summary"),
            "Document: d\n\nSummary: s\n\nDoes the summary hold",
        ),
    ],
)
def test_the_other_kinds(tmp_path: Path, kind: str, columns: tuple[str, ...], question: str) -> None:
    row: dict[str, Any] = {
        name: name.removeprefix("right_").removeprefix("hallucinated_")[0] for name in columns
    }
    write_jsonl(tmp_path / "rows.jsonl", [row])
    config = BenchmarkConfig("h", "halueval", path="rows.jsonl", options={"kind": kind})
    [item] = load_items(config, str(tmp_path))
    assert item.messages[0]["content"].startswith(question)
    write_jsonl(tmp_path / "rows.jsonl", [{**row, "document": "", "knowledge": ""}])
    with pytest.raises(UsageError, match=r"row 1: field '(document|knowledge)' is empty"):
        load_items(config, str(tmp_path))


def test_kinds_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"qa_data.json .*github.com/RUCAIBox/HaluEval"):
        load_items(BenchmarkConfig("halueval"), str(tmp_path))
    with pytest.raises(UsageError, match="kind 'quiz' is not one of qa, dialogue, summarization"):
        load_items(BenchmarkConfig("h", "halueval", options={"kind": "quiz"}), str(tmp_path))
