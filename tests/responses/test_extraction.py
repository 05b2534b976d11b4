"""60 hand-written completions for each type of answer: what is read in them, the original's traps among them.

The traps: thoughts with answers in them or without an end, an answer taken back, boxes before the last,
letters in brackets or within words, stop strings and blank lines in a completion, blocks that do not answer.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jax_sft.files import read_jsonl
from jax_sft.responses.letters import choice
from jax_sft.responses.mathematics import judge
from jax_sft.responses.numbers import final_number, to_fraction
from jax_sft.responses.programs import answering_block
from jax_sft.responses.thinking import visible
from jax_sft.responses.words import word
from jax_sft.study.records import Item
from jax_sft.tasks.task import get_task

CASES = list(read_jsonl(Path(__file__).parent / "extraction_cases.jsonl"))
OPTIONS = ("bank", "river", "shop", "house", "dog park")
PUZZLE = Item("i", (), {"numbers": [3, 7, 50, 25], "target": 71})


def letter(said: str, case: dict[str, Any]) -> str | None:
    found = choice(said, "ABCDE", OPTIONS)
    return found and found.text


def number(said: str, case: dict[str, Any]) -> str | None:
    found = final_number(said)
    value = to_fraction(found.text) if found else None
    return None if value is None else str(value)


def yes_or_no(said: str, case: dict[str, Any]) -> str | None:
    found = word(said, ("Yes", "No"))
    return found and found.text


READERS: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "letter": letter,
    "number": number,
    "mathematics": lambda said, case: bool(judge(said, case["gold"]).right),
    "code": lambda said, case: answering_block(said, ("f",)),
    "countdown": lambda said, case: (
        get_task("countdown").verdict(PUZZLE, case["text"], "stop").metrics["accuracy"] == 1
    ),
    "yes or no": yes_or_no,
}


def test_there_are_60_of_each_type() -> None:
    assert Counter(case["kind"] for case in CASES) == dict.fromkeys(READERS, 60)


@pytest.mark.parametrize("kind", READERS)
def test_what_is_read_in_a_completion(kind: str) -> None:
    cases = [case for case in CASES if case["kind"] == kind]
    found = [READERS[kind](visible(case["text"]) or "", case) for case in cases]
    expected = [case["expected"] for case in cases]
    wrong = [
        (case["text"], read) for case, read in zip(cases, found, strict=True) if read != case["expected"]
    ]
    assert wrong == []
    assert len(set(map(str, expected))) > 1
