"""AIME and AMC: right answers in usual forms, files as other people write them, gold that is no number."""

from pathlib import Path

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.files import write_jsonl
from jax_sft.tasks.task import get_task, load_items


@pytest.mark.parametrize(("name", "count"), [("aime24", 30), ("amc23", 40)])
def test_right_answers_score_one_and_those_of_the_neighbour_zero(
    name: str, count: int, shared_data: Path
) -> None:
    items, task = load_items(BenchmarkConfig(name), str(shared_data)), get_task(name)
    assert len(items) == count
    for item, other in zip(items, items[1:] + items[:1], strict=True):
        gold = item.reference["answer"]
        for text in (
            f"\\boxed{{{gold}}}",
            f"<think>\\boxed{{9}}</think>So it is $\\boxed{{{gold.zfill(3)}}}$.",
        ):
            assert task.verdict(item, text, "stop").metrics["accuracy"] == 1, (item.id, text)
        wrong = task.verdict(item, f"\\boxed{{{other.reference['answer']}}}", "stop").metrics["accuracy"]
        assert wrong == (gold == other.reference["answer"])


def test_columns_and_numbers_as_other_copies_have_them(tmp_path: Path) -> None:
    rows = [{"question": "a?", "answer": 27.0}, {"question": "b?", "answer": "033"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    config = BenchmarkConfig("c", "aime25", path="rows.jsonl")
    items = load_items(config, str(tmp_path))
    assert [(item.id, item.reference["answer"]) for item in items] == [("aime25-1", "27"), ("aime25-2", "33")]
    write_jsonl(tmp_path / "rows.jsonl", [{"problem": "a?", "answer": "x+1"}])
    with pytest.raises(UsageError, match=r"row 1: the answer must be a whole number, found 'x\+1'"):
        load_items(config, str(tmp_path))
    write_jsonl(tmp_path / "rows.jsonl", [{"problem": "a?", "solution": "1"}])
    with pytest.raises(UsageError, match="row 1: field 'answer' is missing; found problem, solution"):
        load_items(config, str(tmp_path))


def test_a_missing_file_says_what_to_write_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*aime25.jsonl .*30 problems there"):
        load_items(BenchmarkConfig("aime25"), str(tmp_path))
