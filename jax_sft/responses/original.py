r"""How the evaluation code of arXiv 2604.06628 reads a completion, quirks included, by its behaviour.

Each function takes a text and gives what that code goes on with. They are here to reproduce the paper's
numbers and to measure what each quirk is worth (`tasks/protocols.py`); nothing else judges by them.
"""

import re

from jax_sft.responses.thinking import CLOSE, OPEN

_CLOSED_THOUGHT = re.compile(rf"{OPEN}.*?{CLOSE}\s*", re.DOTALL)
_UP_TO_THOUGHT_END = re.compile(rf"\A.*(?:{CLOSE}|<\|/think\|>)", re.DOTALL)
_LETTER_OF_TEN = re.compile(r"answer is \(?([A-J])\)?|\\boxed\{(?:\\text\{)?([A-Z])\}?\}")
_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_PYTHON_FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)
# No word need end after the letter, in any case: "the answer is a guess" chooses A, "select carbon" C.
_PHRASES = tuple(
    re.compile(phrase, re.IGNORECASE)
    for phrase in (
        r"(?:correct answer|right answer|answer)\s*(?:is|:)\s*([A-D])",
        r"(?:choose|select|pick)\s*(?:option)?\s*([A-D])",
        r"(?:option|choice)\s*([A-D])\s*(?:is correct|is right)",
        r"\b([A-D])\s*(?:is correct|is right|is the answer)",
    )
)


def cut_at(text: str, stops: tuple[str, ...]) -> str:
    """The text up to the first of the stops, which ended the completion there."""
    places = [text.find(stop) for stop in stops]
    return text[: min((place for place in places if place >= 0), default=len(text))]


def without_closed_thoughts(text: str) -> str:
    """The text without thoughts that were closed: one that never ended stays, and is graded as the answer."""
    return _UP_TO_THOUGHT_END.sub("", _CLOSED_THOUGHT.sub("", text).strip()).strip()


def letter_of_ten(text: str) -> str:
    r"""MMLU-Pro: the letter of the first "answer is X" or \boxed{X}; empty when there is none."""
    match = _LETTER_OF_TEN.search(text)
    return (match[1] or match[2]) if match else ""


def letter_of_four(text: str) -> str:
    r"""GPQA: the letter in the last \boxed{…}, or else in all that was said; empty when there is none."""
    text = _last_box(text) or text
    for phrase in _PHRASES:
        if match := phrase.search(text):
            return match[1].upper()
    rest = text.rstrip(".").rstrip("/").strip().upper()
    return rest if rest in ("A", "B", "C", "D") else ""


def yes_or_no(text: str, whole: str) -> str:
    """HaluEval: the last Yes or No of a text; or else what the first line of the whole completion contains.

    There even "not" contains no; with both or neither the answer is empty.
    """
    if found := _YES_OR_NO.findall(text):
        return str(found[-1]).capitalize()
    line = whole.strip().split("\n")[0].lower()
    return {(True, False): "Yes", (False, True): "No"}.get(("yes" in line, "no" in line), "")


def program(text: str) -> str:
    """LiveCodeBench: the last closed block marked as python; without one, the last character of the text."""
    blocks = _PYTHON_FENCE.findall(text)
    code = (blocks or list(text) or [""])[-1].partition("</code>")[0]
    return code.replace("# YOUR CODE HERE", "").replace("<code>", "").strip()


def called_name(code: str) -> str:
    """LiveCodeBench: the name before the first bracket of a program, which is called as its function."""
    return (code.partition("(")[0].split() or [""])[-1]


def _last_box(text: str) -> str:
    r"""What the last \boxed{…} holds; with its wrapper where it has several lines, nothing if not closed."""
    start = text.rfind("\\boxed{")
    depth = 0
    for place in range(start if start >= 0 else len(text), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if text[place] == "}" and depth == 0:
            content = text[start + len("\\boxed{") : place]
            return text[start : place + 1] if "\n" in content else content
    return ""
