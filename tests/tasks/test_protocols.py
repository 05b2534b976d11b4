"""The paper's protocol: its prompts, its order of options, and each trap alone."""

import dataclasses
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.files import write_json, write_jsonl
from jax_sft.study.records import Item
from jax_sft.tasks.protocols import TRAPS, PaperRules, reading_traps, salted_seeds
from jax_sft.tasks.task import get_task, load_items, scorer_of
from tests.tasks.test_multiple_choice import gpqa

CHOICE: dict[str, Any] = {"answer": "B", "letters": "ABCD", "texts": ["one", "two", "three", "four"]}
HALUEVAL = {"answer": "No"}
MATH = {"answer": "7", "solution": "It is $\\boxed{8}$."}
SUM = {"tests": [["1\n2", "3"]], "function": "total", "difficulty": "easy"}
IFEVAL = {"instructions": [{"name": "keywords:existence", "arguments": {"keywords": ["sea"]}}]}


def first_prompt(config: BenchmarkConfig, root: Path) -> str:
    return load_items(config, str(root))[0].messages[-1]["content"]


def by_trap(task: str, reference: dict[str, Any], text: str, *traps: str) -> tuple[float, float]:
    """The headline by the standard protocol, and with the traps on."""
    item, rules = Item("i", (), reference), get_task(task)
    changed = PaperRules(task, traps, rules.verdict)
    found = rules.verdict(item, text, "stop"), changed.verdict(item, text, "stop")
    return found[0].metrics[rules.headline], found[1].metrics[rules.headline]


@pytest.mark.parametrize(
    ("task", "reference", "text", "trap", "expected"),
    [
        ("math500", MATH, "<think>\\boxed{7}</think>I give up.", "whole_output", (0, 1)),
        ("math500", MATH, "\\boxed{7.}", "verify_by_defaults", (1, 0)),
        ("math500", MATH, "\\boxed{8}", "gold_from_solution", (0, 1)),
        ("aime24", {"answer": "7"}, "<think>\\boxed{7}", "whole_output", (0, 1)),
        ("mmlu_pro", CHOICE, "<think>\\boxed{B}</think>", "whole_output", (0, 1)),
        ("mmlu_pro", CHOICE, "The answer is A? No, \\boxed{B}.", "first_match", (1, 0)),
        ("mmlu_pro", CHOICE, "B. two", "first_match", (1, 0)),
        ("mmlu_pro", CHOICE, "By Q: see above. \\boxed{B}", "stop_strings", (1, 0)),
        ("gpqa", CHOICE, "<think>\\boxed{B}</think>No.", "whole_output", (0, 1)),
        ("gpqa", CHOICE, "\\boxed{(B)}", "box_or_phrase", (1, 0)),
        ("gpqa", CHOICE, "It would be a bad choice; choose beta", "box_or_phrase", (0, 1)),
        ("halueval", HALUEVAL, "<think>a\n\nb</think>\\boxed{No}", "blank_line", (1, 0)),
        ("halueval", HALUEVAL, "<think>is it? No", "unclosed_thought", (0, 1)),
        ("halueval", HALUEVAL, "\\boxed{No}, not yes.", "last_yes_or_no", (1, 0)),
        ("ifeval", IFEVAL, "<think>the sea", "unclosed_thought", (0, 1)),
    ],
)
def test_each_trap_alone_changes_what_it_says(
    task: str, reference: dict[str, Any], text: str, trap: str, expected: tuple[float, float]
) -> None:
    assert by_trap(task, reference, text, trap) == expected
    assert by_trap(task, reference, text) == (expected[0], expected[0])


@pytest.mark.parametrize(
    ("text", "trap", "expected"),
    [
        ("<think>```python\ndef total(a, b): return a + b\n```\n</think>no", "whole_output", (0, 1)),
        ("```\ndef total(a, b): return a + b\n```", "python_fence", (1, 0)),
        (
            "```python\nclass Solution:\n  def total(self, a, b): return a + b\n```",
            "first_name_called",
            (1, 0),
        ),
        ("```python\ndef plus(a, b): return a + b\n```", "first_name_called", (0, 1)),
    ],
)
def test_each_trap_of_livecodebench(
    text: str, trap: str, expected: tuple[float, float], sandbox: None
) -> None:
    assert by_trap("livecodebench", SUM, text, trap) == expected


def test_every_trap_is_named_once_and_has_what_its_kind_needs() -> None:
    assert len({trap.name for trap in TRAPS}) == len(TRAPS)
    for trap in TRAPS:
        assert (trap.read is not None) == (trap.kind in ("cut", "thought", "reading")), trap.name
    assert reading_traps("gsm8k") == ()
    assert reading_traps("mmlu_pro") == ("stop_strings", "whole_output", "first_match")


def test_rules_travel_to_other_processes() -> None:
    rules = PaperRules("gpqa", reading_traps("gpqa"), get_task("gpqa").verdict)
    copied = pickle.loads(pickle.dumps(rules.verdict))
    assert copied(Item("i", (), CHOICE), "\\boxed{b}", "stop").metrics == {"accuracy": 1}


