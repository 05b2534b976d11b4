r"""Whether an answer equals the right one in mathematics: one judge for sets and benchmarks.

What can be decided exactly is (plain numbers, numbers in a base, words); math-verify decides the rest, after
`latex.tidy`, and what it takes for equal is compared once more as a number: it calls all small ones equal.
"""

import logging
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from jax_sft.responses import answers
from jax_sft.responses.answers import within
from jax_sft.responses.latex import tidy
from jax_sft.responses.numbers import to_fraction

LONGEST_ANSWER = 1000
"""Characters; a longer answer is wrong, and costs no time."""
_LAST_CHARACTERS = 8000
"""An answer stands at the end; what is before it only costs time."""
_CLOSE = Fraction(1, 10**6)
"""Decimals that differ by less, of their size, are roundings of one number."""

_BASE = re.compile(r"\(?\s*([0-9A-F]+)\s*\)?\s*_\s*\{?\s*\(?(\d+)\)?\s*\}?")
_RATIO = re.compile(r"[-\d.\s]+:[-\d.\s:]+")
_WORDS = re.compile(r"\(?(?:[A-Za-z]+(?:[\s,.'-]+|$))*[A-Za-z]+\)?")
_MAGNITUDE = re.compile(r"(\d)\s*\\text\s*\{\s*(hundred|thousand|million|billion)\s*\}$")
# Sums to a high power and towers of powers: no answer in other words than these, and all the time there is.
_BEYOND = re.compile(
    r"\([^()]*[a-hj-zA-Z][^()]*\)\s*\^\s*\{?(?:\d{3,}|[5-9]\d)|\^\s*\{?\s*\w+\s*\^\s*\{?\s*\w+\s*\^"
)
_INFINITE = re.compile(r"\[\s*-\\infty|\\infty\s*\]")
_FORMULA = re.compile(r"(?<!\\)\$\$?(.+?)(?<!\\)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_CONCLUSION = re.compile(
    r"\b(?:so|thus|hence|therefore)\b[^$\n]{0,80}?\b(?:is|are|equals|be)\s+(?:\$\$?(.+?)(?<!\\)\$|\\\((.+?)\\\))",
    re.IGNORECASE,
)
# Between two boxes that give two solutions: "or", "and", a comma, "x =".
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$.]|\\[()\[\],; ])*(?:,|;|\band\b|\bor\b|\\text\s*\{\s*(?:and|or)\s*\})+"
    r"(?:[\s$]|\\[()\[\],; ]|\bor\b|\band\b"
    r"|[a-z](?:_\{?\d\}?)?\s*=)*",
    re.IGNORECASE,
)
_AFTERTHOUGHT = re.compile(
    r",?\s(?:because|since|as|so|which|where|not|rather than|but|for|when)\b.*|\s\((?:[a-z]{2,}\b|≈).*",
    re.DOTALL,
)


class _Number(NamedTuple):
    value: Fraction
    is_percentage: bool
    has_decimals: bool

    @property
    def share(self) -> Fraction:
        return self.value / 100 if self.is_percentage else self.value


@dataclass(frozen=True)
class Judgement:
    """What was read in a text, in which form, and whether it is right: None when there was nothing."""

    answer: str = ""
    form: str = ""
    right: bool | None = None


def judge(said: str, gold: str) -> Judgement:
    """The answer in a text (tagged, boxed, stated, alone, else the last formula) against the right one.

    A right answer is a formula, with or without $ or a box; after #### where there is one. Raises ValueError
    when it cannot be read. May hang or eat memory on hostile formulas: call it through `workers`.
    """
    wanted = gold_answer(gold)
    forms = [
        (answers.TAG, within(answers.tagged, _filled)),
        (answers.BOX, _boxed),
        (answers.STATED, within(lambda text: [*_concluded(text), *answers.stated(text)], _formula)),
        (answers.ALONE, within(answers.alone, lambda line: _formula(line, alone=True))),
    ]
    if found := answers.find(said, forms):
        return Judgement(found.text, found.form, equal(wanted, found.text))
    parsed = _parsed(answers.plain(said)[-_LAST_CHARACTERS:])
    if not parsed:
        return Judgement()
    return Judgement(str(parsed[-1]), answers.LAST, _verified(list(_parsed_gold(tidy(wanted))), parsed))


def gold_answer(gold: str) -> str:
    """The formula of a right answer; ValueError when it is empty or its braces do not balance."""
    final = gold.rsplit("####", 1)[-1].strip()
    final = answers.last_boxed(final) or final
    if not tidy(final) or not _balanced(final):
        raise ValueError(f"the right answer {gold[:40]!r} cannot be read")
    return final


def equal(gold: str, answer: str) -> bool:
    """Whether an answer, a formula or words, is the right one."""
    if len(answer) > LONGEST_ANSWER:
        return False
    wanted, found = tidy(gold), tidy(answer)
    if _squeezed(wanted) == _squeezed(found):
        return True
    if _RATIO.fullmatch(found) and not _RATIO.fullmatch(wanted):
        return False
    if (gold_number := _number(wanted)) and (number := _number(found)):
        return _same_number(gold_number, number)
    bases = _BASE.fullmatch(wanted), _BASE.fullmatch(found)
    if bases[0] and bases[1]:
        return bases[0].groups() == bases[1].groups()
    if _WORDS.fullmatch(wanted) and _WORDS.fullmatch(found) and max(map(len, wanted.split())) > 2:
        return _bare_words(wanted) == _bare_words(found) != []
    if _BEYOND.search(found) and not _BEYOND.search(wanted):
        return False
    if _INFINITE.search(found) and not _INFINITE.search(wanted):  # no interval is closed there
        return False
    parsed = _parsed(f"$\\boxed{{{found}}}$")
    return bool(parsed) and _verified(list(_parsed_gold(wanted)), parsed)


