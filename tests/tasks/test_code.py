"""HumanEval, MBPP and LiveCodeBench: what is asked, what is run of an answer, and the verdict on it."""

import base64
import json
import pickle
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.judging import check_sandbox, judge
from jax_sft.files import read_json, read_jsonl, write_jsonl
from jax_sft.responses import sandbox as boxes
from jax_sft.responses.programs import answering_block, continuation, defines, fenced_blocks
from jax_sft.responses.workers import Limits, Workers
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import get_task, load_items

ADD = {
    "task_id": "T/0",
    "prompt": "from typing import List\n\ndef one():\n    return 1\n\n"
    'def add(xs: List[int]) -> int:\n    """Sum."""\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3 and one() == 1\n",
}
SUM = {
    "task_id": 11,
    "prompt": "Write a function to add.",
    "code": "def add(a, b): return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert math.isclose(add(0, 1), 1)"],
    "test_imports": ["import math"],
}


def only(name: str, folder: Path, *rows: dict[str, Any], **options: Any) -> list[Item]:
    write_jsonl(folder / "x.jsonl", rows)
    return load_items(BenchmarkConfig(name, path="x.jsonl", options=options), str(folder))


def metrics(task: str, item: Item, completion: str) -> dict[str, float]:
    return get_task(task).verdict(item, completion, "stop").metrics


def block(code: str) -> str:
    return f"<think>```python\nwrong\n```</think>Here:\n```python\n{code}\n```\nDone."


def test_blocks_of_code() -> None:
    text = "a\n```python\nx = 1\n```\n~~~\ny\n~~~\n```json\n{}\n```\n```py\nunclosed"
    assert fenced_blocks(text) == ["x = 1\n", "y\n", "unclosed"]
    assert fenced_blocks("```text\nx\n```") == ["x\n"]
    assert answering_block("no code") is None
    two = "```python\ndef f(): pass\n```\nFor example:\n```python\nprint(f())\n```"
    assert answering_block(two, ["f"]) == "def f(): pass\n"
    assert answering_block(two) == "print(f())\n"
    assert defines("f = lambda: 1", "f")
    assert not defines("f == 1\n    def f(): 1", "f")
    assert continuation("    return 1\n\ndef g(): pass") == "    return 1\n"


@pytest.mark.parametrize(
    ("completion", "accuracy", "form"),
    [
        (block("def add(xs):\n    return sum(xs)"), 1, 1),
        (block("    return sum(xs)"), 1, 1),
        ("    return sum(xs)\n\ndef other(:", 1, 1),
        ("def add(xs):\n    return sum(xs)", 1, 1),
        (block("def add(xs):\n    return 0"), 0, 1),
        (block("def add(xs):\n    return sum(xs"), 0, 0),
        (block("import os\nos._exit(0)"), 0, 1),
        (block("def add(xs): return 3\nraise SystemExit"), 0, 1),
        (block("def add(xs): return sum(xs)\nif __name__ == '__main__': print(add(input()))"), 1, 1),
        (block("from __future__ import annotations\ndef add(xs: Any) -> int: return sum(xs)"), 1, 1),
        ("I cannot.", 0, 0),
    ],
)
def test_humaneval(completion: str, accuracy: int, form: int, sandbox: None, tmp_path: Path) -> None:
    [item] = only("humaneval", tmp_path, ADD)
    assert ADD["prompt"].rstrip() in item.messages[0]["content"]
    assert metrics("humaneval", item, completion) == {"accuracy": accuracy, "form": form}


def test_mbpp(sandbox: None, tmp_path: Path) -> None:
    [item] = only("mbpp", tmp_path, SUM)
    assert item.messages[0]["content"].startswith(
        "You are an expert Python programmer, and here is your task:"
    )
    assert "assert add(1, 2) == 3\n" in item.messages[0]["content"]
    for right in (
        block(SUM["code"]),
        SUM["code"],
        f"[BEGIN]\n{SUM['code']}\n[DONE]\nmore",
        "```\n" + SUM["code"],
    ):
        assert metrics("mbpp", item, right) == {"accuracy": 1, "form": 1}
    assert metrics("mbpp", item, block("def add(a, b): return a")) == {"accuracy": 0, "form": 1}


