"""IFEval: the published figures of GPT-4, the verdicts of the authors' program, and bad rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.evaluation.judging import judge
from jax_sft.evaluation.score import summarise
from jax_sft.files import read_jsonl, write_jsonl
from jax_sft.responses.workers import Limits, Workers
from jax_sft.study.records import CompletionLine
from jax_sft.tasks.task import get_task, load_items

IFEVAL = BenchmarkConfig("ifeval")
ROW: dict[str, Any] = {
    "key": 1,
    "prompt": "Say it.",
    "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
    "kwargs": [{"relation": None}, {}],
}


def test_gpt4_scores_as_published_and_item_by_item_as_by_the_authors_program(
    shared_data: Path, golden: Path
) -> None:
    """Table 3 of arXiv 2311.07911; golden/ifeval_gpt4.txt holds what the public checkers give."""
    task, items = get_task("ifeval"), load_items(IFEVAL, str(shared_data))
    rows = list(read_jsonl(shared_data / "fixtures" / "ifeval_gpt4_responses.jsonl"))
    assert len(items) == len(rows) == 541
    verdicts = [task.verdict(item, row["response"], "stop") for item, row in zip(items, rows, strict=True)]
    lines = [
        CompletionLine(item.id, 0, row["response"], 1, "stop") for item, row in zip(items, rows, strict=True)
    ]
    metrics = summarise(IFEVAL, lines, verdicts, items)["metrics"]
    published = {
        "prompt_strict": 76.89,
        "instruction_strict": 83.57,
        "prompt_loose": 79.30,
        "instruction_loose": 85.37,
    }
    for name, value in published.items():
        assert 100 * metrics[name].mean == pytest.approx(value, abs=0.5), name
    for item, verdict, line in zip(
        items, verdicts, (golden / "ifeval_gpt4.txt").read_text().splitlines(), strict=True
    ):
        key, strict, loose = line.split()
        assert item.id == f"ifeval-{key}"
        if key == "1122":  # asks for the mark #, in whose place the public checker draws a letter at random
            continue
        for manner, flags in (("strict", strict), ("loose", loose)):
            assert verdict.metrics[f"instruction_{manner}"] == flags.count("1") / len(flags), item.id


def write(folder: Path, **changes: Any) -> BenchmarkConfig:
    write_jsonl(folder / "items.jsonl", [ROW | changes])
    return BenchmarkConfig("ifeval", path="items.jsonl")


def test_thinking_does_not_count_and_endless_thinking_follows_nothing(tmp_path: Path) -> None:
    [item] = load_items(write(tmp_path), str(tmp_path))
    task = get_task("ifeval")
    right = task.verdict(item, '<think>a, b</think>\n"it"', "stop")
    assert set(right.metrics.values()) == {1.0}
    for completion in ("<think>\n it", "", " \n"):
        nothing = task.verdict(item, completion, "length")
        assert set(nothing.metrics.values()) == {0.0}
        assert not nothing.answered
    half = task.verdict(item, "it", "stop").metrics
    assert (half["prompt_strict"], half["instruction_strict"]) == (0, 0.5)


def test_verdicts_in_worker_processes(tmp_path: Path) -> None:
    [item] = load_items(write(tmp_path), str(tmp_path))
    with Workers(Limits(processes=1)) as workers:
        [verdict] = judge("ifeval", [(item, '"it"', "stop")], workers)
    assert verdict == get_task("ifeval").verdict(item, '"it"', "stop")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": ""}, "row 1: field 'prompt' is empty"),
        ({"kwargs": [{}]}, "row 1: has 2 instructions and 1 kwargs"),
        ({"instruction_id_list": ["a:b", "c:d"]}, "row 1: unknown instruction 'a:b'"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_items(write(tmp_path, **changes), str(tmp_path))


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ifeval_input_data.jsonl.*github.com/google-research"):
        load_items(IFEVAL, str(tmp_path))
    (tmp_path / "items.jsonl").write_text(json.dumps(ROW) + "\n{")
    with pytest.raises(UsageError, match="line 2: not JSON"):
        load_items(BenchmarkConfig("ifeval", path="items.jsonl"), str(tmp_path))
