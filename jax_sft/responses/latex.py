r"""A mathematical answer as people write it, in plain LaTeX: without styles, units and marks."""

import re

_DASHES = dict.fromkeys("−–—‐‑‒﹣", "-")
_COMMANDS = {
    "×": "times", "÷": "div", "·": "cdot", "⋅": "cdot", "∙": "cdot", "∞": "infty", "π": "pi", "≤": "le",
    "≥": "ge", "≠": "ne", "≈": "approx", "±": "pm", "∓": "mp", "∪": "cup", "∩": "cap", "∈": "in",
    "∅": "emptyset", "θ": "theta", "α": "alpha", "β": "beta", "λ": "lambda", "φ": "phi", "ω": "omega",
    "⟨": "langle", "⟩": "rangle",
}  # fmt: skip
_VULGAR = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅛": (1, 8)}
_UNICODE = (
    _DASHES
    | {sign: f"\\{name} " for sign, name in _COMMANDS.items()}
    | {sign: f"\\frac{{{above}}}{{{below}}}" for sign, (above, below) in _VULGAR.items()}
    | dict.fromkeys("°º˚", "^\\circ ")
    | {"∗": "*", "∕": "/", "⁄": "/", "′": "'", "\u00a0": " ", "ℝ": "\\mathbb{R}"}
)
_TRANSLATED = str.maketrans(_UNICODE)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_ROOT = re.compile(r"√\s*(?:\{([^{}]*)\}|\(([^()]*)\)|(\d+(?:\.\d+)?|[a-zA-Z]|\\[a-z]+))")
# Styles with an argument, which is what they say; and those that say nothing.
_STYLED = re.compile(
    r"\\(?:text)?color(?:box)?\s*\{[^{}]*\}\s*\{(?P<coloured>[^{}]*)\}"
    r"|\\(?:text(?:bf|it|sf|tt|sl|sc|up|md|normal)|math(?:bf|it|sf|tt|normal|bfit)|boldsymbol|bm|emph|underline|ensuremath"
    r"|f?box(?:ed)?|framebox|large|Large|LARGE|huge|Huge|small|displaystyle|textstyle)\s*\{(?P<styled>[^{}]*)\}"
)
_SILENT = re.compile(
    r"\\(?:[hv]?phantom|hspace\*?|vspace\*?|label|tag\*?|color|textcolor|mathstrut)\s*\{[^{}]*\}"
    r"|\\(?:displaystyle|textstyle|scriptstyle|bf|it|rm|sf|tt|large|Large|LARGE|huge|Huge|normalsize|small|tiny|limits"
    r"|nolimits|mathstrut|left|right|[bB]igg?[lr]?|checkmark|square|blacksquare|qed)(?![A-Za-z])\.?"
    r"|[✓✔✅]"
)
_SPACE = re.compile(
    r"(?<!\\frac)(?<=[\d\s])\{\s*\}|(?<!\\)\\[,;:>! ]"
    r"|\\(?:q?quad|enspace|thinspace|space)(?![A-Za-z])|~|\\\\\s*$"
)
_DELIMITER = re.compile(r"(?<!\\)\$|\\[()\[\]]")
_MONEY = re.compile(r"\\\$|[€£¥₹¢]")
_LEAD = re.compile(
    r"^(?:\s|[=:~]|\\(?:approx|therefore|implies|Rightarrow|Longrightarrow|rightarrow|to|sim|because|Leftrightarrow|iff)"
    r"(?![A-Za-z])|\b(?:the|so|thus|hence|therefore|final|correct|answers?|is|are|it|result|value|solutions?|equals"
    r"|approximately|about|exactly)\b)+",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(r"^(\*{1,3}|_{2,3}|`+|\"|'|“)(.*?)(\1|”)$", re.DOTALL)
_END = re.compile(r"(?:[.,;:\s]|\\\\)+$")
_SINGLE_TEXT = re.compile(r"\\(?:text(?:rm)?|mathrm|mbox|hbox|operatorname)\s*\{([^{}]*)\}")
_WORD_UNIT = r"(?:[a-zA-Z]{3,}|cm|mm|km|kg|mg|ml|mL|ft|in|yd|mi|lb|oz|hr|hrs|mph|cents?|m/s|km/h)\.?"
_UNIT = re.compile(
    r"(?<=[\d})\]!%\s])\s*(?:"
    r"\\(?:text(?:rm)?|mathrm|mbox|hbox)\s*\{(?P<text>[^{}]*)\}(?:\s*\^\s*\{?\d\}?)?"
    rf"|(?<=[\d}}\s])(?:\s|(?<=\s)){_WORD_UNIT}(?:[\s/]+{_WORD_UNIT}){{0,4}}(?:\s*\^\s*\{{?\d\}}?)?"
    r"|\^\s*\{?\s*\\circ\s*\}?(?:\s*[CF]\b)?"
    r")\s*$"
)
_JOINING = re.compile(r"\b(?:and|or|million|billion|thousand|hundred|if|for|when|mod|of)\b", re.IGNORECASE)


def tidy(answer: str) -> str:
    """The answer without what says nothing about its value. A text of words stays a text of words."""
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2] or m[3]}}}", answer)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: f"^{{{m[0].translate(_RAISED)}}}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda m: f"_{{{m[0].translate(_LOWERED)}}}", text).translate(_TRANSLATED)
    text = re.sub(r",\s*\\!\s*|(?<=\d)\{,\}(?=\d)", ",", text)
    before = None
    while text != before:
        before, text = text, _STYLED.sub(lambda m: f" {m['coloured'] or m['styled'] or ''} ", text)
    text = _MONEY.sub(" ", _DELIMITER.sub(" ", _SPACE.sub(" ", _SILENT.sub(" ", text))))
    before = None
    while text != before:  # one layer after another: **\text{7 apples.}**
        before, text = text, _peeled(text.strip())
    return re.sub(r"(?<=\d) +i\b", "i", re.sub(r"\s+", " ", text))


def _peeled(text: str) -> str:
    text = _END.sub("", _LEAD.sub("", text)).strip()
    if emphasis := _EMPHASIS.match(text):
        return emphasis[2]
    if whole := _SINGLE_TEXT.fullmatch(text):
        return whole[1]
    first = _SINGLE_TEXT.match(text)
    if first and not _LEAD.sub("", first[1].rstrip(" :") + " ").strip():  # \text{The answer is } 7
        return text[first.end() :]
    if text.startswith("{") and text.endswith("}") and "}" not in text[1:-1]:
        return text[1:-1]
    unit = _UNIT.search(text)
    if unit and unit.start() and not _JOINING.search(unit[0]) and re.search(r"\d|\\", text[: unit.start()]):
        return text[: unit.start()]
    return text
