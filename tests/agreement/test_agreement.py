"""Our verdicts beside those of lm-evaluation-harness, math-verify and HumanEval's own scorer, form by form.

Where they differ is listed here, and explained in docs/evaluation.md: everywhere else they are equal, item by
item. The others' verdicts are stored; `tests/agreement/others.py` says how they were had.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from jax_sft.tasks.task import get_task
from tests.agreement.cases import BBH, FORMS, LETTER, Case, all_cases

STRICT = {"alone", "boxed", "bold", "taken back", "after a thought"}
"""Right answers that a pattern of "the answer is …" misses, or reads on to the end of the line."""
NOT_THERE = {"bold", "boxed", "letter only"}
RIGHT_MISSED: dict[tuple[str, str], set[str]] = {
    ("gsm8k", "strict-match"): {
        *("stated", "boxed", "bold", "money", "in a sentence", "a number after it", "after a thought"),
    },
    ("gsm8k", "flexible-extract"): {"a number after it"},
    ("mmlu", "strict-match"): {*NOT_THERE, "words", "with words", "taken back", "after a thought"},
    ("mmlu", "flexible-extract"): {*NOT_THERE, "bare", "small"},
    ("mmlu_pro", "custom-extract"): {
        *(*NOT_THERE, "words", "with words", "small", "taken back", "after a thought"),
    },
    ("bbh/date_understanding", "strict-match"): {
        *(*NOT_THERE, "bare", "words", "with words", "taken back", "after a thought"),
    },
    ("bbh/date_understanding", "flexible-extract"): {*NOT_THERE, "bare", "small"},
    **{(f"bbh/{task}", "strict-match"): STRICT for task in BBH if BBH[task] is not LETTER},
    ("math500", "hendrycks_math"): {"solution", "boxed", "with a full stop", "after a thought"},
    ("math500", "math_verify"): {"with a full stop", "after a thought"},
}
"""By task and scorer, the forms of right answers that are right here and wrong there."""
THOUGHT_COUNTED = "thought only"
"""A thought that never ended holds no answer here; they read it."""
NOT_READ_EITHER = {
    *("gsm8k strict-match", "math500 hendrycks_math", "humaneval human_eval", "mbpp human_eval"),
}


@pytest.fixture(scope="module")
def ours(shared_data: Path) -> dict[tuple[str, str], str]:
    """By task and form, a digit for each item."""
    found: dict[tuple[str, str], str] = defaultdict(str)
    for case in all_cases(str(shared_data)):
        found[case.task, case.form] += _right(case)
    return found


def _right(case: Case) -> str:
    task = get_task(case.task.partition("/")[0])
    return str(int(task.verdict(case.item, case.completion, "stop").metrics["accuracy"]))


@pytest.fixture(scope="module")
def theirs(golden: Path) -> dict[str, dict[str, dict[str, str]]]:
    return json.loads((golden / "agreement.json").read_text())["verdicts"]


def test_right_answers_are_right_here_in_every_form_and_wrong_ones_wrong(
    ours: dict[tuple[str, str], str], sandbox: None
) -> None:
    wrong = ("wrong", "thought only", "returns nothing", "no python", "empty")
    for (task, form), digits in ours.items():
        expected = "0" if form.startswith(wrong) else "1"
        assert set(digits) == {expected}, (task, form, digits)


def test_every_difference_from_the_others_is_one_of_those_listed(
    ours: dict[tuple[str, str], str], theirs: dict[str, dict[str, dict[str, str]]], sandbox: None
) -> None:
    assert set(theirs) == {*FORMS, *(f"bbh/{task}" for task in BBH)}
    differing: dict[tuple[str, str], set[str]] = defaultdict(set)
    for task, scorers in theirs.items():
        for scorer, forms in scorers.items():
            assert set(forms) == {form for other, form in ours if other == task}
            for form, digits in forms.items():
                assert len(digits) == len(ours[task, form])
                if digits != ours[task, form]:
                    differing[task, scorer].add(form)
    thought = {key for key, forms in differing.items() if THOUGHT_COUNTED in forms}
    assert {
        key: forms - {THOUGHT_COUNTED} for key, forms in differing.items() if forms != {THOUGHT_COUNTED}
    } == {**RIGHT_MISSED}
    every = {(task, scorer) for task, scorers in theirs.items() for scorer in scorers}
    assert {f"{task} {scorer}" for task, scorer in every - thought} <= NOT_READ_EITHER
