"""How the paper's code reads: its quirks, one by one, as read in its source."""

import pytest

from jax_sft.responses import original
from jax_sft.responses.mathematics import equal_by_defaults


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (C).", "C"),
        ("answer is D and \\boxed{B}", "D"),  # the first, of either form
        ("\\boxed{B} so the answer is D", "B"),
        ("\\boxed{\\text{J}}", "J"),
        ("\\boxed{\\text{J}", "J"),
        ("the answer is (c)", ""),  # small letters are none
        ("The answer is **C**", ""),
        ("The answer: C", ""),
        ("\\boxed{C. river}", ""),
        ("\\boxed{ C }", ""),
        ("answer is Copper", "C"),  # no word need end there
        ("\\boxed{K}", "K"),
        ("<think>maybe the answer is A</think> \\boxed{B}", "A"),
    ],
)
def test_mmlu_pro_takes_the_first_match(text: str, letter: str) -> None:
    assert original.letter_of_ten(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("\\boxed{A} then \\boxed{B}", "B"),
        ("\\boxed{b.}", "B"),
        ("\\boxed{B/}", "B"),
        ("\\boxed{(B)}", ""),
        ("\\boxed{\\text{B}}", ""),
        ("\\boxed{B) river}", ""),
        ("\\boxed{The answer is B}", "B"),
        ("The answer is certain.", "C"),
        ("I select a new one", "A"),
        ("Pick option d", "D"),
        ("option B is right", "B"),
        ("B is correct, I say", "B"),
        ("\\boxed{\nB\n}", ""),
        ("So it is \\boxed{B", ""),
        ("d", "D"),
        ("The choice: D", ""),
        ("", ""),
    ],
)
def test_gpqa_takes_the_last_box_or_a_phrase(text: str, letter: str) -> None:
    assert original.letter_of_four(text) == letter


def test_a_completion_ends_at_a_stop() -> None:
    assert original.cut_at("Let us see. Q: what? \\boxed{A}", ("</s>", "Q:")) == "Let us see. "
    assert original.cut_at("<think>\nWell,\n\nso", ("\n\n",)) == "<think>\nWell,"
    assert original.cut_at("nothing here", ("</s>",)) == "nothing here"


def test_only_closed_thoughts_are_taken_out() -> None:
    assert original.without_closed_thoughts("<think>a</think>\n\nYes") == "Yes"
    assert original.without_closed_thoughts("a</think> b </think> No ") == "No"
    assert original.without_closed_thoughts("<think>it is No") == "<think>it is No"
    assert original.without_closed_thoughts("<think>a</think>b<think>c") == "b<think>c"
    assert original.without_closed_thoughts("x<|/think|>y") == "y"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes. On second thoughts, NO.", "No"),
        ("No, wait: yes", "Yes"),
        ("It does not say so", "No"),  # "not" holds no
        ("It may be", ""),
        ("Noyes", ""),
        ("", ""),
        ("Hm.\nYesterday", ""),  # only the first line, where there is no such word
    ],
)
def test_halueval_takes_the_last_yes_or_no(text: str, answer: str) -> None:
    assert original.yes_or_no(text, text) == answer


def test_livecodebench_takes_the_last_closed_python_block_or_the_last_character() -> None:
    two = "```python\nprint(1)\n```\nor\n```python\nprint(2)\n```"
    assert original.program(two) == "print(2)"
    assert original.program("```python\nprint(1)\n``` and ```py\nprint(2)\n```") == "print(1)"
    assert original.program("```python\n# YOUR CODE HERE\nprint(3)</code>\nx\n```") == "print(3)"
    assert original.program("```\nprint(1)\n```") == "`"
    assert original.program("```python\nprint(1)") == ")"
    assert original.program("") == ""
    assert original.called_name("import a\ndef f(x): pass") == "f"
    assert original.called_name("class Solution:\n    def g(self): pass") == "g"
    assert original.called_name("") == ""


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("7", "<think>\\boxed{7}", True),
        ("7", "\\boxed{7.}", False),
        ("So $x=\\boxed{\\frac12}$.", "It is 0.5", True),
        ("\\frac{1}{2004!}", "\\boxed{\\frac{1}{2006!}}", True),  # both are 0 to its precision
        ("10080", "\\boxed{10 080}", False),
    ],
)
def test_math_verify_by_its_defaults(gold: str, text: str, right: bool) -> None:
    assert equal_by_defaults(gold, text) == right
