r"""Reading an answer that is one of a few words (yes or no), words in order, or closing brackets."""

import html
import re
from collections.abc import Mapping, Sequence

from jax_sft.responses import answers
from jax_sft.responses.answers import Answer, Form, Reader, within

_TOKEN = re.compile(r"[^\W_]+(?:['’.&/-][^\W_]+)*")
_LATEX = re.compile(r"\\(?:text|math)[a-z]*\s*\{|\\(?:quad|[,;:! \\])")
_BRACKETS = re.compile(r"[\[\](){}<>](?:[\s`'\",$*]*[\[\](){}<>])*")
_BRACKET_NAMES = {r"\langle": "<", r"\rangle": ">", r"\lbrace": "{", r"\rbrace": "}"}
_SAID_LINE = re.compile(
    r"\b(?:answer|sequence|brackets|parentheses)\b[^\n]{0,120}?(?:\bis\b|\bare\b|:)([^\n]*(?:\n+[^\n]+)?)",
    re.I,
)
_BOXED_LINE = re.compile(r"\\(?:boxed|fbox)\s*\{(.{0,2000})\}")
_SENTENCE_START = re.compile(r"[.!?\n:][\s*_\"']*$")
_NEAR = 20
_SHORT = 3  # letters of a word, like no, that also stands in sentences which are no answer


def word(said: str, words: Sequence[str], same: Mapping[str, str] | None = None) -> Answer | None:
    """The one of `words` that is the answer: tagged, boxed, marked, stated, alone, or named last.

    `same` are other words for them ("plausible" for "yes"). Of two words, "not" before one means the other.
    """
    meant = {name.lower(): name for name in words} | dict(same or {})
    listed = "|".join(sorted(map(re.escape, meant), key=len, reverse=True))
    named = re.compile(
        rf"(?P<not>\b(?:not|isn't|isn’t)\s+(?:(?:an?|deductively|formally)\s+)*)?(?<![\w'’-])(?P<word>{listed})"
        r"(?![\w'’-])",
        re.IGNORECASE,
    )

    def mean(match: re.Match[str]) -> str:
        found = meant[match["word"].lower()]
        others = [name for name in words if name != found]
        return others[0] if match["not"] and len(others) == 1 else found

    def field(text: str) -> str | None:
        side = text.rpartition("=")[2]
        if opening := named.match(side.lstrip(" \t*_`\"'“‘($\\{:-")):
            return mean(opening)
        found = {mean(match) for match in named.finditer(side)}
        return found.pop() if len(found) == 1 else None

    def alone(text: str) -> str | None:
        opening = named.match(_LATEX.sub("", text).lstrip(" \t*_`\"'“‘($\\{:-"))
        return mean(opening) if opening else None

    def last(text: str) -> str | None:
        found = None
        for match in named.finditer(text):
            before = "\n" * (match.start() < _NEAR) + text[max(0, match.start() - _NEAR) : match.start()]
            if len(match["word"]) > _SHORT or _SENTENCE_START.search(before):
                found = match
        return mean(found) if found else None

    return answers.find(
        said, [*_explicit(field), (answers.ALONE, within(answers.alone, alone)), (answers.LAST, last)]
    )


def ordered(said: str, words: Sequence[str]) -> Answer | None:
    """The words in the order that is given as the answer, with single spaces, in small letters.

    Tagged, boxed, marked, stated, alone on a line, or else the last words of the list that stand together.
    """
    known = {name.lower() for name in words}
    enough = len(words) // 2 + 1

    def field(text: str) -> str | None:
        tokens = _tokens(text)
        return " ".join(tokens) if sum(token in known for token in tokens) >= enough else None

    def alone(text: str) -> str | None:
        tokens = _tokens(text)
        places = [place for place, token in enumerate(tokens) if token in known]
        return field(" ".join(tokens[places[0] : places[-1] + 1])) if places else None

    def last(text: str) -> str | None:
        run: list[str] = []
        found: list[str] = []
        for token in [*_tokens(text), ""]:
            if token in known:
                run.append(token)
            else:
                found = run if len(run) >= enough else found
                run = []
        return " ".join(found[-len(words) :]) if found else None

    return answers.find(
        said, [*_explicit(field), (answers.ALONE, within(answers.alone, alone)), (answers.LAST, last)]
    )


def brackets(said: str) -> Answer | None:
    """The brackets given as the answer, without spaces: tagged, boxed, marked, stated, or a line of them."""

    def field(text: str) -> str | None:
        for name, mark in _BRACKET_NAMES.items():
            text = text.replace(name, mark)
        runs = _BRACKETS.findall(html.unescape(_LATEX.sub("", text)).replace("\\", ""))
        longest = max(runs, key=len, default="")
        return re.sub(r"[^\[\](){}<>]", "", longest) or None

    def boxed(text: str) -> str | None:
        # The braces of the box and those of the answer do not balance: the box ends with its line.
        found = _BOXED_LINE.findall(text)
        return field(found[-1]) if found else None

    def alone(text: str) -> str | None:
        return field(text) if not re.search(r"\w", html.unescape(text)) else None

    def stated(text: str) -> str | None:
        return next((found for line in reversed(_SAID_LINE.findall(text)) if (found := field(line))), None)

    forms = [
        (answers.TAG, within(answers.tagged, field)),
        (answers.BOX, boxed),
        (answers.STATED, stated),
        (answers.ALONE, within(answers.alone, alone)),
    ]
    return answers.find(said, forms)


def quoted(said: str, texts: Sequence[str]) -> int | None:
    """The place of the one text that is given as the answer, to the letter, or else whose words are quoted.

    A text within another that is quoted too does not count. None when there is none, or several.
    """
    fields = [said, *answers.tagged(said), *answers.boxes(said), *answers.stated(said)]
    plain = {field.strip(" \t\n.*$") for field in fields}
    given = [place for place, text in enumerate(texts) if text.strip(" \t\n.*$") in plain]
    words, normals = f" {normal(said)} ", list(map(normal, texts))
    standing = [place for place, text in enumerate(normals) if text and f" {text} " in words]
    longest = [
        place
        for place in standing
        if not any(other != place and normals[place] in normals[other] for other in standing)
    ]
    found = given or longest
    return found[0] if len(found) == 1 else None


def normal(text: str) -> str:
    """A text in small letters, its words with single spaces and without marks around them."""
    return " ".join(_tokens(text))


def _explicit(field: Reader) -> list[Form]:
    return [
        (answers.TAG, within(answers.tagged, field)),
        (answers.BOX, within(answers.boxes, field)),
        (answers.MARKED, within(answers.marked, field)),
        (answers.STATED, within(answers.stated, field)),
    ]


def _tokens(text: str) -> list[str]:
    """The words of a list, without its numbers and what joins them."""
    plain = re.sub(r"(?m)^[ \t]*\d+[.)]\s", " ", _LATEX.sub(" ", text))
    return [token.lower() for token in _TOKEN.findall(plain)]
