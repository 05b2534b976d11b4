"""Exact arithmetic from text: a small parser (never eval) and the check of a Countdown answer."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from jax_sft.responses.numbers import join_thousands

LONGEST = 400  # characters; keeps recursion and integers small whatever a model writes
MOST_DIGITS = 12
_UNICODE = str.maketrans(
    {"×": "*", "✕": "*", "✖": "*", "·": "*", "⋅": "*", "∗": "*", "∙": "*", "÷": "/", "∕": "/", "⁄": "/"}
    | {"−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-", "＋": "+", "＊": "*"}
    | {"／": "/", "＝": "=", "（": "(", "）": ")", "[": "(", "]": ")", "{": "(", "}": ")", "$": " "}
)
_ARGUMENT = r"\s*(?:\{([^{}]*)\}|(\d))"  # of a LaTeX command: {…} with no braces within, or a single digit
_LATEX = (
    # Not after a digit, where it would be a mixed number.
    (re.compile(rf"(?<!\d)(?<!\d )\\[dt]?frac{_ARGUMENT}{_ARGUMENT}"), r"((\1\2)/(\3\4))"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (
        re.compile(r"\\(?:left|right|displaystyle|q?quad)(?![a-zA-Z])|\\[,;:! ]|\\checkmark\s*$|[✓✔✅]\s*$"),
        " ",
    ),
    (re.compile(r"(?<=\S)\s*\\text\s*\{[^{}\d]*\}\s*$"), ""),  # a word at the end
    (re.compile(r"\\(?:text|math)(?:bf|rm|it)?\s*\{([^{}]*)\}"), r" \1 "),
)
_LETTER_X = re.compile(r"(?<=[\d)\s])[xX](?=[\s\d(])")
_TOKEN = re.compile(r"\s*(?:(\d+)(?:\.0+)?(?![.\d])|([-+*/()]))")


@dataclass(frozen=True)
class Expression:
    """Value of an arithmetic expression, and the numbers and operations written in it, in order."""

    value: Fraction
    numbers: tuple[int, ...]
    operations: str


def parse_expression(text: str) -> Expression:
    """Parse one side of an equation: integers, + - * / and brackets, unary minus, unicode or LaTeX operators.

    A bracket beside a number or another bracket multiplies: 2(3+5). Raises ValueError for anything else, for
    division by zero, and for text longer than LONGEST characters.
    """
    tokens = _tokenise(normalise(text))
    try:
        value, position = _sum(tokens, 0)
    except RecursionError:
        raise ValueError("brackets nested too deep") from None
    if position != len(tokens):
        raise ValueError(f"unexpected {tokens[position]!r}")
    numbers = tuple(int(token) for token in tokens if token.isdigit())
    return Expression(value, numbers, "".join(token for token in tokens if token in "+-*/"))


def check_answer(
    text: str, numbers: Sequence[int], target: int, uses: int = 0, operations: str = "+-*/"
) -> bool:
    """Whether `text` reaches `target` from `numbers`, each used at most once, by exact arithmetic.

    `uses` asks for exactly that many numbers (0: any), `operations` lists those allowed. `text` may be an
    equation ("3*8 = 24", "24 = 3*8"): then every side must have the target's value. Never raises.
    """
    try:
        sides = [parse_expression(side) for side in normalise(text).split("=")]
    except ValueError:
        return False
    if any(side.value != target for side in sides):
        return False
    stock = Counter(numbers)
    return any(
        not Counter(side.numbers) - stock
        and set(side.operations) <= set(operations)
        and uses in (0, len(side.numbers))
        for side in sides
    )


def normalise(text: str) -> str:
    """Plain ASCII operators and brackets for unicode and LaTeX forms; ValueError for a text too long."""
    if len(text) > LONGEST:
        raise ValueError(f"longer than {LONGEST} characters")
    before, text = "", join_thousands(text)
    while text != before:  # inner commands first: each pass takes away the innermost
        before = text
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return _LETTER_X.sub("*", text.translate(_UNICODE)).strip().rstrip(".,;").rstrip()


def _tokenise(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"unexpected {text[position]!r}")
        token = match[1] or match[2]
        if len(token) > MOST_DIGITS or not token.isascii():
            raise ValueError(f"unexpected {token!r}")
        if (
            tokens
            and (tokens[-1] == ")" or tokens[-1].isdigit())
            and (token == "(" or (tokens[-1] == ")" and token.isdigit()))
        ):
            tokens.append("*")
        tokens.append(token)
        position = match.end()
    return tokens


def _sum(tokens: list[str], position: int) -> tuple[Fraction, int]:
    value, position = _product(tokens, position)
    while position < len(tokens) and tokens[position] in "+-":
        right, after = _product(tokens, position + 1)
        value = value + right if tokens[position] == "+" else value - right
        position = after
    return value, position


def _product(tokens: list[str], position: int) -> tuple[Fraction, int]:
    value, position = _factor(tokens, position)
    while position < len(tokens) and tokens[position] in "*/":
        right, after = _factor(tokens, position + 1)
        if tokens[position] == "/" and right == 0:
            raise ValueError("division by zero")
        value = value * right if tokens[position] == "*" else value / right
        position = after
    return value, position


def _factor(tokens: list[str], position: int) -> tuple[Fraction, int]:
    if position >= len(tokens):
        raise ValueError("ends too early")
    token = tokens[position]
    if token == "-":
        value, position = _factor(tokens, position + 1)
        return -value, position
    if token == "(":
        value, position = _sum(tokens, position + 1)
        if position >= len(tokens) or tokens[position] != ")":
            raise ValueError("bracket not closed")
        return value, position + 1
    if not token.isdigit():
        raise ValueError(f"unexpected {token!r}")
    return Fraction(int(token)), position + 1
