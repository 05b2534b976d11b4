"""BIG-Bench Hard: all targets score one, wordings by kind of answer, examples before the question."""

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.files import write_json
from jax_sft.study.records import Item
from jax_sft.tasks.task import get_task, group_of, load_items

BBH = BenchmarkConfig("bbh")


def right(item: Item, text: str) -> bool:
    return get_task("bbh").verdict(item, text, "stop").metrics["accuracy"] == 1


def spoken(item: Item) -> str:
    answer = item.reference["answer"]
    return (
        f"Step by step. So the answer is {f'({answer})' if item.reference['kind'] == 'letter' else answer}."
    )


def test_every_target_is_right_and_that_of_another_example_at_chance(shared_data: Path) -> None:
    items = load_items(BBH, str(shared_data))
    assert (len(items), group_of(BBH)) == (6511, "reasoning")
    assert [item.id for item in items if not right(item, spoken(item))] == []
    boxed = [item for item in items if item.reference["kind"] != "brackets"]
    assert [item.id for item in boxed if not right(item, f"\\boxed{{{item.reference['answer']}}}")] == []
    of_task: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        of_task[item.reference["task"]].append(item)
    assert len(of_task) == 27
    shuffled = {}
    for task, own in of_task.items():
        others = random.Random(0).sample(own, len(own))
        shuffled[task] = sum(
            right(item, spoken(other)) for item, other in zip(own, others, strict=True)
        ) / len(own)
    assert 0.4 < shuffled["navigate"] < 0.6
    assert 0.4 < shuffled["hyperbaton"] < 0.6
    assert 0.25 < shuffled["tracking_shuffled_objects_three_objects"] < 0.42
    assert shuffled["word_sorting"] < 0.03
    assert shuffled["multistep_arithmetic_two"] < 0.05


@pytest.mark.parametrize(
    ("task", "texts"),
    [
        (
            "navigate",
            ["{}", "**{}**", "\\boxed{{{}}}", "The answer is {}.", "{}, you do.", "Answer: {}", "So: {}"],
        ),
        ("boolean_expressions", ["{}", "not ( x ) = {}", "`{}`", "The answer is {}", "It evaluates to {}."]),
        ("formal_fallacies", ["{}", "The argument is {}.", "\\boxed{{\\text{{{}}}}}", "deductively {}"]),
        ("object_counting", ["{}", "I have {} of them.", "\\boxed{{{}}}", "The answer is {}.0", "#### {}"]),
        ("multistep_arithmetic_two", ["{}", "= {}", "$\\boxed{{{}}}$", "The answer is {}.", "**{}**"]),
        ("word_sorting", ["{}", "Sorted: {}", "\\boxed{{{}}}", "So the answer is {}."]),
        ("dyck_languages", ["{}", "The answer is {}", "\\boxed{{{}}}", "So the answer is `{}`."]),
        ("date_understanding", ["({})", "{}", "\\boxed{{{}}}", "The answer is ({}).", "**{}**", "Option {}"]),
    ],
)
def test_a_right_answer_is_right_in_every_wording(task: str, texts: list[str], shared_data: Path) -> None:
    config = BenchmarkConfig("b", "bbh", limit=20, options={"task": task})
    items = load_items(config, str(shared_data))
    for text in texts:
        failed = [item.id for item in items if not right(item, text.format(item.reference["answer"]))]
        assert failed == [], text
    assert not any(
        right(item, text) for item in items for text in ("", "<think>" + spoken(item), "I cannot tell.")
    )


def test_brackets_may_be_given_with_those_that_they_close(shared_data: Path) -> None:
    config = BenchmarkConfig("b", "bbh", limit=20, options={"task": "dyck_languages"})
    for item in load_items(config, str(shared_data)):
        opening, missing = item.reference["opening"].strip(), item.reference["answer"]
        assert right(item, f"The answer is {opening} {missing}")
        assert not right(item, f"The answer is {opening}")


def test_examples_stand_before_the_question_without_the_canary(shared_data: Path) -> None:
    options: dict[str, Any] = {"task": "snarks", "shots": 2}
    items = load_items(BenchmarkConfig("b", "bbh", options=options), str(shared_data))
    text = items[0].messages[0]["content"]
    assert text.startswith("Determine which of two sentences is sarcastic.\n\n")
    assert "canary" not in text
    assert text.count("\nA: Let's think step by step.") == 3
    assert text.count("So the answer is (") == 2
    assert text.endswith("\nA: Let's think step by step.")
    for item in load_items(BenchmarkConfig("b", "bbh", options={"shots": 3}), str(shared_data)):
        assert item.messages[0]["content"].count("\nA: ") == 4, item.id


def test_what_is_not_there(tmp_path: Path, shared_data: Path) -> None:
    with pytest.raises(UsageError, match=r"no files TASK.json in .*github.com/suzgunmirac/BIG-Bench-Hard"):
        load_items(BBH, str(tmp_path))
    for options, words in (
        ({"task": "snark"}, "no task 'snark'; there are boolean_expressions"),
        ({"shots": 4}, "shots 4 is not between 0 and 3"),
        ({"shots": 1, "prompts": "elsewhere"}, r"boolean_expressions.txt: no such file; copy cot-prompts"),
    ):
        given: dict[str, Any] = options
        with pytest.raises(UsageError, match=words):
            load_items(BenchmarkConfig("b", "bbh", options=given), str(shared_data))
    write_json(tmp_path / "navigate.json", {"examples": [{"input": "Do you?", "target": "Maybe"}]})
    with pytest.raises(UsageError, match=r"navigate.json, example 1: target 'Maybe' is not Yes or No"):
        load_items(BenchmarkConfig("b", "bbh", path=str(tmp_path)), "")


def test_references_from_elsewhere_are_checked() -> None:
    task = get_task("bbh")
    task.check({"kind": "number", "answer": "3"}, "row 1")
    for reference, words in (
        ({"answer": "3"}, "row 1: no field 'kind'"),
        ({"kind": "sum", "answer": "3"}, "row 1: kind 'sum' is not one of letter, word"),
        ({"kind": "letter", "answer": "A"}, "row 1: no field 'letters'"),
        (
            {"kind": "word", "answer": "Yes", "task": "odd"},
            "row 1: target 'Yes' is not a word that the task has",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            task.check(reference, "row 1")
