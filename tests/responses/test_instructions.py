"""Each check of an instruction: what follows it, what does not, and how fast it is on hostile text."""

import time
from typing import Any

import pytest

from jax_sft.responses.instructions.check import CHECKS, fault, follows, follows_loosely

AT_LEAST, LESS_THAN = {"relation": "at least"}, {"relation": "less than"}
PARAGRAPHS = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"}
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["I SAY", "DON'T", "IT'S (so)", "I’M", "CANNOT", "A/B or C,d E", "U.S. and F5"],
        ["I say", "A-B", "I'm", "NASA", "X/Y", "Ab Cd"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THIS IS ENGLISH TEXT, NO DOUBT."],
        ["This is it", "ЭТО РУССКИЙ ТЕКСТ."],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["this is english text, no doubt."],
        ["This is", "das ist deutscher text."],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it. "}, [" say it. Yes"], ["Yes. Say it."]),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "******a******b"],
        ["a", "a ****** a", "a******\n******b"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a] [[b]"],
        ["[a [b]", "[a\n] [b]"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\np. s. y", "P.S.y"], ["PS y"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S. y", "p. p.s"], ["P.S. y"]),
    ("detectable_format:constrained_response", {}, ["So: My answer is no."], ["my answer is no."]),
    ("detectable_format:json_format", {}, ['{"a": 1}', '```json\n{"a": 1}\n```'], ["a: 1", "[" * 100_000]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\nx\nSection 2"],
        ["Section 1\nSection II"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n- b", " *a\n\n *b", "- *\n- b", "*\n* a\n* b"],
        ["* a\n** b", "* a", "* a\n* b\n* c", "*"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* *b*", "**a**b*c*", "**a** **b**"],
        ["**a**", "*a\n* *b", "** **"],
    ),
    ("detectable_format:title", {}, ["<<a>>", "x <<<a>>> y"], ["<<>>", "<< >>", "<<a\n>>", "<a>", ">>a<<"]),
    ("keywords:existence", {"keywords": ["sun", "moon"]}, ["Sunny moons"], ["sun"]),
    ("keywords:frequency", {"keyword": "sun", "frequency": 2, **AT_LEAST}, ["Sun, sunny"], ["sun"]),
    ("keywords:forbidden_words", {"forbidden_words": ["sun"]}, ["sunny"], ["The Sun."]),
    (
        "keywords:letter_frequency",
        {"letter": "A", "let_frequency": 2, "let_relation": "less than"},
        ["abc"],
        ["Aa"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 1, "let_relation": "at least"},
        ["#x"],
        ["x"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist ein deutscher Satz.", "1 2 3"],
        ["Oui, c'est moi."],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        PARAGRAPHS,
        ["First.\n\nthen, it", "First.\n\n 'Then' it\n\n", "\n\nthen\n\na"],
        ["First.\n\nThe", "Then\n\nFirst", "a\n\nthen\n\nb"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a***b", "a\n***\nb***"],
        ["a\n\nb", "a******b"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, **AT_LEAST},
        ["Dr. Who came. He left."],
        ["Dr. Who came at 5 p.m. or so."],
    ),
    ("length_constraints:number_words", {"num_words": 3, **LESS_THAN}, ["so it"], ["don't go"]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
    ("startend:end_checker", {"end_phrase": "The end."}, ['"… the end."\n'], ["The end. Bye"]),
    ("startend:quotation", {}, [' "a" '], ['"a', '"', "'a'"]),
]


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES)
def test_what_follows_an_instruction(
    name: str, arguments: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    assert [text for text in right if not follows(text, name, arguments)] == []
    assert [text for text in wrong if follows(text, name, arguments)] == []
    assert not follows(" \n", name, arguments)
    assert fault(name, arguments) == ""


def test_every_instruction_has_a_case() -> None:
    assert {name for name, *_ in CASES} == set(CHECKS)
    assert len(CHECKS) == 25


def test_loosely_means_without_first_or_last_line_or_asterisks() -> None:
    instruction = ("startend:end_checker", {"end_phrase": "bye"})
    for text in ("bye", "hello\nbye", "bye\nMore?", "**bye**", "Sure:\n*bye*\nMore?"):
        assert follows_loosely(text, *instruction), text
    assert not follows("**bye**", *instruction)
    assert not follows_loosely("bye\nAnd\nmore?", *instruction)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("startend:end", {}, "unknown instruction 'startend:end'; known: change_case"),
        ("keywords:existence", {}, "takes keywords; found none"),
        ("startend:quotation", {"quote": 1}, "takes no arguments; found quote"),
        ("keywords:existence", {"keywords": ["("]}, "keywords:existence: missing )"),
        (
            "length_constraints:number_words",
            {"num_words": 3, "relation": "more than"},
            "'more than' is neither",
        ),
    ],
)
def test_a_wrong_instruction_is_said(name: str, arguments: dict[str, Any], words: str) -> None:
    assert words in fault(name, arguments)


@pytest.mark.parametrize(
    "text", ["[", "<", "*", "\n", "a. ", "* ", "A'S ", "<<a", "p. ", "Section ", "ab\n\n"]
)
def test_long_repetitions_take_no_quadratic_time(text: str) -> None:
    start = time.process_time()
    for name, arguments, *_ in CASES:
        follows(text * (200_000 // len(text)), name, arguments)
    assert time.process_time() - start < 5
