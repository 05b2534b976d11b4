r"""Reading a number as people write it: $1,200.50, 18\,000, \frac{36}{2}, 2\frac{1}{2}, 3½, 1 million, 18km.

Values are exact. What is not one plain number (9 \times 2, 9:30, 2^5, 9\pi, "9 or 18") is not read as one.
"""

import re
from collections.abc import Iterator
from fractions import Fraction

from jax_sft.responses import answers
from jax_sft.responses.answers import Answer, within

# What LaTeX and typographers put between thousands: spaces (18\,000, 18~000) and commas (18{,}000, 18,\!000).
_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;:! ]|,\\!|\{,\}|[~\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
_SPACED = re.compile(r"(?<![\d.,] )(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d.,]?\d)")
_SIGNS = str.maketrans({"−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "∗": "*", "\u00a0": " "})
_VULGAR = {"½": "1⁄2", "⅓": "1⁄3", "⅔": "2⁄3", "¼": "1⁄4", "¾": "3⁄4", "⅕": "1⁄5", "⅛": "1⁄8"}
_SPOKEN = {"half": "1⁄2", "third": "1⁄3", "quarter": "1⁄4", "fourth": "1⁄4"}
_STYLE = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|color\s*\{\w*\})?|math(?:bf|rm|it|sf|tt)|[mh]box|boldsymbol|bm|emph"
    r"|underline|f?box(?:ed)?|color\s*\{\w*\})\s*\{([^{}]*)\}"
)
_COMMAND = re.compile(
    r"\\(?:left|right|(?:display|text)style|bf|large|Large|therefore|approx|sim|q?quad)(?![A-Za-z])"
    r"|\\[,;:! ()\[\]]"
)
_EMPHASIS = re.compile(
    r"(?<![\w)])(?<![\d)] )(?:\*{1,3}|_{1,3}|[`~#]+)(?=\S)|(?<=\S)(?:\*{1,3}|_{1,3}|`+)(?![\w( ]|\s\d)"
)
_MONEY = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|[°º]|(?:\bUS|\b[AC])?\\?[$€£¥₹₩₽]|\\?%")
_ARGUMENT = r"\s*(?:\{\s*([^{}]*?)\s*\}|(\d))"
_FRACTION = re.compile(rf"(\d\s*)?\\[dtc]?frac{_ARGUMENT}{_ARGUMENT}")
_SLASH = re.compile(r"(?<![\d./])(?:(\d+)\s+)?(\d+)\s?/\s?(\d+)(?![\d./])")
_MAGNITUDES = {"hundred": 100, "thousand": 10**3, "k": 10**3, "million": 10**6, "billion": 10**9}

# What stands before and after must not make it another thing: x2, 2nd, 2^5, 101_2, 12.5/2, 9:30.
_NUMBER = re.compile(
    r"""
    [\^_] (?: \{[^{}]*\} | -?\w+ )                             # exponents and indices are passed over
    | (?<![\w/^⁄]) (?<!\d[.,:]) (?<!\w\.)
    (?P<sign>[-+])?
    (?:
      (?: (?P<whole>\d+) \+ )? (?P<above>\d+) ⁄ (?P<below>\d+) (?![\d.⁄])
      | (?> (?P<decimal> (?: \d{1,3}(?:,\d{3})+(?!\d) | \d+ ) (?:\.\d+)? | (?<!\.)\.\d+ ) )
        (?! \d | \+?\d*⁄ | /\s?\d | [\^_]\{?[-\w(] | :\d | (?:st|nd|rd|th)\b | ,\d )
    )
    (?: [eE](?P<exponent>[-+]?\d{1,2})(?!\w)
      | \s*(?:\\times|\\cdot|[*x×·])\s*10\s*\^\s*\{?(?P<power>-?\d{1,2})\}?
      | \s?(?P<magnitude>hundred|thousand|million|billion|k)\b
    )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_OPERATOR = re.compile(
    r"\s*(?:[+*^×÷·/]\s*[\d(\\$]|-\s*[\d(\\]|\\(?:times|cdot|div|pi|pm|mp|sqrt|frac)|[πxyzn]\b|x\s*\d|:\s*\d)|\)?\(\s*\d+\s*\)"
)
_LIST = re.compile(
    r"\s*[a-z ]{0,20}?(?:[,;&]|\bor\b|\band\b)[\s$]*[-+]?\d[\d.,]*\s*[a-z]*\W*$", re.IGNORECASE
)
_BEFORE = re.compile(r"[-+*/^×÷\d\\]|\bsqrt\b")
_NOT = re.compile(r"\(?\b(?:not|rather than|instead of)\b[^).,;]*\)?|\\neq?\b.*|≠.*|!=.*", re.IGNORECASE)
_ASIDE = re.compile(r"\b(?:the|her|his|its|their) other \$?\d[\d.,]*", re.IGNORECASE)
"""What is left beside the answer: "She keeps the other 3 eggs"."""
_EQUALS = re.compile(
    r"=|≈|\b(?:equals|giving|making|that is|which (?:is|equals|gives|makes))\b", re.IGNORECASE
)
_LEAD = re.compile(
    r"(?:\W|\b(?:the|final|answer|result|total|sum|is|are|so|thus|therefore|about|around|approximately|rs|usd|it)\b)*",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"\W*(?:step|part|case|method|solution|problem|question|example|note|given)\b", re.IGNORECASE
)
_UNITS = re.compile(r"\W*(?:[^\W\d_]+\W*){0,3}")
_CHATTER = re.compile(
    r"(?:^|(?<=[.!?\n]))\W{0,9}(?:let me know|i hope|hope this|feel free"
    r"|if you (?:have|need|want)|please let)\b.*",
    re.IGNORECASE | re.DOTALL,
)


def final_number(said: str) -> Answer | None:
    """The number given as the answer: tagged, in the last box, after ####, stated, alone, else the last one.

    A field with digits that are not one plain number is the answer as it stands, which equals no number.
    """
    forms = [
        (answers.TAG, within(answers.tagged, _field)),
        (answers.BOX, within(answers.boxes, _field)),
        (answers.MARKED, within(answers.marked, _marked)),
        (answers.STATED, within(answers.stated, _field)),
        (answers.ALONE, within(answers.alone, _alone)),
        (answers.LAST, _last),
    ]
    return answers.find(said, forms)


def to_fraction(number: str) -> Fraction | None:
    """The exact value of a text that is one number ("$1,200.50", "3/4"); None when it is not one."""
    match = _NUMBER.fullmatch(_fractions(_readable(number)).strip().rstrip("."))
    return _value(match) if match else None


def join_thousands(text: str) -> str:
    r"""The text with 18\,000, 18~000, 18{,}000 and the like as 18000; "18 000" and (1, 000) stay."""
    return _THOUSANDS.sub("", text)


def _field(field: str) -> str | None:
    """The one number of a field: alone, with units and words, or on a side of an equation."""
    if not re.search(r"\d", field):
        return None
    text = _fractions(_SPACED.sub(lambda match: match[0].replace(" ", ""), _NOT.sub(" ", _readable(field))))
    sides = [side for side in _EQUALS.split(text) if side.strip()]
    for side in sides[-1:] + sides[:1]:
        if (number := _single(side)) is not None:
            return number
    return field.strip()


def _single(side: str) -> str | None:
    side = side.strip().removeprefix("(").removesuffix(")") if side.count("(") == 1 else side
    first = next(_numbers(side), None)
    if first is None or _BEFORE.search(side[: first.start()]):
        return None
    rest = side[first.end() :]
    if _OPERATOR.match(rest) or _LIST.match(re.sub(r"\([^()]*\)\W*$", "", rest)):
        return None
    return first[0].strip()


def _marked(field: str) -> str | None:
    """After ####, where a heading may stand too."""
    if _HEADING.match(field):
        return None
    start = _LEAD.sub("", field, count=1)
    return _field(field) if re.match(r"\d|\\", start) or "=" in field else None


def _alone(field: str) -> str | None:
    """A line that holds a number and at most a few words."""
    text = _fractions(_SPACED.sub(lambda match: match[0].replace(" ", ""), _readable(field)))
    first = next(_numbers(text), None)
    if (
        first is None
        or not _LEAD.fullmatch(text[: first.start()])
        or not _UNITS.fullmatch(text[first.end() :])
    ):
        return None
    return first[0].strip()


def _last(text: str) -> str | None:
    said = _NOT.sub(" ", _readable(_CHATTER.sub("", text)))
    found = list(_numbers(_ASIDE.sub(" ", said))) or list(_numbers(said))
    return found[-1][0].strip() if found else None


def _numbers(text: str) -> Iterator[re.Match[str]]:
    return (match for match in _NUMBER.finditer(text) if match["decimal"] or match["below"])


def _value(match: re.Match[str]) -> Fraction | None:
    if match["decimal"]:
        value = Fraction(match["decimal"].replace(",", ""))
    elif match["below"] and int(match["below"]):
        value = int(match["whole"] or 0) + Fraction(int(match["above"]), int(match["below"]))
    else:
        return None
    value *= Fraction(10) ** int(match["exponent"] or match["power"] or 0)
    value *= _MAGNITUDES[(match["magnitude"] or "").lower()] if match["magnitude"] else 1
    return -value if match["sign"] == "-" else value


def _readable(text: str) -> str:
    """The text with numbers written plainly: no LaTeX, emphasis or currency around them; fractions as a⁄b."""
    text = join_thousands(text).translate(_SIGNS)
    before = ""
    while text != before:
        before, text = text, _STYLE.sub(r" \1 ", text)
    text = _FRACTION.sub(_latex_fraction, text)
    text = re.sub(
        rf"(\d)?\s?([{''.join(_VULGAR)}])", lambda m: (m[1] + "+" if m[1] else "") + _VULGAR[m[2]], text
    )
    text = re.sub(rf"(\d) and an? ({'|'.join(_SPOKEN)})\b", lambda m: f"{m[1]}+{_SPOKEN[m[2]]}", text)
    return _EMPHASIS.sub("", _MONEY.sub("", _COMMAND.sub(" ", text)))


def _latex_fraction(match: re.Match[str]) -> str:
    r"""36⁄2 for \frac{36}{2}, 2+1⁄2 for 2\frac{1}{2}; "/0", which is no number, for other arguments."""
    whole, above, below = match[1], match[2] or match[3], match[4] or match[5]
    if not re.fullmatch(r"\d{1,15}", above or "") or not re.fullmatch(r"0*[1-9]\d{0,14}", below or ""):
        return f"{whole or ''}/0"
    if whole and int(above) >= int(below):
        return f"{whole}/0"
    return f"{whole.strip()}+{above}⁄{below}" if whole else f"{above}⁄{below}"


def _fractions(text: str) -> str:
    """3/4 and 3 1/2 as 3⁄4 and 3+1⁄2; 18/1 stays, which is no number but a rate or a date."""

    def change(match: re.Match[str]) -> str:
        whole, above, below = match[1], int(match[2]), int(match[3])
        if not below or above % below == 0 or (whole and above > below):
            return match[0]
        return (f"{whole}+" if whole else "") + f"{above}⁄{below}"

    return _SLASH.sub(change, text)
