"""Reading answers out of the text that models write."""

from decimal import Decimal

import pytest

from jax_sft.evaluation.scoring.answers import choice_letter, final_number, last_boxed, to_decimal, visible


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("plain", "plain"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>a", None),
        ("<think>a</think>b<think>c", None),
        ("", ""),
    ],
)
def test_visible_text_follows_the_thinking(completion: str, expected: str | None) -> None:
    assert visible(completion) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, 2\right\}} ok", r"\left\{1, 2\right\}"),
        (r"\boxed{3} and \boxed{unclosed", "3"),
        (r"\fbox {7}", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        ("none", None),
        (r"\boxed{", None),
        (r"\boxed{\ ", None),
    ],
)
def test_last_balanced_box(text: str, expected: str | None) -> None:
    assert last_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 18", "18"),
        ("5 + 3\n#### 1,234 dollars\nand 7 more", "1234"),
        (r"so \boxed{\$18.50} of 20", "18.50"),
        ("It costs $1,200.", "1200"),
        ("from 20-30 km", "30"),
        ("5-3", "3"),
        ("x = -4.", "-4"),
        ("x = −4", "-4"),
        ("half: .5", "0.5"),
        ("10%", "10"),
        (r"\boxed{18\,000}", "18000"),
        (r"\boxed{18{,}000}", "18000"),
        ("3 apples, 4 pears; the 2nd", "4"),
        ("#### none but 12 before", "12"),
    ],
)
def test_final_number(text: str, expected: str) -> None:
    found = final_number(text)
    assert found is not None
    assert to_decimal(found) == Decimal(expected)


@pytest.mark.parametrize("text", ["", "no number", "abc1", "..."])
def test_no_number(text: str) -> None:
    assert final_number(text) is None


def test_words_and_infinities_are_not_numbers() -> None:
    assert to_decimal("twelve") is None
    assert to_decimal("Infinity") is None
    assert to_decimal("NaN") is None
    assert to_decimal("$1,200.50") == Decimal("1200.5")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C) library", "C"),
        ("The answer is D.", "D"),
        ("Answer: **E**", "E"),
        ("The correct option is (A), not B", "A"),
        (r"so \boxed{C}", "C"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{D. mall}", "D"),
        ("A dog is an animal", None),
        ("I would think so.\n\nE", "E"),
        ("It could be A or B. The answer is B", "B"),
        ("E. coli lives there. The answer is C.", "C"),
        ("F", None),
        ("", None),
    ],
)
def test_choice_letter(text: str, expected: str | None) -> None:
    assert choice_letter(text) == expected
