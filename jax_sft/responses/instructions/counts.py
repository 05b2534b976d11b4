"""Instructions about how much a response holds: words, sentences, paragraphs, bullets, sections and such."""

import re

_WORD = re.compile(r"\w+")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]*\]")
_HIGHLIGHT = re.compile(r"\*([^\n*]*)\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*([^\n*]*)\*\*")
_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_WORD_MARKS = ".,?!'\""


def fulfils(count: int, relation: str, threshold: float) -> bool:
    """Whether a count is `less than` or `at least` the threshold; ValueError for another relation."""
    if relation == "less than":
        return count < threshold
    if relation == "at least":
        return count >= threshold
    raise ValueError(f"relation {relation!r} is neither 'less than' nor 'at least'")


def word_count(text: str, *, num_words: float, relation: str) -> bool:
    """So many runs of letters, digits and underscores ("don't" is two)."""
    return fulfils(len(_WORD.findall(text)), relation, num_words)


def sentence_count(text: str, *, num_sentences: float, relation: str) -> bool:
    """So many sentences, by Punkt's English model (Kiss and Strunk, 2006)."""
    from punkt import sent_tokenize

    return fulfils(len(sent_tokenize(text)), relation, num_sentences)


def paragraph_count(text: str, *, num_paragraphs: float) -> bool:
    """Exactly so many paragraphs with *** between them; an empty one may stand first or last only."""
    paragraphs = [paragraph.strip() for paragraph in _DIVIDER.split(text)]
    if not all(paragraphs[1:-1]):
        return False
    return sum(map(bool, paragraphs)) == num_paragraphs


def nth_first_word(text: str, *, num_paragraphs: float, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs with blank lines between them, one of which begins with the word."""
    paragraphs = [paragraph.strip() for paragraph in text.split("\n\n")]
    count, place = sum(map(bool, paragraphs)), int(nth_paragraph)
    if place > count or count != num_paragraphs or not paragraphs[place - 1]:
        return False
    word = paragraphs[place - 1].split()[0].lstrip("'").lstrip('"')
    end = min((word.index(mark) for mark in _WORD_MARKS if mark in word), default=len(word))
    return word[:end].lower() == first_word.lower()


def bullet_count(text: str, *, num_bullets: float) -> bool:
    """Exactly so many lines that begin with * (but not with **) or -."""
    lines, count = text.split("\n"), 0
    consumed = False
    for number, line in enumerate(lines, start=1):
        opening = line.lstrip()
        if consumed:  # a lone * has taken the line after it along
            consumed = False
        elif opening == "*":
            consumed = number < len(lines)
            count += consumed
        else:
            count += opening[:1] == "*" and opening[1] != "*"
    return count + sum(line.lstrip()[:1] == "-" for line in lines) == num_bullets


def highlight_count(text: str, *, num_highlights: float) -> bool:
    """At least so many *sections* or **sections** of one line that are not empty."""
    found = _HIGHLIGHT.findall(text) + _DOUBLE_HIGHLIGHT.findall(text)
    return sum(bool(section.strip()) for section in found) >= num_highlights


def section_count(text: str, *, section_spliter: str, num_sections: float) -> bool:
    """At least so many headings made of the word and a number."""
    return len(re.findall(rf"{section_spliter.strip()}\s?\d+", text)) >= num_sections


def placeholder_count(text: str, *, num_placeholders: float) -> bool:
    """At least so many [placeholders] of one line."""
    return len(_PLACEHOLDER.findall(text)) >= num_placeholders
