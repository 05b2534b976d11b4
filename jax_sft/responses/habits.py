"""What completions do: going back, checking, planning, hedging, and getting stuck in a loop.

Counts are of words and phrases in English, whatever they are used for: a measure of style over training,
not of what the model thinks.
"""

import re
from collections.abc import Iterable

from jax_sft.responses.thinking import traces

PHRASES = {
    "backtracking": r"wait|hmm|alternatively|actually|go back|instead|start over|scratch that|not quite|"
    r"try (?:again|another|something else|a different)|"
    r"(?:does not|doesn't|did not|didn't|won't|will not) work",
    "verification": r"check|checking|double-check|verify|verifying|confirm|make sure|let me see if|indeed",
    "planning": r"first|second|next|then|step \d+|let me|let's|break (?:this|it) down|we need to|i need to",
    "hedging": r"maybe|perhaps|probably|possibly|might|not sure|seems|i think|i guess",
}
_PATTERNS = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in PHRASES.items()}

LOOP_REPEATS = 3
LOOP_CHARACTERS = 48
LONGEST_PERIOD = 200


def behaviours(completions: Iterable[tuple[str, int]]) -> dict[str, float] | None:
    """Phrases per 1,000 tokens by kind, and `loops`: the share of completions that end in a loop.

    `completions` are texts, each with its number of tokens. None where there are no tokens.
    """
    counts = dict.fromkeys(PHRASES, 0)
    tokens = count = loops = 0
    for text, token_count in completions:
        for name, pattern in _PATTERNS.items():
            counts[name] += sum(1 for _ in pattern.finditer(text))
        tokens += token_count
        count += 1
        loops += ends_in_loop(text)
    if not tokens:
        return None
    return {name: 1000 * found / tokens for name, found in counts.items()} | {"loops": loops / count}


def branching(response: str) -> float:
    """How often the trace (or, without one, the response) goes back, per 1,000 words."""
    text = next(iter(traces(response)), response)
    return 1000 * len(_PATTERNS["backtracking"].findall(text)) / max(len(text.split()), 1)


def ends_in_loop(text: str) -> bool:
    """Whether the text ends in one piece of at most 200 characters over and over.

    The repeats must be three or more and fill at least 48 characters, so that "1111" is no loop; the last
    repeat may be cut off.
    """
    text = text.rstrip()
    for period in range(1, min(LONGEST_PERIOD, len(text) // LOOP_REPEATS) + 1):
        span = max(LOOP_REPEATS * period, LOOP_CHARACTERS)
        if span > len(text):
            continue
        tail = text[-span:]
        if tail[period:] == tail[:-period]:
            return True
    return False