def test_mbpp_with_examples(tmp_path: Path) -> None:
    rows = [{**SUM, "task_id": number} for number in (2, 3, 4, 5, 11, 600)]
    assert [item.id for item in only("mbpp", tmp_path, *rows)] == [f"mbpp-{n}" for n in (2, 3, 4, 5, 11, 600)]
    items = only("mbpp", tmp_path, *rows, shots=2, split="test")
    assert [item.id for item in items] == ["mbpp-11"]
    assert [turn["role"] for turn in items[0].messages] == ["user", "assistant"] * 2 + ["user"]
    assert items[0].messages[1]["content"] == "```python\ndef add(a, b): return a + b\n```"
    for options, message in (
        ({"shots": 4}, "shots must be 0 to 3, not 4"),
        ({"split": "train"}, "split must be all or test, not 'train'"),
    ):
        with pytest.raises(UsageError, match=message):
            only("mbpp", tmp_path, *rows, **options)
    with pytest.raises(UsageError, match="3 shots need task 2, which is absent"):
        only("mbpp", tmp_path, SUM, shots=3)


@pytest.mark.parametrize("name", ["humaneval", "mbpp", "livecodebench"])
def test_nothing_said_is_no_answer(name: str) -> None:
    for completion in ("", " \n", "<think>```python\nx\n```"):
        verdict = get_task(name).verdict(Item("x", (), {}), completion, "stop")
        assert verdict == Verdict({"accuracy": 0, "form": 0}, answered=False)


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("humaneval", {**ADD, "entry_point": "sub"}, "row 1: entry_point 'sub' is not defined in the prompt"),
        ("humaneval", {**ADD, "test": ""}, "row 1: field 'test' is empty"),
        (
            "mbpp",
            {**SUM, "test_list": "assert"},
            "row 1: test_list must be a list of assertions, found assert",
        ),
        ("mbpp", {**SUM, "task_id": "x"}, "row 1: task_id must be a number, not 'x'"),
    ],
)
def test_malformed_rows(task: str, row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        only(task, tmp_path, row)


def problem(tests: Any, **fields: Any) -> dict[str, Any]:
    return {
        "question_id": "p",
        "question_content": "Add.",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": tests,
        "private_test_cases": "",
        "metadata": json.dumps({"func_name": "plus"}),
        **fields,
    }


def cases(kind: str, *pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"input": given, "output": wanted, "testtype": kind} for given, wanted in pairs]


STDIN = cases("stdin", ("1 2\n", "3\n"), ("2 2\n", "4.0 \n"))
CALLS = cases("functional", ("1\n2", "3"), ("[1]\n[2]", "[1, 2]"))


def test_livecodebench_programs(sandbox: None, tmp_path: Path) -> None:
    [item] = only("livecodebench", tmp_path, problem(STDIN))
    assert "Read the inputs from stdin" in item.messages[0]["content"]
    right = {"accuracy": 1, "tests": 1, "form": 1, "accuracy_easy": 1}
    for code in (
        "print(sum(map(int, input().split())))",
        "if __name__ == '__main__':\n    print(sum(map(int, sys.stdin.read().split())))\n    exit()",
        "import os\nprint(sum(map(int, os.read(0, os.fstat(0).st_size).split())))",
        "from threading import Thread\ndef main(): print(sum(map(int, input().split())))\n"
        "Thread(target=main).start()",
    ):
        assert metrics("livecodebench", item, block(code)) == right, code
    wrong = {"accuracy": 0, "tests": 0.5, "form": 1, "accuracy_easy": 0}
    assert metrics("livecodebench", item, block("print(3)")) == wrong
    assert metrics("livecodebench", item, block("print(3)\nexit(1)"))["tests"] == 0
    assert metrics("livecodebench", item, block("print('3', 'x')"))["tests"] == 0
    assert metrics("livecodebench", item, block("print("))["form"] == 0


