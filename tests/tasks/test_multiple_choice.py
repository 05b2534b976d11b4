"""Lettered questions: whole files with right answers, chance for others', wordings, orders, bad files."""

import csv
import random
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.files import write_jsonl
from jax_sft.study.records import Item
from jax_sft.tasks.task import get_task, group_of, load_items

FILES = {"mmlu": (14042, "reasoning"), "mmlu_pro": (1400, "reasoning"), "truthfulqa_choice": (817, "general")}
# {0} the letter, {1} the small letter, {2} the words of the option.
WORDINGS = (
    "{0}",
    "{0}.",
    "({0})",
    "**{0}**",
    "\\boxed{{{0}}}",
    "\\boxed{{\\text{{{0}}}}}",
    "The answer is ({0}).",
    "the correct answer is {0}, since the others fail.",
    "Answer: {0}",
    "<answer>{0}</answer>",
    "**Answer: {0}. {2}**",
    "\\boxed{{{0}. {2}}}",
    "\\boxed{{{1}}}",
    "The answer is ({1}).",
    "Option {0} is correct.",
    "<think>Is it A or B? \\boxed{{A}}</think>\nAll in all:\n\n{0}",
    "\\boxed{{{2}}}",
    "The answer is {2}.",
    "{2}",
)


def accuracy(task: str, pairs: list[tuple[Item, str]]) -> float:
    found = [get_task(task).verdict(item, text, "stop").metrics["accuracy"] for item, text in pairs]
    return sum(found) / len(found)


@pytest.mark.parametrize("task", FILES)
def test_right_answers_score_one_and_shuffled_ones_at_chance(task: str, shared_data: Path) -> None:
    config = BenchmarkConfig(task)
    items = load_items(config, str(shared_data))
    assert (len(items), group_of(config)) == FILES[task]
    sample = random.Random(0).sample(items, min(len(items), 700))
    answers = [item.reference["answer"] for item in sample]
    for form in ("So it is $\\boxed{{{0}}}$.", "Thinking it over, the answer is ({0})."):
        assert accuracy(task, [(item, form.format(a)) for item, a in zip(sample, answers, strict=True)]) == 1
    random.Random(1).shuffle(answers)
    chance = sum(1 / len(item.reference["letters"]) for item in sample) / len(sample)
    shuffled = accuracy(task, [(item, f"\\boxed{{{a}}}") for item, a in zip(sample, answers, strict=True)])
    assert abs(shuffled - chance) < 0.06


@pytest.mark.parametrize("letter", ["A", "C", "E", "I", "J"])
def test_a_right_answer_is_right_in_every_wording(letter: str) -> None:
    letters = "ABCDEFGHIJ"
    words = [
        "a river",
        "the blue sea",
        "Ash",
        "an iron gate",
        "ten men",
        "no one",
        "dry land",
        "18 km",
        "ice",
        "rust",
    ]
    item = Item(
        "i", ({"role": "user", "content": "?"},), {"answer": letter, "letters": letters, "texts": words}
    )
    for wording in WORDINGS:
        for other in (letter, "B"):
            text = wording.format(other, other.lower(), words[letters.index(other)])
            verdict = get_task("mmlu_pro").verdict(item, text, "stop")
            assert verdict.answered, text
            assert verdict.metrics["accuracy"] == (other == letter), (text, verdict)


def test_no_answer_is_none() -> None:
    item = Item("i", (), {"answer": "A", "letters": "ABCD", "texts": ["one", "two", "three", "four"]})
    for text in ("", "I do not know.", "<think>The answer is A", "A dog or a cat?"):
        verdict = get_task("mmlu").verdict(item, text, "stop")
        assert (verdict.metrics["accuracy"], verdict.answered) == (0, False), text


