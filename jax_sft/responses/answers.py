r"""Where the answer stands in what a person sees of a completion: an ordered list of forms, for all tasks.

A form is a way to give an answer, and a finder that reads it: `tag` (<answer>…</answer>), `box` (\boxed{…}),
`marked` (#### …), `stated` ("the answer is …"), `alone` (a line that is nothing else), and what a task adds.
The first form of a task's list that can be read counts, and its name is kept beside the answer.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

TAG, BOX, MARKED, STATED, ALONE, LAST = "tag", "box", "marked", "stated", "alone", "last"
_EXPLICIT = (TAG, BOX, MARKED, STATED)


_MOST = 40
"""Statements looked at, from the last on: a model that repeats itself costs no quadratic time."""
_LONGEST_LINE = 300


class Answer(NamedTuple):
    """An answer as it was read, and the form in which it stood."""

    text: str
    form: str


Reader = Callable[[str], str | None]
"""Reads a field; None where it holds nothing of its kind, so that the search goes on."""
Form = tuple[str, Reader]

# What is invisible or directs the text only; full-width ASCII as plain ASCII.
_INVISIBLE = (0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF)
_WIDE = {0xFF01 + shift: 0x21 + shift for shift in range(94)} | {
    0x3000: 0x20,
    0x3002: ord("."),
    0xFF61: ord("."),
}
_END_MARK = re.compile(r"<[|｜][^<>\s]{2,40}[|｜]>|</s>|<eos>|<end_of_turn>|\[/?INST\]")
# A question that the model made up after its answer.
_NEXT_QUESTION = re.compile(
    r"\n\s*\n\s*(?:\**|#*\s*)(?:next |new )?(?:question|problem|q|exercise|example|human|user|input)"
    r"\b\W{0,3}\d*\W{0,3}:",
    re.IGNORECASE,
)

_TAG = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(
    r"(?:\\(?:boxed|fbox|framebox)|\x08oxed)\s*(?:\{|(?P<bare>\d+|[A-Z]\b))"
    # Its backslash lost, it is a box only where a word could begin and a brace follows.
    r"|(?<![\w\\])(?:boxed|fbox|framebox)\{"
)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_MARK = re.compile(r"#{4,}[ \t]*([^\n]{0,200})[^\n]*(?:\n(?=([^\n]{1,200})))?")
_NOUN = (
    r"(?:\b(?:answers?|ans|antwort|r[ée]ponse|respuesta|risposta|resposta|final (?:result|value|total|amount"
    r"|count|number|solution|choice))\b|ответ|答案|答え|正解)"
)
_VERB = r"(?:\b(?:is|are|be|equals|comes? to|ist|est|es|è|é)\b|[:=：]|是|为|は)"
_STATEMENT = re.compile(
    rf"{_NOUN}(?P<between>[^.\n!?:=]{{0,80}}?){_VERB}(?=(?P<field>[^\n]{{0,200}}(?:\n\s{{0,9}}[^\n]{{1,200}}){{0,2}}))",
    re.IGNORECASE,
)
_REVERSED = re.compile(
    r"(?:^|[.!?:,]\s|\n)\s*(?P<field>[^.\n]{1,80}?)[*\s]+is\s+(?:the|our|my)\s+(?:\w+\s+)?answer\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\b(?:not|never|cannot|neither|nor|rather than|instead of)\b|n't\b", re.IGNORECASE)
_PART = re.compile(r"\b(?:first|second|third|previous|part|step|intermediate)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?:[.?]|(?<!\\)!(?=\W*(?:$|\s[A-Z])))+(?=[\s*_`\"')\]$]|\\[)\]]|$)")
_BOLD_LINE = re.compile(r"^[ \t>-]*(\*\*|__)(?P<field>[^\n*]{1,120})\1[.!]?[ \t]*$", re.MULTILINE)


def find(said: str, forms: Sequence[Form]) -> Answer | None:
    """The answer in what was said, by the first of `forms` that can be read; None when there is none.

    What a model made up after its answer, such as the next question, is not looked at.
    """
    text = plain(said)
    if follows := _NEXT_QUESTION.search(text.lstrip()):
        head = text.lstrip()[: follows.start()]
        found = _first(head, forms)
        if found and (found.form in _EXPLICIT or "\n" not in head.strip()):
            return found
    return _first(text, forms)


def within(fields: Callable[[str], Iterable[str]], read: Reader) -> Reader:
    """A finder: the first of the fields of a text that `read` can read."""

    def finder(text: str) -> str | None:
        return next((value for field in fields(text) if (value := read(field)) is not None), None)

    return finder


def plain(text: str) -> str:
    """The text up to its end mark, without invisible characters, full-width ones as ASCII."""
    text = text.translate(dict.fromkeys(_INVISIBLE)).translate(_WIDE).strip().strip("\0")
    end = next((mark.start() for mark in _END_MARK.finditer(text) if mark.start()), len(text))
    return text[:end]


def close_up(text: str) -> str:
    """The text without long gaps."""
    return re.sub(r"\s{3,}", lambda gap: "\n\n" if "\n" in gap[0] else "  ", text)


def tagged(text: str) -> Iterator[str]:
    """What stands in answer tags, the last first."""
    return (match[1].strip() for match in reversed(list(_TAG.finditer(text))))


def boxes(text: str) -> Iterator[str]:
    r"""Contents of each \boxed{…} whose braces balance, the last first; empty ones are left out."""
    return (content for _, content, _ in reversed(placed_boxes(text)) if content.strip())


def placed_boxes(text: str) -> list[tuple[int, str, int]]:
    r"""(start, content, end) of each \boxed{…} whose braces balance, in order."""
    closes = _closings(text)
    found = []
    for match in _BOX.finditer(text):
        if match["bare"]:
            found.append((match.start(), match["bare"], match.end()))
        elif end := closes.get(match.end() - 1):
            found.append((match.start(), text[match.end() : end], end + 1))
    return found


def last_boxed(text: str) -> str | None:
    r"""Content of the last \boxed{…} that is not empty and whose braces balance; None when there is none."""
    return next(boxes(text), None)


def marked(text: str) -> Iterator[str]:
    """What follows #### on its line, or on the next when it ends there; the last first."""
    for match in reversed(list(_MARK.finditer(text))):
        field = (match[1].strip(" #*") or match[2] or "").strip(" \t#")
        if field:
            yield field


