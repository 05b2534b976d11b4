"""The real benchmark files: sizes, gold answers."""

import random
from pathlib import Path

import pytest

from jax_sft.config import BenchmarkConfig, replace
from jax_sft.errors import UsageError
from jax_sft.files import read_jsonl
from jax_sft.study.records import Item
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


def test_gsm8k_with_solved_examples(shared_data: Path) -> None:
    shown = BenchmarkConfig("g", "gsm8k", limit=3, limit_seed=7, options={"shots": 8})
    items = load_items(shown, str(shared_data))
    prompt = items[0].messages[0]["content"]
    assert prompt.startswith("Question: Natalia sold clips to 48 of her friends")
    assert (prompt.count("Question: "), prompt.count("\n#### ")) == (9, 8)
    assert prompt.endswith("\nAnswer:")
    assert "<<" not in prompt
    plain = load_items(replace(shown, options={}), str(shared_data))
    assert [item.id for item in plain] == [item.id for item in items]
    with pytest.raises(UsageError, match="shots 9 is not between 0 and 8"):
        load_items(replace(shown, options={"shots": 9}), str(shared_data))
    with pytest.raises(UsageError, match=r"no file .*x.jsonl of examples; copy grade_school_math"):
        load_items(replace(shown, options={"shots": 1, "examples": "x.jsonl"}), str(shared_data))


def test_commonsenseqas_key_scores_one_in_ten_wordings_and_others_keys_at_chance(shared_data: Path) -> None:
    kind = get_task("commonsenseqa")
    items = load_items(BenchmarkConfig("commonsenseqa", limit=200), str(shared_data))
    forms = (
        "{0}",
        "({0})",
        "**{0}**",
        "\\boxed{{{0}}}",
        "The answer is {0}.",
        "Answer: {0}. {1}",
        "Option {0}",
    )
    forms += (
        "<answer>{0}</answer>",
        "<think>A or B?</think>So ({0}).",
        "I choose {0}, as it fits.",
        "{0}) {1}",
    )
    keys = [item.reference["answer"] for item in items]

    def accuracy(form: str, answers: list[str]) -> float:
        found = [
            kind.verdict(item, form.format(key, _words(item, key)), "stop").metrics["accuracy"]
            for item, key in zip(items, answers, strict=True)
        ]
        return sum(found) / len(found)

    assert {form: accuracy(form, keys) for form in forms} == dict.fromkeys(forms, 1.0)
    others = random.Random(0).sample(keys, len(keys))
    assert abs(accuracy("The answer is ({0}).", others) - 0.2) < 0.08


def _words(item: Item, key: str) -> str:
    return str(item.reference["texts"][item.reference["letters"].index(key)])


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
