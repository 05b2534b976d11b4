"""The judge of mathematics: wordings of right answers, near ones that are wrong, golds beyond reading."""

import time
from pathlib import Path
from typing import Any

import pytest

from jax_sft.files import read_jsonl
from jax_sft.responses.latex import tidy
from jax_sft.responses.mathematics import LONGEST_ANSWER, equal, judge
from jax_sft.responses.thinking import visible

WORDINGS = list(read_jsonl(Path(__file__).parent / "mathematics_wordings.jsonl"))
"""By right answer: what is right and wrong in a box, and as a whole text."""


@pytest.mark.parametrize("row", WORDINGS, ids=[row["gold"] for row in WORDINGS])
def test_wordings(row: dict[str, Any]) -> None:
    cases = {
        f"So \\boxed{{{answer}}}.": kind == "right" for kind in ("right", "wrong") for answer in row[kind]
    }
    cases |= {text: kind == "right" for kind in ("right", "wrong") for text in row[f"{kind}_texts"]}
    assert {text: bool(judge(visible(text) or "", row["gold"]).right) for text in cases} == cases


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("<answer>8</answer>", "tag"),
        ("\\boxed{8}", "box"),
        ("The answer is $8$, since $3+5=8$.", "stated"),
        ("So the sum is $8$, since $3+5=8$ and x=3.", "stated"),
        ("We add.\n\n**8**", "alone"),
        ("Thus the number is **8**.", "last"),
        ("", ""),
    ],
)
def test_the_form_is_recorded(text: str, form: str) -> None:
    found = judge(text, "8")
    assert (found.form, found.right) == (form, bool(form) or None)


@pytest.mark.parametrize("gold", ["", "  ", "\\frac{1}{", "}1{", "$$", "\\boxed{\\frac{1}{}"])
def test_a_right_answer_that_cannot_be_read_is_an_error(gold: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        judge("\\boxed{1}", gold)


@pytest.mark.parametrize("gold", ["7", "$7$", "\\boxed{7}", "so\n#### 7", "It is \\boxed{7}", "\\(7\\)"])
def test_a_right_answer_in_the_forms_of_sets(gold: str) -> None:
    assert judge("\\boxed{7}", gold).right
    assert not judge("\\boxed{8}", gold).right


def test_small_numbers_are_not_all_equal() -> None:
    for gold, wrong in (
        ("10^{-20}", "2 \\cdot 10^{-20}"),
        ("\\frac{1}{2004!}", "\\frac{1}{2006!}"),
        ("52_8", "52_9"),
    ):
        assert equal(gold, gold)
        assert not equal(gold, wrong)


def test_an_answer_beyond_all_measure_is_wrong_without_work() -> None:
    started = time.perf_counter()
    for answer in ("x+" * LONGEST_ANSWER + "1", "(x+y+z+1)^{300}", "9^{9^{9^{9^9}}}", "(x+1)^{99}(x+2)^{99}"):
        assert not equal("x^2+1", answer)
    assert time.perf_counter() - started < 5
    assert equal("(x+1)^{100}", "(x+1)^{100}")
    assert equal("x^2+2x+1", "(x+1)^2")


def test_tidy_keeps_what_has_value() -> None:
    for text in (
        "3 \\text{ or } 5",
        "x \\in [-2,7]",
        "\\frac{1}{2}",
        "2 x",
        "5!",
        "7 \\text{ million}",
        "1:00",
    ):
        assert tidy(text) == text
