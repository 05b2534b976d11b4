"""Words, orders and brackets as answers: the usual wordings, what is no answer, and hostile lengths."""

import time

import pytest

from jax_sft.responses.words import brackets, ordered, quoted, word

YES_NO, VALID, TRUE_FALSE = ("Yes", "No"), ("valid", "invalid"), ("True", "False")
LIST = ["costume", "counterpart", "oven"]
SORTED = "costume counterpart oven"


@pytest.mark.parametrize(
    ("said", "words", "answer", "form"),
    [
        ("yes.", YES_NO, "Yes", "alone"),
        ("**No**", YES_NO, "No", "alone"),
        ("\\boxed{\\text{no}}", YES_NO, "No", "box"),
        ("<answer>yes</answer>", YES_NO, "Yes", "tag"),
        ("#### Yes", YES_NO, "Yes", "marked"),
        ("The answer is no.", YES_NO, "No", "stated"),
        ("The final answer is (No)", YES_NO, "No", "stated"),
        ("So the answer is: **Yes**, because it holds.", YES_NO, "Yes", "stated"),
        ("No, there is no way that yes.", YES_NO, "No", "alone"),
        ("Let me see.\n\nYes, you return to the start.", YES_NO, "Yes", "alone"),
        ("They do not return. No. That is all there is to it.", YES_NO, "No", "last"),
        ("Answer: Yes\n\nQuestion: Is it?\nAnswer: No", YES_NO, "Yes", "stated"),
        ("The argument is deductively valid.", VALID, "valid", "last"),
        ("The argument is not deductively valid.", VALID, "invalid", "last"),
        ("So it's \\boxed{\\text{invalid}}", VALID, "invalid", "box"),
        ("It seems valid, but the conclusion is invalid.", VALID, "invalid", "last"),
        ("not ( True ) = False", TRUE_FALSE, "False", "last"),
        ("So not ( True ) and True = False.", TRUE_FALSE, "False", "last"),
        ("It evaluates to true", TRUE_FALSE, "True", "last"),
    ],
)
def test_a_word_is_read(said: str, words: tuple[str, ...], answer: str, form: str) -> None:
    assert word(said, words) == (answer, form)


def test_other_words_for_it_and_none() -> None:
    same = {"plausible": "yes", "implausible": "no"}
    assert [
        word(said, ("yes", "no"), same)
        for said in (
            "It is plausible.",
            "It is not plausible.",
            "The sentence is implausible.",
            "Yes, plausible",
        )
    ] == [("yes", "last"), ("no", "last"), ("no", "last"), ("yes", "alone")]
    for said in ("", "There is no contradiction.", "Maybe.", "yesterday", "Yes-men"):
        assert word(said, YES_NO) is None, said


@pytest.mark.parametrize(
    "said",
    [
        SORTED,
        "Costume, counterpart, oven.",
        "1. costume\n2. counterpart\n3. oven",
        "The sorted list is:\n- costume\n- counterpart\n- oven",
        "\\boxed{\\text{costume counterpart oven}}",
        "\\boxed{costume, counterpart, oven}",
        "**costume counterpart oven**",
        "Sorted: costume counterpart oven",
        'We have ["costume" < "counterpart"] < "oven". So the answer is costume counterpart oven.',
        "I compared counterpart, costume and oven. Sorted: costume counterpart oven\nHope that helps!",
        "<answer>costume counterpart oven</answer> or oven costume counterpart",
    ],
)
def test_an_order_is_read(said: str) -> None:
    found = ordered(said, LIST)
    assert found is not None
    assert found.text == SORTED


def test_wrong_orders_and_none() -> None:
    for said in (
        "oven costume counterpart",
        "costume counterpart",
        "The answer is costume, oven, counterpart.",
    ):
        found = ordered(said, LIST)
        assert found is not None
        assert found.text != SORTED, said
    assert ordered("An oven.", LIST) is None


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("] } >", "]}>"),
        ("]", "]"),
        ("The answer is ]", "]"),
        ("The answer is ] } >.", "]}>"),
        ('So, we need "}", "]". So the answer is } ].', "}]"),
        ("\\boxed{] } >}", "]}>"),
        ("\\boxed{\\} ]}", "}]"),
        ("So the answer is: `] }`", "]}"),
        ("**] } >**", "]}>"),
        ("The answer is\n\n] )", "])"),
        ("[ ] (nothing is left). The answer is ) and that is all", ")"),
        ("The answer is $\\rangle ]$", ">]"),
        ("&gt; ]", ">]"),
        ("The full sequence is: [ ( ) ]", "[()]"),
    ],
)
def test_brackets_are_read(said: str, answer: str) -> None:
    found = brackets(said)
    assert found is not None
    assert found.text == answer


def test_no_brackets() -> None:
    for said in ("", "I (for one) do not know.", "The answer is none."):
        assert brackets(said) is None, said


def test_texts_that_are_quoted() -> None:
    texts = ["a river", "The river bank", "128", "-128", "$3"]
    said = (
        "So it is the river bank, I think.",
        "The answer is -128.",
        "\\boxed{128}",
        "$3",
        "a river or $3",
        "none",
    )
    assert [quoted(text, texts) for text in said] == [1, 3, 2, 4, None, None]


@pytest.mark.parametrize(
    "text", ["answer ", "\\boxed{", "not ", "no ", "a\n", "[ ", "yes. ", "oven ", "1. ", "* "]
)
def test_a_megabyte_takes_seconds_at_most(text: str) -> None:
    long = text * (300_000 // len(text))
    start = time.process_time()
    word(long, YES_NO)
    ordered(long, LIST)
    brackets(long)
    quoted(long, ["a b", "c"])
    assert time.process_time() - start < 20
