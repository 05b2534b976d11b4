"""Completions that repeat themselves without end, found while they are drawn.

A model in the dip of its training often falls into an exact repetition and goes on to the limit. Such a
sequence ends here: at every 32nd token it is looked at, and ended when all of its last tokens, at least
`span` of them and at least 8 periods, are one exact repetition. Whether and where that happens follows from
the tokens alone, never from how many come at a time. Host only.
"""

import numpy as np

LOOK = 32
"""Tokens between two looks."""
PERIODS = 8
"""Repetitions that make a loop, however long they are."""
LONGEST_PERIOD = 1024
"""Tokens; what repeats itself less often than that is not looked for."""


class Loops:
    """Watches one sequence of new tokens."""

    def __init__(self, span: int) -> None:
        """`span` is the least number of tokens that a loop has."""
        self._span = span
        self._seen = np.empty(4 * span, np.int32)
        self._count = 0

    def look(self, tokens: list[int]) -> int:
        """How many of the tokens so far the sequence keeps when it has become a loop; 0 while it has not.

        `tokens` are all since the start; those of the call before are not looked at again.
        """
        self._append(tokens[self._count :])
        first = self._count // LOOK * LOOK + LOOK
        for count in range(first, len(tokens) + 1, LOOK):
            if period_of(self._seen[:count], self._span):
                return count
        self._count = len(tokens)
        return 0

    def _append(self, tokens: list[int]) -> None:
        count = self._count + len(tokens)
        if count > len(self._seen):
            self._seen = np.concatenate([self._seen, np.empty(count, np.int32)])
        self._seen[self._count : count] = tokens


def period_of(tokens_T: np.ndarray, span: int) -> int:
    """Period of the exact repetition at the end of int32 tokens, the least there is; 0 when they end in none.

    The last `span` tokens, or `PERIODS` periods where these are more, must repeat themselves.
    """
    count = len(tokens_T)
    if count < span or count < 2 * LOOK:
        return 0
    # In a loop the last tokens came a period earlier: hardly any other text gets beyond this search.
    last = tokens_T[-LOOK:].tobytes()
    before = tokens_T[max(count - LOOK - LONGEST_PERIOD, 0) : -1].tobytes()
    found = before.rfind(last)
    while found >= 0:
        periods, apart = divmod(len(before) - found - len(last), tokens_T.itemsize)
        period = periods + 1
        start = count - max(span, PERIODS * period)
        if start < 0:
            return 0
        if not apart and np.array_equal(tokens_T[start + period :], tokens_T[start:-period]):
            return period
        found = before.rfind(last, 0, found + len(last) - 1)
    return 0
