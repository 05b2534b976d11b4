"""The extractor that all tasks share: forms in their order, boxes, and what is not looked at."""

import time

import pytest

from jax_sft.responses import letters, numbers
from jax_sft.responses.answers import (
    BOX,
    STATED,
    TAG,
    Answer,
    boxes,
    find,
    last_boxed,
    plain,
    stated,
    tagged,
    within,
)

FORMS = [(TAG, within(tagged, str)), (BOX, within(boxes, str)), (STATED, within(stated, str))]


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
        ("<answer>1</answer> \\boxed{2} The answer is 3.", Answer("1", "tag")),
        ("The answer is 3, so \\boxed{2}", Answer("2", "box")),
        ("The answer is 3. It took 4 steps.", Answer("3", "stated")),
        ("<answer>1", Answer("1", "tag")),
        ("The answer is not 3. The answer is 4.", Answer("4", "stated")),
        ("3 is the answer.", Answer("3", "stated")),
        ("The answer to part one is 3.", None),
        ("nothing", None),
        ("\\boxed{2}\n\nQuestion: and 2+2?\n\\boxed{4}", Answer("2", "box")),
        ("Given this.\n\nQuestion: what?\n\n\\boxed{4}", Answer("4", "box")),
        ("\\boxed{2}<|im_end|>\\boxed{3}", Answer("2", "box")),
        ("<answer>\u200b７\u202c</answer>\0", Answer("7", "tag")),
    ],
)
def test_the_first_form_that_can_be_read_counts(text: str, expected: Answer | None) -> None:
    assert find(text, FORMS) == expected


def test_plain_keeps_what_is_visible() -> None:
    assert plain("a\u200bb ＡＢ．１\0") == "ab AB.1"


@pytest.mark.parametrize(
    "piece",
    [
        "the answer is ",
        "answer: ",
        "\\boxed{",
        "\\boxed{A} or ",
        "####\n",
        "(A) ",
        "best choice ",
        "**",
        "    ",
        "1,",
        "`",
    ],
)
def test_what_loops_costs_no_quadratic_time(piece: str) -> None:
    text, start = piece * (20_000 // len(piece)), time.perf_counter()
    numbers.final_number(text)
    letters.choice(text, "ABCDE", ["bank", "river"])
    assert time.perf_counter() - start < 20


def test_a_box_needs_its_backslash_or_at_least_its_brace() -> None:
    assert last_boxed("So boxed{7}") == "7"
    assert last_boxed("\\boxed7") == "7"
    assert last_boxed("9boxed9 boxed3 b9boxed{9}") is None