def test_mmlu_with_examples(shared_data: Path) -> None:
    options: dict[str, Any] = {"subject": "anatomy", "shots": 2}
    items = load_items(BenchmarkConfig("m", "mmlu", options=options), str(shared_data))
    assert len(items) == 135
    text = items[0].messages[0]["content"]
    assert text.startswith(
        "The following are multiple choice questions (with answers) about anatomy.\n\nWhat is"
    )
    assert text.count("\nAnswer: ") == 2
    assert text.endswith("\nAnswer:")
    plain = load_items(BenchmarkConfig("m", "mmlu", options={"subject": "anatomy"}), str(shared_data))
    assert [item.reference for item in plain] == [item.reference for item in items]
    assert plain[0].messages[0]["content"].endswith("put the letter of your choice within \\boxed{}.")
    for wrong, words in (
        ({"subject": "anatomie"}, "no subject 'anatomie'; it has abstract"),
        ({"shots": 6}, "shots 6"),
    ):
        with pytest.raises(UsageError, match=words):
            load_items(BenchmarkConfig("m", "mmlu", options=wrong), str(shared_data))


def test_a_category_of_mmlu_pro(shared_data: Path) -> None:
    options: dict[str, Any] = {"category": "law"}
    assert len(load_items(BenchmarkConfig("m", "mmlu_pro", options=options), str(shared_data))) == 100
    with pytest.raises(UsageError, match="no category 'laws'; there are biology, business"):
        load_items(BenchmarkConfig("m", "mmlu_pro", options={"category": "laws"}), str(shared_data))


def gpqa(folder: Path, rows: int) -> None:
    (folder / "benchmarks").mkdir(exist_ok=True)
    with open(folder / "benchmarks" / "gpqa_diamond.csv", "w", newline="") as file:
        writer = csv.writer(file)
        names = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
        writer.writerow(["Record ID", "Question", "Correct Answer", *names])
        writer.writerows(
            [[f"rec{row}", f"Q{row}?", "right\n", "wrong", "false", "bad"] for row in range(rows)]
        )


def test_gpqas_options_are_in_a_stable_order_of_their_own(tmp_path: Path) -> None:
    gpqa(tmp_path, 200)
    items = load_items(BenchmarkConfig("gpqa"), str(tmp_path))
    assert items[0].messages[0]["content"].startswith("Q0?\nA. ")
    # By the record alone, whatever stands before it: the same in every process and in every file.
    assert [item.reference["answer"] for item in items[:12]] == list("CDDAAACADDDB")
    counts = Counter(item.reference["answer"] for item in items)
    assert min(counts.values()) > 30
    assert all(item.reference["texts"]["ABCD".index(item.reference["answer"])] == "right" for item in items)
    other = load_items(BenchmarkConfig("gpqa", options={"seed": 1}), str(tmp_path))
    assert sum(a.reference == b.reference for a, b in zip(items, other, strict=True)) < 30  # 1 in 24


def test_files_that_are_not_there_or_malformed(tmp_path: Path) -> None:
    for task, words in (
        (
            "gpqa",
            r"accept the terms at huggingface.co/datasets/Idavidrein/gpqa, and put its gpqa_diamond.csv",
        ),
        ("mmlu", r"no file .*benchmarks/mmlu.zip .*github.com/hendrycks/test"),
        ("mmlu_pro", "TIGER-Lab/MMLU-Pro"),
        ("truthfulqa_choice", "github.com/sylinrl/TruthfulQA"),
    ):
        with pytest.raises(UsageError, match=words):
            load_items(BenchmarkConfig(task), str(tmp_path))
    config = BenchmarkConfig("m", "mmlu", path="m.zip")
    (tmp_path / "m.zip").write_text("no zip")
    with pytest.raises(UsageError, match=r"m.zip: is not a zip file"):
        load_items(config, str(tmp_path))
    for row, words in (
        ("q,a,b,c,d\n", "row 1: has 5 fields instead of 6"),
        ("q,a,b,c,d,E\n", "answer 'E' is not"),
    ):
        with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
            archive.writestr("test/law_test.csv", row)
        with pytest.raises(UsageError, match=words):
            load_items(config, str(tmp_path))
    write_jsonl(tmp_path / "p.jsonl", [{"question_id": 1, "question": "?", "category": "x", "answer": "A"}])
    with pytest.raises(UsageError, match="row 1: no field 'options'"):
        load_items(BenchmarkConfig("m", "mmlu_pro", path="p.jsonl"), str(tmp_path))
