"""Numbers as models give them: which one is the answer, in which form, and what is none."""

from fractions import Fraction

import pytest

from jax_sft.responses.numbers import final_number, to_fraction


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
        ("7 of x2, H2O, 101_2, 2^5 and 12.5/2", "7"),
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
    assert to_fraction(found.text) == Fraction(expected)


WORDINGS = [
    ("The answer is 18. This took 3 steps.", "18", "stated"),
    ("The final answer is **18** dollars. She has 2 left.", "18", "stated"),
    ("**Answer:** 18\n\nThere are 7 days in a week.", "18", "stated"),
    ("Final answer: $18 (not $20)", "18", "stated"),
    ("Answer = 18 eggs", "18", "stated"),
    ("The answer is therefore 18, because 9 * 2 = 18.", "18", "stated"),
    ("The answer is: 9 * 2 = 18", "18", "stated"),
    ("18 is the final answer. I used 2 rules.", "18", "stated"),
    ("The answer is not 20. The answer is 18.", "18", "stated"),
    ("La respuesta es 18.", "18", "stated"),
    ("答案：18", "18", "stated"),
    ("The final total is 18.50 dollars for 3 of them.", "18.5", "stated"),
    ("The answer is\n\n18\n\nAll 3 agree.", "18", "stated"),
    ("The answer is $\\frac{1}{2}$ of 4.", "0.5", "stated"),
    ("The answer is 1.5 million.", "1500000", "stated"),
    ("The answer is 18 and a half.", "18.5", "stated"),
    ("The answer is −18°.", "-18", "stated"),
    ("The answer is -18.", "-18", "stated"),
    ("The answer is ７.", "7", "stated"),
    ("<answer>18</answer> after 3 tries", "18", "tag"),
    ("<answer>\\boxed{18}</answer>", "18", "tag"),
    ("<answer> **18** </answer>", "18", "tag"),
    ("<answer>The answer is 18.</answer>", "18", "tag"),
    (r"so \boxed{18}, and 3 more words", "18", "box"),
    (r"#### Step 1" + "\n" + r"5+13. So \boxed{18}.", "18", "box"),
    (r"\boxed{\text{18 apples}}", "18", "box"),
    (r"\boxed{\mathbf{18}}", "18", "box"),
    (r"\boxed{\textcolor{red}{18}}", "18", "box"),
    (r"\boxed{x = 18}", "18", "box"),
    (r"\boxed{9 \times 2 = 18}", "18", "box"),
    (r"\boxed{\approx 18}", "18", "box"),
    (r"\boxed{18\%}", "18", "box"),
    (r"\boxed{18 \text{ per day}}", "18", "box"),
    (r"\boxed{18.}", "18", "box"),
    (r"\boxed{$18}", "18", "box"),
    (r"\boxed{18 \neq 20}", "18", "box"),
    (r"\boxed{2\frac{1}{2}}", "2.5", "box"),
    (r"\boxed{3/4}", "0.75", "box"),
    (r"\boxed{1e3}", "1000", "box"),
    (r"\boxed{1.2 \times 10^{3}}", "1200", "box"),
    (r"\boxed{12 000}", "12000", "box"),
    (r"\fbox{18}", "18", "box"),
    (r"\boxed{(18)}", "18", "box"),
    (r"\boxed{18^\circ}", "18", "box"),
    ("#### 18\n\nQuestion: and now?\n#### 7", "18", "marked"),
    ("#### $18 per day", "18", "marked"),
    ("####\n18", "18", "marked"),
    ("#### Answer: 18", "18", "marked"),
    ("####18.00", "18", "marked"),
    ("### Step 1\nAdd.\n#### 18", "18", "marked"),
    ("**18**\n\nLet me know if you have 1 more question.", "18", "alone"),
    ("We add.\n\n**Total: 18 eggs**\n\nWell done!", "18", "alone"),
    ("12 000", "12000", "alone"),
    ("~18", "18", "alone"),
    ("€18", "18", "alone"),
    ("18 USD", "18", "alone"),
    ("+18", "18", "alone"),
    ("She makes 9 * 2 = $18 every day.", "18", "last"),
    ("In total it comes to 18 eggs. I hope this helps! Ask 1 more.", "18", "last"),
    ("There are 18 (not 20).", "18", "last"),
    ("So it is 18, rather than 20.", "18", "last"),
    ("It is 18.I am done", "18", "alone"),
    ("The first answer is 5. Adding 3 gives 8.", "8", "last"),
]


@pytest.mark.parametrize(("text", "value", "form"), WORDINGS)
def test_wordings_of_a_number_and_their_form(text: str, value: str, form: str) -> None:
    found = final_number(text)
    assert found is not None
    assert (to_fraction(found.text), found.form) == (Fraction(value), form)


@pytest.mark.parametrize(
    "text",
    [
        rf"\boxed{{{box}}}"
        for box in (
            r"9 \times 2", "9 * 2", "9 - 4", "9+1", r"9 \cdot 10^{2}", r"9\pi", "9:30", r"9 \text{ or } 18",
            "9, 18", r"9 \text{ apples}, 20 \text{ pears}", "9 and 18", "2^9", "9^2", "9th", r"3\frac{4}{2}",
            r"\sqrt{9}", r"\frac{36 \text{ km}}{9}", "9x", "H9", "x_9", "(9)(2)", "9 \\pm 1", "9/3", "101_9",
        )
    ]
    + ["#### 9 * 2", "The answer is 9 or 18.", "9 and a half", "9½", "9k", "9 million", "9.000001"],
)  # fmt: skip
def test_what_is_not_the_number_nine(text: str) -> None:
    found = final_number(text)
    assert found is None or to_fraction(found.text) != 9


@pytest.mark.parametrize("text", ["", "no number", "abc1", "...", "2^3", "1,2345", "eighteen"])
def test_no_number(text: str) -> None:
    assert final_number(text) is None


@pytest.mark.parametrize("box", [r"3\frac{4}{2}", r"\frac{36 \text{ km}}{2}", "H2O", "2 + 2"])
def test_a_box_that_cannot_be_read_is_the_answer_as_it_stands(box: str) -> None:
    found = final_number(rf"7 or \boxed{{{box}}}")
    assert found == (box, "box")
    assert to_fraction(box) is None


def test_values_are_exact_and_words_are_none() -> None:
    assert to_fraction("$1,200.50") == Fraction(2401, 2)
    assert to_fraction("-0") == 0
    for text in ("twelve", "Infinity", "NaN", "", "1 2"):
        assert to_fraction(text) is None
