"""Whether a response follows instructions that a program can check: the 25 of IFEval (Zhou et al. 2023).

Written from the definitions of arXiv 2311.07911 and compared with its authors' program, instruction by
instruction. Each check is a function of the text and of the instruction's arguments.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from jax_sft.responses.instructions import counts, forms, words

CHECKS: dict[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": words.capital_words,
    "change_case:english_capital": words.is_capitals,
    "change_case:english_lowercase": words.is_lower_case,
    "combination:repeat_prompt": forms.repeats_prompt,
    "combination:two_responses": forms.are_two_responses,
    "detectable_content:number_placeholders": counts.placeholder_count,
    "detectable_content:postscript": forms.has_postscript,
    "detectable_format:constrained_response": forms.is_constrained,
    "detectable_format:json_format": forms.is_json,
    "detectable_format:multiple_sections": counts.section_count,
    "detectable_format:number_bullet_lists": counts.bullet_count,
    "detectable_format:number_highlighted_sections": counts.highlight_count,
    "detectable_format:title": forms.has_title,
    "keywords:existence": words.has_keywords,
    "keywords:forbidden_words": words.lacks_words,
    "keywords:frequency": words.keyword_count,
    "keywords:letter_frequency": words.letter_count,
    "language:response_language": words.is_language,
    "length_constraints:nth_paragraph_first_word": counts.nth_first_word,
    "length_constraints:number_paragraphs": counts.paragraph_count,
    "length_constraints:number_sentences": counts.sentence_count,
    "length_constraints:number_words": counts.word_count,
    "punctuation:no_comma": forms.lacks_commas,
    "startend:end_checker": forms.ends_with,
    "startend:quotation": forms.is_quoted,
}
"""Every instruction by its public name."""


def fault(name: str, arguments: Mapping[str, Any]) -> str:
    """What is wrong with an instruction, in words; empty when it can be checked."""
    if name not in CHECKS:
        return f"unknown instruction {name!r}; known: {', '.join(CHECKS)}"
    wanted = [argument for argument in inspect.signature(CHECKS[name]).parameters if argument != "text"]
    if set(arguments) != set(wanted):
        found = ", ".join(sorted(arguments)) or "none"
        return f"instruction {name} takes {', '.join(wanted) or 'no arguments'}; found {found}"
    try:
        CHECKS[name]("a", **arguments)
    except (TypeError, ValueError, AttributeError, re.error) as error:
        return f"instruction {name}: {error}"
    return ""


def follows(text: str, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether the text follows an instruction as it stands (strict). An empty one follows none."""
    return bool(text.strip()) and CHECKS[name](text, **arguments)


def follows_loosely(text: str, name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether it does so as it stands, without its first line, its last, or both; with asterisks or not."""
    return any(follows(variant, name, arguments) for variant in _variants(text))


def _variants(text: str) -> list[str]:
    lines = text.split("\n")
    cuts = [text, *("\n".join(kept).strip() for kept in (lines[1:], lines[:-1], lines[1:-1]))]
    return cuts + [cut.replace("*", "") for cut in cuts]