def stated(text: str) -> Iterator[str]:
    """What is said to be the answer, up to the end of its sentence; the last statement first."""
    return (field for _, field in sorted(statements(text), reverse=True)[:_MOST])


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Where something is said to be the answer, and what, to the end of its sentence."""
    text = close_up(text)
    for match in (*_STATEMENT.finditer(text), *_REVERSED.finditer(text)):
        between, field = match.groupdict().get("between") or "", sentence(match["field"])
        before = text[max(0, match.start() - 12) : match.start()]
        opening = field.partition(" ")[0]
        if field and not _NEGATION.search(f"{between} {opening}") and not _PART.search(before + between):
            yield match.start("field"), field


def alone(text: str) -> Iterator[str]:
    """The whole text when it is one line, lines in bold from the last on, and the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        bold = list(_BOLD_LINE.finditer(text))
        yield from (match["field"].strip() for match in reversed(bold[-_MOST:]))
    yield from (line for line in lines[-1:] if len(line) <= _LONGEST_LINE)


def _first(text: str, forms: Sequence[Form]) -> Answer | None:
    return next((Answer(value, name) for name, read in forms if (value := read(text)) is not None), None)


def sentence(text: str) -> str:
    """The first line that says something, to the end of its first sentence."""
    line = next((line for line in text.split("\n") if line.strip(" \t*_:$[]\\")), "").strip()
    end = _SENTENCE_END.search(line)
    return (line[: end.start()] if end else line).strip(" \t:*_")


def _closings(text: str) -> dict[int, int]:
    r"""Where each brace that is opened closes, found in one pass; an escaped one (\{) is no brace."""
    opened: list[int] = []
    closes = {}
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            closes[opened.pop()] = brace.start()
    return closes
