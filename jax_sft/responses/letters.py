r"""Reading which option was chosen: \boxed{C}, "The answer is C", "B is right", "I choose (d)", "river"."""

import re
from collections.abc import Sequence
from functools import lru_cache

from jax_sft.responses import answers
from jax_sft.responses.answers import Answer, within

_MOST = 40  # statements looked at, from the last on
OPENING, MENTIONED, WORDS = "opening", "mentioned", "words"

# What may stand around a letter: \text{ \textbf{ \( ** __ $ quotes braces.
_COMMAND = re.compile(
    r"\\(?:(?:text)?color\{\w*\}|(?:text|math|boxed|fbox|bm|bf|bold|emph|underline|large|displaystyle|left|right)[a-z]*)"
    r"|\\[()\[\],;:! ]|</?(?:answer|b|i|em|strong|p|u)>"
)
_QUOTED = re.compile(r"(?<!\w)[\"'“”‘’]([A-Za-z])[\"'“”‘’](?!\w)")
_ORNAMENT = re.compile(r"\*+|(?<![A-Za-z0-9])_+|_+(?![A-Za-z0-9])|[`$#{}~\0]")
_LEAD = re.compile(
    r"(?:[\W_]|\b(?:the|most|final|correct|right|best|my|answers?|options?|choices?|letter|is|it|it's|likely|probably"
    r"|therefore|thus|so|then|clearly|definitely|indeed|that|simply|just|seems|to|be)\b)*",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\s*(?:[=+*/^_\\<>≤≥≠×→]|-\s*\d)")
_RANGE = re.compile(r"\s*(?:to|through|[-–])\s*[A-Z]\b")
_WRONG = re.compile(
    r"\s+(?:is|are|was|seems|looks|can|does|would|could|should)?\s*(?:also\s|clearly\s|obviously\s)?"
    r"(?:not\b|n't|wrong|incorrect|false|fails|doesn't|isn't|cannot|can't|won't|out\b)|[,:\s–-]+no\b",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?:\b(?:not|never|cannot|neither|nor|rather than|instead of|eliminate"
    r"|exclude|rule out|unlike|than)|n't)"
    r"[\s(]*(?:(?:the|a|be|options?|choices?|answers?)\s+)*\(?$",
    re.IGNORECASE,
)

_IS = (
    r"(?:is|'s|’s|seems|appears|looks|must|should|would|has|to|be|therefore|thus|then|clearly|definitely|indeed|likely"
    r"|probably|also|here)"
)
_GOOD = (
    r"(?:(?:the|a|an|clearly|obviously|most|best|more|only|my|single|final|one)\s+)*"
    r"(?:correct|right|answer|choice|best|appropriate|suitable|likely|plausible|logical|sensible|true|pick)\b"
)
_NOUN = r"(?:options?|choices?|letter|answers?|selection|pick)"
_AFTER = (
    # It is B. It must be (B).
    rf"\b(?:it|that|this|which)(?:\s?{_IS}){{1,6}}\s+(?:{_NOUN}\s+)?",
    # Therefore, B. So C. Correct: C. The right one: B.
    r"\b(?:therefore|thus|hence|so|finally|overall|conclusion|correct|right|best|final)"
    rf"(?:[\s,:=]|\b(?:the|one|is|would|be|must|with|{_NOUN}|most|correct|right|best|likely|here)\b){{0,16}}[\s,:=]",
    # My pick: B. The choice is B. Option: B
    rf"\b(?:{_NOUN}|verdict|guess)[^.\n!?:=]{{0,40}}?(?:\bis\b|\bbe\b|[:=])(?:\s|\b(?:the|most|likely|{_NOUN})\b){{0,16}}",
    # I choose B. I would go with option B. I think it is C.
    r"\b(?:choos(?:e|ing)|chose|pick(?:ed|ing)?|select(?:ed|ing)?|go(?:ing)? (?:with|for)|say|opt for"
    r"|think|believe|guess|vote for|settle on)\b"
    rf"(?:[\s,:]|\b(?:that|it|it's|is|would|be|the|{_NOUN}|must|should)\b){{0,16}}[\s:]",
    # not A but B
    r"\bnot\s+[(\[]?[A-Z][)\]]?,?\s+but\s+(?:rather\s+)?",
    # gives option G, leads to B, points to (B), leaves only B
    r"\b(?:gives?|leads? to|points? to|match(?:es)?|corresponds? to|indicates?|supports?"
    r"|favou?rs?|leav(?:es?|ing)|left)"
    rf"\s+(?:(?:the|us|with|only|{_NOUN})\s+){{0,6}}",
)
_BEFORE = (
    # B is the correct answer. (B) river is right. Option B seems best.
    r"[.):\]]*(?:\s+(?!(?:is|are|but|not|and|or|while|because|since|as)\b)[\w'-]+){0,4}\s*\)?"
    rf"\s+{_IS}(?:\s{_IS}){{0,6}}\s+{_GOOD}",
    r"[.):\]]*\s+(?:remains|works|it is|fits best|makes (?:the )?most sense)\b",
    # a line of a list of options that marks its own
    r"[.):][^\n]{0,200}(?:[-–—:(]\s*(?:yes|correct|right|true)\b|[✓✔✅])",
)


@lru_cache(maxsize=64)
def _patterns(letters: str) -> tuple[re.Pattern[str], ...]:
    """How an option is stated to be the answer: words before it, or after it."""
    letter = rf"(?<![A-Za-z0-9])[{letters}](?![A-Za-z0-9]|['’]\w)"
    small = rf"[(\[][{letters.lower()}][)\]]"  # only in brackets: "it is a river" names no option
    after = [rf"(?i:{words})(?=(?P<field>(?:[(\[]?{letter}|{small})[^\n]{{0,200}}))" for words in _AFTER]
    before = [rf"(?<![A-Z] and )(?<![A-Z] or )(?P<field>{letter})(?i:{words})" for words in _BEFORE]
    return tuple(map(re.compile, (*after, *before)))


def choice(said: str, letters: str, texts: Sequence[str] = ()) -> Answer | None:
    """The option chosen: tagged, in the last box, stated, first in the text, alone, mentioned, or by words.

    A letter counts only where it stands by itself. Two options at once are an answer as they stand, and equal
    none. `texts` are the options' words in the order of the letters, where they are known.
    """
    words = list(map(_words, texts))  # those of two options at once tell neither
    options = {text: letter for text, letter in zip(words, letters, strict=False) if words.count(text) == 1}

    def field(text: str) -> str | None:
        return _letter(text, letters, options)

    forms = [
        (answers.TAG, within(answers.tagged, field)),
        (answers.BOX, within(answers.boxes, field)),
        (answers.STATED, lambda text: _stated(_bare(text), letters, options)),
        (OPENING, lambda text: _opening(_bare(text), letters, options)),
        (answers.ALONE, within(answers.alone, lambda line: _alone(_bare(line), letters))),
        (MENTIONED, lambda text: _mentioned(_bare(text), letters)),
        (WORDS, within(_sayings, lambda words: options.get(_words(words)))),
    ]
    return answers.find(said, forms)


def _letter(field: str, letters: str, options: dict[str, str]) -> str | None:
    """The option that a field begins with, or holds in brackets; the field itself when it names two."""
    text = _bare(field).strip()
    if words := options.get(_words(text)):
        return words
    text = _LEAD.sub("", text, count=1)
    match = re.match(rf"([{letters}])(?![A-Za-z0-9]|['’]\w)", text)
    if match is None:
        lower = re.match(rf"([{letters.lower()}])(?:[).:,;!]*$|[).:,;!]+\s|\s+[-–:]\s)", text)
        if lower:
            return lower[1].upper()
        bracketed = set(re.findall(rf"\(([{letters}])\)", text))
        return bracketed.pop() if len(bracketed) == 1 else None
    letter, rest = match[1], text[match.end() :]
    if _FORMULA.match(rest) or _RANGE.match(rest) or (letter == "I" and re.match(r"\s+[a-z]", rest)):
        return None
    other = re.match(
        rf"[)\].:]*\s*(?:,|;|/|&|\band\b|\bor\b)\s*(?:(?:and|or|options?|choice)\s+)*[(\[]?([{letters}])(?![A-Za-z0-9])"
        r"(?!\s+(?:is|are|was|has|does|cannot|can't|fails))",
        rest,
    )
    if other and other[1] != letter:
        return field.strip()
    # "A dog" is option A, or else the words of another option.
    if (
        letter == "A"
        and options
        and re.match(r"\s+[a-z]", rest)
        and options.get(_words(rest)) not in (None, "A")
    ):
        return options[_words(rest)]
    return letter


def _stated(text: str, letters: str, options: dict[str, str]) -> str | None:
    found = list(answers.statements(text))
    for pattern in _patterns(letters):
        for match in pattern.finditer(text):
            start = match.start("field")
            field = answers.sentence(match["field"])
            article = re.match(r"[AI]\s+[a-z]", field) and not match.end("field") > match.end()
            if not _NEGATED.search(text[max(0, start - 40) : start]) and not article:
                found.append((start, field))
    for _, field in sorted(found, reverse=True)[:_MOST]:
        if not _WRONG.match(field.strip("([ ")[1:]) and (letter := _letter(field, letters, options)):
            return letter
    return None


def _opening(text: str, letters: str, options: dict[str, str]) -> str | None:
    """The letter that the text opens with, unless it opens with the list of options."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return None
    match = re.match(rf"\W*([{letters}])(?![A-Za-z0-9]|['’]\w)(.*)", lines[0])
    if match is None:  # "d", "(d)", "d) river"
        small = re.match(rf"\W*[{letters.lower()}](?:\)|\W*$)", lines[0])
        return _letter(lines[0], letters, options) if small else None
    letter, rest = match[1], match[2]
    following = letters[letters.index(letter) + 1 :][:1]
    if following and len(lines) > 1 and re.match(rf"\W*{following}[.):]", lines[1]):
        return None
    if letter == "I" and (rest.strip(" .)") or len(lines) > 1):
        return None
    plain_words = re.match(r"\s+\w", rest)
    if plain_words and (len(lines) > 1 or len(rest.split()) > (2 if letter == "A" else 6)):
        return None
    if plain_words and letter == "A" and options and options.get(_words(rest)) != "A":
        return None
    return _letter(lines[0], letters, options)


def _alone(line: str, letters: str) -> str | None:
    """A line that is the letter, or ends in it after a colon, a dash or an arrow."""
    match = re.fullmatch(rf"(?:.*(?::|[-–—=]>?|[→⇒])\s+)?\W*([{letters}])\W*", line)
    return match[1] if match else None


def _mentioned(text: str, letters: str) -> str | None:
    """The last option that is named or stands in brackets and is not turned down."""
    named = rf"(?i:\b{_NOUN})(?:\s|:|is\b)*[(\[]?([{letters}])(?![A-Za-z0-9]|['’]\w)|[(\[]([{letters}])[)\]]"
    for match in reversed(list(re.finditer(named, text))):
        before, after = text[max(0, match.start() - 40) : match.start()], text[match.end() :].lstrip(")]")
        if not _NEGATED.search(before) and not _WRONG.match(after):
            return match[1] or match[2]
    return None


def _sayings(text: str) -> list[str]:
    return [*answers.tagged(text), *answers.boxes(text), *answers.stated(text), *answers.alone(text)]


def _words(text: str) -> str:
    """The words of an option, to compare by: small letters, no article, no punctuation."""
    words = re.findall(r"[a-z0-9]+", _bare(text).lower())
    return " ".join(words[1:] if len(words) > 1 and words[:1] in (["a"], ["an"], ["the"]) else words)


def _bare(text: str) -> str:
    """The text without LaTeX and marks around its letters; brackets stay."""
    return answers.close_up(_ORNAMENT.sub("", _QUOTED.sub(r"\1", _COMMAND.sub("", text))))
