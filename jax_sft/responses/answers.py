"""Reading the answer out of what a person sees of a completion: boxes, numbers, letters."""

import re
from decimal import Decimal, InvalidOperation

# A number as people write it, in group 1; units may follow at once. Exponents and indices (the 2 of m^2 or of
# m^{2}) are passed over. Atomic, (?>…), so that a refused 12.5/2 is not read as 12, or as 1.
_NUMBER = re.compile(
    r"""
    [\^_] (?: \{[^{}]*\} | [-−]?\w+ )
    | (?<![\w.,/])                                      # not within a word (x2), a number or a fraction
    (
      (?> [-−]?\$? (?:\d{1,3}(?:,\d{3})+ | \d+) (?:\.\d+)? )
      (?! [\d²³¼½¾] | /\d | [\^_]\{?[-−\w] )            # nor the start of one, or of a power, or 101_2
      (?! [eE][-+]?\d | (?:st|nd|rd|th)\b )             # nor 1e3, nor 2nd
    | [-−]?\$?\.\d+
    )
    """,
    re.VERBOSE,
)
# What LaTeX and typographers put between thousands: spaces (18\,000, 18~000) and commas (18{,}000, 18,\!000).
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;:! ]|,\\!|\{,\}|[~\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
_ARGUMENT = r"\s*(\{(?:[^{}]|\{[^{}]*\})*\}|\d)"  # {…}, holding braces one deep, or a digit
_FRACTION = re.compile(rf"(?:(\d)\s*)?\\[dt]?frac{_ARGUMENT}{_ARGUMENT}")
_WHOLE = re.compile(r"\{?\s*([0-9]{1,15})\s*\}?")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_FINAL = re.compile(r"####\s*([^\n]*)")

# What may stand around the letter of an option: ** quotes brackets $ \( \[ \text{ \textbf{ \mathrm{ …
_COMMAND = r"\\(?:text|math)[a-z]*\s*\{"
_OPEN = rf"(?:[*(\[{{<$`\"'“‘]|\\[(\[]|{_COMMAND})"
_CLOSE = r"(?:[*)\]}>$`\"'”’]|\\[)\]])"
_LEAD = rf"(?:{_COMMAND}|\W)*"
# Between "answer" and the letter; bounded, so that a model that repeats itself costs no quadratic time.
_LINK = rf"(?:\s|:|{_OPEN}|(?:is|would be|should be|option|choice|letter)\b){{0,20}}"
_STATED = rf"(?:answer|(?:correct|right|best)\s+(?:option|choice)){_LINK}"
_MENTIONED = rf"(?:option|choice){_LINK}"


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


def join_thousands(text: str) -> str:
    r"""The text with 18\,000, 18~000, 18{,}000 and the like as 18000; "18 000" and (1, 000) stay."""
    return _THOUSANDS.sub("", text)


def final_number(text: str) -> str | None:
    r"""The number given as the answer: after ####, else in the last box, else the last one in the text.

    After #### and in a box it is the first, or the first after the last =; when they hold digits but no
    number that can be read (3/4), there is no answer.
    """
    marked = _FINAL.findall(text)
    for part in (marked[-1] if marked else None, last_boxed(text)):
        if part is not None and re.search(r"\d", part):
            found = _numbers(part.rpartition("=")[2]) or _numbers(part)
            return found[0] if found else None
    found = _numbers(text)
    return found[-1] if found else None


def _numbers(text: str) -> list[str]:
    plain = _FRACTION.sub(_quotient, join_thousands(text))
    return [number for number in _NUMBER.findall(plain) if number]


def _quotient(fraction: re.Match[str]) -> str:
    r"""18 for \frac{36}{2}; "/0", in which no number is read, if that is not whole or follows a digit."""
    before, *parts = fraction.groups()
    above, below = (int(match[1]) if (match := _WHOLE.fullmatch(part)) else None for part in parts)
    if before or above is None or not below or above % below:
        return f"{before or ''}/0"
    return str(above // below)


def to_decimal(number: str) -> Decimal | None:
    """Exact value of a number as people write it ("$1,200.50"); None when it is not one."""
    plain = number.replace("−", "-").replace("$", "").replace(",", "").strip().rstrip(".")
    try:
        value = Decimal(plain)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def choice_letter(text: str, letters: str = "ABCDE") -> str | None:
    r"""The option chosen: in the last box, else after the last "answer is", else first in the text.

    Else the last after "option" or "choice", else the last that stands in brackets or alone on its line.
    A letter counts only when it stands by itself, with or without wrappers (**C**, \text{C}, "C"), so that
    neither "Apple" nor, in a box or first in the text, the article in "A dog" does.
    """
    letter = rf"(?<!\w)([{letters}])(?!\w|['’]\w)"
    boxed = last_boxed(text)
    if boxed is not None and (match := re.match(rf"{_LEAD}(?!A\s+[a-z]){letter}", boxed)):
        return match[1]
    if stated := re.findall(rf"(?i:{_STATED}){letter}", text):
        return str(stated[-1])
    if opening := re.match(rf"{_LEAD}{letter}(?:[.:,]|{_CLOSE}|\s*$|\s*\n)", text):
        return opening[1]
    if mentioned := re.findall(rf"(?i:{_MENTIONED}){letter}", text):
        return str(mentioned[-1])
    alone = re.findall(rf"{_OPEN}\s*{letter}\s*{_CLOSE}|^[ \t]*{letter}[.):]?\s*$", text, re.M)
    return next((first or second for first, second in reversed(alone)), None)
