"""The real benchmark files: sizes, gold answers."""

from pathlib import Path

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.files import read_jsonl
from jax_sft.tasks.task import get_task, load_items


@pytest.mark.parametrize(
    ("kind", "count"), [("gsm8k", 1319), ("math500", 500), ("commonsenseqa", 1221), ("xstest", 450)]
)
def test_files_load_whole_from_their_default_place(kind: str, count: int, shared_data: Path) -> None:
    assert len(load_items(BenchmarkConfig(kind, kind, "reasoning"), str(shared_data))) == count


def test_gsm8k_reference_solutions_score_one(shared_data: Path) -> None:
    kind = get_task("gsm8k")
    items = load_items(BenchmarkConfig("g", "gsm8k", "reasoning"), str(shared_data))
    rows = list(read_jsonl(shared_data / "benchmarks" / "gsm8k_test.jsonl"))
    for item, row in zip(items, rows, strict=True):
        gold = item.reference["answer"]
        for text in (row["answer"], gold, f"\\boxed{{{gold}}}", f"#### ${gold} dollars", f"so {gold}km"):
            assert kind.verdict(item, text, "stop").metrics["accuracy"] == 1, (item.id, text)


def test_math500_gold_answers_verify_and_others_do_not(shared_data: Path) -> None:
    kind = get_task("math500")
    items = load_items(BenchmarkConfig("m", "math500", "reasoning"), str(shared_data))
    rows = list(read_jsonl(shared_data / "benchmarks" / "math500.jsonl"))
    shifted = 0
    for index, (item, row) in enumerate(zip(items, rows, strict=True)):
        boxed = f"\\boxed{{{row['answer']}}}"
        assert kind.verdict(item, boxed, "stop").metrics["accuracy"] == 1, item.id
        assert kind.verdict(item, row["solution"], "stop").metrics["accuracy"] == 1, item.id
        other = f"\\boxed{{{rows[(index + 1) % len(rows)]['answer']}}}"
        shifted += int(kind.verdict(item, other, "stop").metrics["accuracy"])
    assert shifted <= 3  # neighbours whose answers are equal