def test_livecodebench_functions(sandbox: None, tmp_path: Path) -> None:
    starter = "class Solution:\n    def plus(self, a, b):\n        "
    [item] = only("livecodebench", tmp_path, problem(CALLS, starter_code=starter))
    assert "class Solution:\n    def plus(self, a, b):\n```" in item.messages[0]["content"]
    solution = (
        "class Solution:\n    def plus(self, a: List[int], b):\n        print('noise')\n        return a + b"
    )
    assert metrics("livecodebench", item, block(solution))["accuracy"] == 1
    assert metrics("livecodebench", item, block("def plus(a, b):\n    return a + b"))["accuracy"] == 1
    tuples = "def plus(a, b): return tuple(a + b) if isinstance(a, list) else a + b"
    assert metrics("livecodebench", item, block(tuples))["accuracy"] == 1
    assert metrics("livecodebench", item, block("def plus(a, b): return 3"))["tests"] == 0.5
    assert metrics("livecodebench", item, block("def other(a, b): return 3"))["tests"] == 0
    assert metrics("livecodebench", item, block("def plus(a, b): return {1}"))["tests"] == 0


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def test_livecodebench_reads_tests_in_every_form_and_runs_no_pickle(tmp_path: Path) -> None:
    text = json.dumps(STDIN)
    for form in (STDIN, text, packed(text.encode()), packed(pickle.dumps(text))):
        [item] = only("livecodebench", tmp_path, problem(STDIN, private_test_cases=form))
        assert item.reference["tests"] == [["1 2\n", "3\n"], ["2 2\n", "4.0 \n"]] * 2

    class Touch:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for form, message in (
        (
            packed(pickle.dumps(Touch())),
            "private_test_cases: a pickle of something else than text, .* it names",
        ),
        ("!?", "neither JSON nor base64 of compressed JSON"),
        ([{"input": "1"}], "test 1 must have input, output and testtype"),
        (cases("file", ("", "")), "testtype must be stdin or functional, not 'file'"),
        (CALLS, "tests must be all stdin or all functional"),
    ):
        with pytest.raises(UsageError, match=message):
            only("livecodebench", tmp_path, problem(STDIN, private_test_cases=form))
    assert not (tmp_path / "ran").exists()
    for fields, message in (
        ({"metadata": "{}"}, "functional tests need metadata with func_name"),
        ({"public_test_cases": ""}, "found no tests"),
    ):
        with pytest.raises(UsageError, match=message):
            only("livecodebench", tmp_path, problem(CALLS, **fields))


def gold(name: str, shared_data: Path) -> tuple[list[Item], list[str]]:
    items = load_items(BenchmarkConfig(name), str(shared_data))
    if name == "humaneval":
        rows: list[Any] = list(read_jsonl(shared_data / "benchmarks" / "HumanEval.jsonl.gz"))
        return items, [block(row["prompt"] + row["canonical_solution"]) for row in rows]
    rows = read_json(shared_data / "benchmarks" / "mbpp_sanitized.json")
    return items, [block(row["code"]) for row in rows]


def accuracies(name: str, items: Sequence[Item], completions: Sequence[str]) -> list[float]:
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda pair: metrics(name, *pair), zip(items, completions, strict=True))
        return [values["accuracy"] for values in found]


@pytest.mark.parametrize(("name", "count"), [("humaneval", 164), ("mbpp", 427)])
def test_canonical_solutions_of_some(name: str, count: int, sandbox: None, shared_data: Path) -> None:
    items, completions = gold(name, shared_data)
    assert len(items) == count
    assert accuracies(name, items[::20], completions[::20]) == [1] * len(items[::20])
    shuffled = [*completions[1:], completions[0]]
    assert accuracies(name, items[::20], shuffled[::20]) == [0] * len(items[::20])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_canonical_solutions_of_all(name: str, sandbox: None, shared_data: Path) -> None:
    items, completions = gold(name, shared_data)
    assert accuracies(name, items, completions) == [1] * len(items)
    shuffled = [*completions[1:], completions[0]]
    assert sum(accuracies(name, items, shuffled)) <= 2


def test_judged_in_other_processes(sandbox: None, tmp_path: Path) -> None:
    [item] = only("humaneval", tmp_path, ADD)
    slow = block("import time\ndef add(xs):\n    time.sleep(2)\n    return sum(xs)")
    asked = [(item, text, "stop") for text in (slow, block("def add(xs): return 0"))]
    with Workers(Limits(processes=2, seconds=1.0)) as workers:  # the sandbox's own limits count, not this one
        verdicts = judge("humaneval", asked, workers)
    assert [verdict and verdict.metrics["accuracy"] for verdict in verdicts] == [1, 0]


def test_without_a_sandbox_a_judge_refuses_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "_sandbox", lambda: (None, "no bubblewrap"))
    with (
        Workers(Limits()) as workers,
        pytest.raises(JaxSftError, match="no bubblewrap; or pass --evaluation"),
    ):
        judge("mbpp", [], workers)
    with Workers(Limits(allow_unsandboxed_code=True)) as workers:
        assert judge("mbpp", [], workers) == []
    check_sandbox("gsm8k", allow_unsandboxed_code=False)