def test_the_papers_prompts(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "m.jsonl", [{"problem": "1 {options}?", "answer": "2", "solution": "\\boxed{2}"}])
    math = BenchmarkConfig("m", "math500", path="m.jsonl", protocol="paper")
    assert first_prompt(math, tmp_path) == (
        "1 {options}?\n Please reason step by step, and put your final answer within \\boxed{}."
    )
    assert load_items(math, str(tmp_path))[0].reference["solution"] == "\\boxed{2}"
    assert (
        "solution"
        not in load_items(dataclasses.replace(math, protocol="standard"), str(tmp_path))[0].reference
    )
    gpqa(tmp_path, 1)
    text = first_prompt(BenchmarkConfig("gpqa", protocol="paper"), tmp_path)
    assert text.startswith("Problem: Q0?\nOptions: A) ")
    assert text.count(", ") > 3
    assert text.endswith("Only include the letter choice (A, B, C, or D) as your final answer.")
    row = {"question_id": 1, "question": "Which?", "options": ["x", "y"], "answer": "A", "category": "law"}
    write_jsonl(tmp_path / "p.jsonl", [row])
    assert first_prompt(BenchmarkConfig("p", "mmlu_pro", path="p.jsonl", protocol="paper"), tmp_path) == (
        "Question:\nWhich?\nOptions:\nA. x\nB. y\nPlease reason step by step and return your final answer "
        "within \\boxed{}. Only include the letter choice (A, B, C, D, E, F, G, H, I or J) as your final "
        "answer."
    )
    row = {"key": 1, "prompt": "Sing.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    write_jsonl(tmp_path / "i.jsonl", [row])
    ifeval = BenchmarkConfig("i", "ifeval", path="i.jsonl", protocol="paper")
    assert first_prompt(ifeval, tmp_path) == "Question: Sing.\nAnswer:"
    row = {"knowledge": "K", "question": "Q?", "right_answer": "A", "hallucinated_answer": "A"}
    write_json(tmp_path / "h.json", [row])
    halueval = BenchmarkConfig("h", "halueval", path="h.json", protocol="paper")
    assert first_prompt(halueval, tmp_path).endswith(
        'MUST be "Yes" or "No"".\n\n#Knowledge: K\n#Question#: Q?\n#Answer#: A\n#Your Judgement#:'
    )


def test_open_questions_are_asked_bare_or_after_a_mark(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Sing."}])
    assert (
        first_prompt(BenchmarkConfig("a", "alpaca_eval", path="a.jsonl", protocol="paper"), tmp_path)
        == "Sing."
    )
    write_jsonl(tmp_path / "t.jsonl", [{"Question": "Why?", "Best Answer": "So."}])
    truthfulqa = BenchmarkConfig("t", "truthfulqa", path="t.jsonl", protocol="paper")
    assert first_prompt(truthfulqa, tmp_path) == "\n\nQ: Why?"


def test_livecodebench_shows_no_starter_and_runs_private_tests_only(tmp_path: Path) -> None:
    tests = [[{"input": place, "output": "3", "testtype": "functional"}] for place in ("1", "2")]
    row = {
        "question_id": "q",
        "question_content": "Add.",
        "starter_code": "class Solution:",
        "public_test_cases": json.dumps(tests[0]),
        "private_test_cases": json.dumps(tests[1]),
        "metadata": json.dumps({"func_name": "add"}),
    }
    write_jsonl(tmp_path / "l.jsonl", [row])
    config = BenchmarkConfig("l", "livecodebench", path="l.jsonl", protocol="paper")
    item = load_items(config, str(tmp_path))[0]
    assert item.reference["tests"] == [["2", "3"]]
    assert "class Solution" not in item.messages[0]["content"]
    assert "passes all tests.Add.Do not directly test" in item.messages[0]["content"]


def test_gpqas_order_is_that_of_a_process_whose_hash_seed_is_so(tmp_path: Path) -> None:
    gpqa(tmp_path, 40)

    def order(seed: int) -> list[str]:
        config = BenchmarkConfig("gpqa", protocol="paper", options={"hash_seed": seed})
        return [item.reference["answer"] for item in load_items(config, str(tmp_path))]

    assert order(0) == order(0)
    assert order(0) != order(1)
    shown = subprocess.run(
        [sys.executable, "-c", "print(hash('Q7?') % 10000)"],
        env={"PYTHONHASHSEED": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    seed = 42 + int(shown.stdout)
    assert salted_seeds(("Q0?", "Q7?"), 3)[1] == seed
    places = [0, 1, 2, 3]
    random.Random(seed).shuffle(places)
    assert order(3)[7] == "ABCD"[places.index(0)]


def test_a_protocol_is_part_of_what_scores_are_by() -> None:
    assert (
        scorer_of(BenchmarkConfig("math500", protocol="paper"))
        == f"{scorer_of(BenchmarkConfig('math500'))} paper"
    )
    with pytest.raises(
        UsageError, match="benchmark g: protocol paper has no task 'gsm8k'; it has aime24, aime25"
    ):
        load_items(BenchmarkConfig("g", "gsm8k", protocol="paper"), "")


def test_an_unknown_task_names_near_ones() -> None:
    with pytest.raises(
        UsageError, match=r"unknown task 'mmlu_por'; did you mean mmlu_pro\?; known: advbench"
    ):
        get_task("mmlu_por")
