"""Instructions about the form of a response: how it begins and ends, what it is wrapped in."""

import json
import re

_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}


def is_constrained(text: str) -> bool:
    """Holds one of the three answers: yes, no, maybe."""
    return any(answer in text for answer in _CONSTRAINED)


def is_json(text: str) -> bool:
    """JSON and nothing else, in a fence or not."""
    plain = text.strip()
    for opening in ("```json", "```Json", "```JSON", "```"):
        plain = plain.removeprefix(opening)
    try:
        json.loads(plain.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def has_title(text: str) -> bool:
    """Holds <<a title>> of one line."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end - 2 and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def has_postscript(text: str, *, postscript_marker: str) -> bool:
    """Holds a postscript that begins with the marker, anywhere."""
    marker = postscript_marker.strip()
    return re.search(_POSTSCRIPTS.get(marker, re.escape(marker.lower())), text.lower()) is not None


def are_two_responses(text: str) -> bool:
    """Two responses that differ, with six asterisks between them; around them is nothing else."""
    parts = [part.strip() for part in text.split("******")]
    responses = [part for part in parts if part]
    return all(parts[1:-1]) and len(responses) == 2 and responses[0] != responses[1]


def repeats_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """Begins with the prompt, word for word."""
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends_with(text: str, *, end_phrase: str) -> bool:
    """Ends with the phrase; quotation marks after it are passed over."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def is_quoted(text: str) -> bool:
    """Stands in double quotation marks as a whole."""
    plain = text.strip()
    return len(plain) > 1 and plain[0] == plain[-1] == '"'


def lacks_commas(text: str) -> bool:
    """Holds no comma."""
    return "," not in text
