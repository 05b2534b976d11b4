"""Reading the answer out of a completion: what follows the thinking, boxes, numbers, letters."""

import re
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(
    r"(?<![\w.,/])[-−]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d\w]|/\d)|(?<![\w.,/])[-−]?\$?\.\d+"
)
_SPACES = re.compile(r"(?<=\d)(?:\\[,!]|\{,\})(?=\d{3})")  # LaTeX thousands: 18\,000 and 18{,}000
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_FINAL = re.compile(r"####\s*([^\n]*)")
_LETTER_AFTER = r"(?:answer|option|choice)(?:\s+(?:is|would be|should be))?\s*:?\s*\**\s*[(\[]?"


def visible(completion: str) -> str | None:
    """The text after the last </think>, or all when nothing was thought; None when thinking never ended."""
    opened, closed = completion.rfind("<think>"), completion.rfind("</think>")
    if opened > closed:
        return None
    return completion[closed + len("</think>") :] if closed >= 0 else completion


def last_boxed(text: str) -> str | None:
    r"""Content of the last \boxed{…} whose braces balance; None when there is none."""
    found = None
    for match in _BOX.finditer(text):
        depth, position = 1, match.end()
        while position < len(text) and depth:
            # An escaped brace (\{) is content, not structure.
            if text[position] == "\\":
                position += 1
            elif text[position] in "{}":
                depth += 1 if text[position] == "{" else -1
            position += 1
        if depth == 0:
            found = text[match.end() : position - 1]
    return found


def last_number(text: str) -> str | None:
    """The last number written in the text, as written; None when there is none."""
    found = _NUMBER.findall(_SPACES.sub(",", text))
    return found[-1] if found else None


def final_number(text: str) -> str | None:
    r"""The number given as the answer: after ####, else in the last box, else the last one in the text."""
    marked = _FINAL.findall(text)
    for part in (marked[-1] if marked else None, last_boxed(text)):
        if part is not None and (number := last_number(part)) is not None:
            return number
    return last_number(text)


def to_decimal(number: str) -> Decimal | None:
    """Exact value of a number as people write it ("$1,200.50"); None when it is not one."""
    plain = number.replace("−", "-").replace("$", "").replace(",", "").strip().rstrip(".")
    try:
        value = Decimal(plain)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def choice_letter(text: str, letters: str = "ABCDE") -> str | None:
    r"""The option chosen: in the last box, else after "answer is", else first in the text, else alone.

    A letter counts only when it stands by itself, so that the article in "A dog" does not.
    """
    options = f"[{letters}]"
    boxed = last_boxed(text)
    if boxed is not None and (match := re.fullmatch(rf"(?:\\text\{{)?\W*({options})\W*.*", boxed, re.S)):
        return match[1]
    after = re.findall(rf"(?i:{_LETTER_AFTER})({options})(?![\w'])", text)
    if after:
        return str(after[-1])
    opening = re.match(rf"\W*({options})(?:[).:,\]*]|\s*$|\s*\n)", text)
    if opening:
        return opening[1]
    alone = re.findall(rf"[(\[*]\s*({options})\s*[)\]*]|^\s*({options})[.):]?\s*$", text, re.M)
    return next((first or second for first, second in reversed(alone)), None)
