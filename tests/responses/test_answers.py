"""Reading answers out of the text that models write."""

from decimal import Decimal

import pytest

from jax_sft.responses.answers import choice_letter, final_number, last_boxed, to_decimal


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
        # Units glued to the number, their exponents, and what else is no number.
        ("He runs 3 laps for 6 km each, so 18km.", "18"),
        ("#### 18km", "18"),
        ("5pm", "5"),
        ("#### 36 m^2", "36"),
        (r"\boxed{36 \text{ ft}^2}", "36"),
        ("that is 36 m^{2} or 36 m^{-2}", "36"),
        ("x_{10} is 5 and x_3 too", "5"),
        ("7 of x2, H2O, 101_2, 2^5, 1e3, 3½ and 12.5/2", "7"),
        (r"turn by 90^\circ", "90"),
        # Fractions with a whole value.
        (r"\boxed{\frac{36}{2}}", "18"),
        (r"\boxed{-\dfrac 84}", "-2"),
        # The first number of a field or a box, or the first after =.
        ("#### 18 apples of 20", "18"),
        ("#### 5 + 3 = 8 apples of 20", "8"),
        (r"\boxed{x = 18 \text{ of } 20}", "18"),
        (r"\boxed{18 = x}", "18"),
        # LaTeX and typographic thousands.
        (r"18\ 000", "18000"),
        (r"18,\!000", "18000"),
        ("18\u202f000", "18000"),
    ],
)
def test_final_number(text: str, expected: str) -> None:
    found = final_number(text)
    assert found is not None
    assert to_decimal(found) == Decimal(expected)


@pytest.mark.parametrize(
    "text",
    ["", "no number", "abc1", "...", "2^3", "1,2345", r"7 or \boxed{3/4}"]
    + [rf"7 or \boxed{{{box}}}" for box in (r"\frac13", r"3\frac{4}{2}", r"\frac{36 \text{ km}}{2}", "H2O")],
)
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
        # A statement outranks other options that are mentioned; so does an opening letter.
        ("The correct answer is C. Option A is too broad, and option D does not fit.", "C"),
        ("The answer is option C. Option A is wrong.", "C"),
        ("A. bank\nB. river\nThe right choice is B. river", "B"),
        ("The answer is A. No, the answer is B. Option C is wrong.", "B"),
        ("C. Because option A is wrong.", "C"),
        ("C\n\nOption A is wrong.", "C"),
        ("Not option A but option B", "B"),
        (r"The answer is A, so \boxed{B}", "B"),
        # A letter within a word or as an article is none.
        (r"\boxed{Bank}", None),
        (r"\boxed{Apple}", None),
        (r"\boxed{A dog}", None),
        ("The answer is Bank", None),
        ("The answer is not A", None),
        ("A's job", None),
        # Wrappers.
        (r"\boxed{\textbf{B}}", "B"),
        (r"\boxed{\mathrm{(B)}}", "B"),
        (r"\boxed{\text{B. river}}", "B"),
        (r"The final answer is \(C\)", "C"),
        (r"The answer is \text{C}.", "C"),
        (r"Answer: $\mathbf{C}$", "C"),
        ('The answer is: "C"', "C"),
        ("**Answer**: C", "C"),
        ("**C**", "C"),
        (r"\text{C}", "C"),
        ("I pick 'C'", "C"),
    ],
)
def test_choice_letter(text: str, expected: str | None) -> None:
    assert choice_letter(text) == expected