def equal_by_defaults(gold: str, said: str) -> bool:
    """Whether math-verify, by its defaults and by nothing else, takes a whole text for the right one.

    A right text without a box is put into one. What cannot be read is wrong.
    """
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)
    wanted = parse(gold if "boxed" in gold else f"\\boxed{{{gold}}}", parsing_timeout=0)
    return bool(verify(wanted, parse(said, parsing_timeout=0), timeout_seconds=None))


def warm() -> None:
    """Import and exercise math-verify, which takes seconds, before any answer is timed."""
    equal("x+1", "1+x")


def _filled(field: str) -> str | None:
    boxed = answers.last_boxed(field) or field
    return boxed if tidy(boxed) else None


def _boxed(text: str) -> str | None:
    """The content of the last box that is not empty, joined with those before it that go with it."""
    boxes = [box for box in answers.placed_boxes(text) if box[1].strip()]
    if not boxes:
        return None
    start, content, _ = boxes[-1]
    contents = [content]
    for before, content, end in reversed(boxes[:-1]):
        if not _BETWEEN_BOXES.fullmatch(text[end:start]):
            break
        start = before
        contents.insert(0, content)
    return ", ".join(dict.fromkeys(contents))


def _concluded(text: str) -> list[str]:
    """What the last line concludes: "So the sum is $8$, since …"."""
    line = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return [match[1] or match[2] for match in _CONCLUSION.finditer(line)][-1:]


def _formula(field: str, alone: bool = False) -> str | None:
    """The formula that a field of words is about, or the field when it is a bare formula, number or word.

    Of several formulas the one that the field begins with counts, else the last. `alone` wants nothing else.
    """
    if formulas := list(_FORMULA.finditer(field)):
        opens = not tidy(field[: formulas[0].start()])
        match = formulas[0] if opens else formulas[-1]
        rest = field[: match.start()] + field[match.end() :]
        return None if alone and tidy(rest) else match[1] or match[2] or match[3]
    text = tidy(_AFTERTHOUGHT.sub("", field))
    if not _balanced(text):
        return None
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+", " ", text))
    is_formula = not words and re.search(r"\d|\\|[-+*/^=]|^\(?[A-Za-z]\)?$", text)
    is_word = len(words) == 1 and re.fullmatch(r"[A-Za-z]+", text)
    return text if is_formula or is_word else None


def _number(text: str) -> _Number | None:
    text = _MAGNITUDE.sub(r"\1 \2", text)
    percent = re.search(r"\\?%$", text)
    text = re.sub(r"^([-+]?\d+)\s*/\s*(\d+)$", r"\\frac{\1}{\2}", re.sub(r"\s*\\?%$", "", text))
    sign, text = ("-", text[1:].strip()) if text.startswith("-") else ("", text)
    text = re.sub(r"^\\frac\{-", r"-\\frac{", text) if not sign else text
    value = to_fraction(text)
    if value is None:
        return None
    return _Number(-value if sign else value, percent is not None, "." in text)


def _same_number(gold: _Number, found: _Number) -> bool:
    """Exactly, or as roundings of one another; 10% is 10 and 0.1 too."""
    if gold.value == found.value or gold.share == found.share:
        return True
    apart, size = abs(gold.value - found.value), max(abs(gold.value), abs(found.value))
    return (gold.has_decimals or found.has_decimals) and apart <= _CLOSE * size


def _squeezed(text: str) -> str:
    return re.sub(r"\s+|\{([^{}])\}", r"\1", text).replace("dfrac", "frac").replace("tfrac", "frac")


def _bare_words(text: str) -> list[str]:
    words = re.findall(r"[a-z]+", text.lower())
    return [word for word in words if word not in ("a", "an", "the")]


def _balanced(text: str) -> bool:
    opened = closed = 0
    for brace in re.findall(r"\\.|[{}]", text):
        opened, closed = opened + (brace == "{"), closed + (brace == "}")
        if closed > opened:
            return False
    return opened == closed


@lru_cache(maxsize=1024)
def _parsed_gold(answer: str) -> tuple[Any, ...]:
    parsed = _parsed(f"$\\boxed{{{answer}}}$")
    if not parsed:
        raise ValueError(f"the right answer {answer[:40]!r} cannot be read")
    return tuple(parsed)


def _parsed(text: str) -> list[Any]:
    from math_verify import parse
    from sympy import I

    # The time limit is the worker's; math-verify warns when its own, which needs signals, is off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    found = list(parse(text, parsing_timeout=0))
    # It takes i for a variable.
    return [_with(part, "i", I) for part in found]


def _with(expression: Any, name: str, value: Any) -> Any:
    symbols = [symbol for symbol in getattr(expression, "free_symbols", ()) if symbol.name == name]
    return expression.subs(symbols[0], value) if len(symbols) == 1 else expression


def _verified(gold: list[Any], found: list[Any]) -> bool:
    from math_verify import verify

    if not verify(gold, found, allow_set_relation_comp=True, timeout_seconds=None):
        return False
    return not _far_apart(gold[0], found[0])


def _far_apart(gold: Any, found: Any) -> bool:
    """Whether both are numbers, and not one."""
    from sympy import Expr

    if not all(isinstance(side, Expr) and side.is_number for side in (gold, found)):
        return False
    values = [side.evalf(30) for side in (gold, found)]
    if not all(value.is_finite for value in values):
        return False
    size = max(abs(value) for value in values)
    return bool(size > 0 and abs(values[0] - values[1]) > size / 10**6)
