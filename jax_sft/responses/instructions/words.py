"""Instructions about words, letters and the language of a response; names as in IFEval (arXiv 2311.07911)."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jax_sft.responses.instructions.counts import fulfils

# Where a token of the Penn Treebank ends; hyphens, slashes and apostrophes within a word do not end one.
_BREAK = re.compile(r"[\s\][(){}<>;@#$%&?!*\"«»“”„‘’`\u2012-\u2015]+|''|--|\.{2,}|[:,](?!\d)")
_CLITIC = re.compile(r"(.*[^'])('[sSmMdD]|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)'?")
_TWO_WORDS = re.compile(r"\b(can(?=not\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|wan(?=na\b))", re.I)


def has_keywords(text: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword stands somewhere in the text, also within a word, in any case."""
    return all(re.search(keyword, text, re.IGNORECASE) for keyword in keywords)


def keyword_count(text: str, *, keyword: str, frequency: float, relation: str) -> bool:
    """The keyword stands so often in the text, also within words."""
    return fulfils(len(re.findall(keyword.strip(), text, re.IGNORECASE)), relation, frequency)


def lacks_words(text: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of the words stands in the text as a word of its own."""
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)


def letter_count(text: str, *, letter: str, let_frequency: float, let_relation: str) -> bool:
    """The letter, or the mark, stands so often in the text, in any case."""
    return fulfils(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


def capital_words(text: str, *, capital_frequency: float, capital_relation: str) -> bool:
    """So many of the tokens of the Penn Treebank are in capitals throughout ("DON'T" is two, "A-B" one)."""
    count = sum(token.isupper() for token in _tokens(text))
    return fulfils(count, capital_relation, capital_frequency)


def is_capitals(text: str) -> bool:
    """English in capitals throughout."""
    return text.isupper() and is_language(text, language="en")


def is_lower_case(text: str) -> bool:
    """English without a capital."""
    return text.islower() and is_language(text, language="en")


def is_language(text: str, *, language: str) -> bool:
    """langdetect takes the text for this language (ISO 639-1); one without letters is of every language."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _languages().create()
    detector.append(text)
    try:
        return bool(detector.detect() == language)
    except LangDetectException:
        return True


@lru_cache(maxsize=1)
def _languages() -> Any:
    """A detector factory of our own with a seed, as langdetect draws at random; loads its profiles once."""
    from langdetect import detector_factory

    factory = detector_factory.DetectorFactory()
    factory.load_profile(detector_factory.PROFILES_DIRECTORY)
    factory.set_seed(0)
    return factory


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    for piece in _BREAK.split(_TWO_WORDS.sub(r"\1 ", text)):
        clitic = _CLITIC.fullmatch(piece)
        tokens += clitic.groups() if clitic else [piece]
    return tokens
