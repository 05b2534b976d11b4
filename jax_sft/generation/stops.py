"""Texts that end a completion, found while it is drawn, wherever the borders of tokens lie. Host only."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

Decode = Callable[[list[int]], str]
"""The text of tokens, special ones left out."""
BROKEN = 4
"""Characters at the start of a piece that may be other ones in the whole: the bytes of a cut character."""


class Stopped(NamedTuple):
    """Where a text ended the completion."""

    token_count: int
    """Tokens up to and with the one that completed the text."""
    text: str
    """What stands before it."""


class Stops:
    """Watches one sequence of new tokens."""

    def __init__(self, texts: Sequence[str], decode: Decode) -> None:
        """`texts` are not empty."""
        self._texts, self._decode = tuple(texts), decode
        self._longest = max(map(len, texts))
        self._count = 0

    def look(self, tokens: list[int]) -> Stopped | None:
        """Where the first of the texts ends the tokens so far; None while none is there.

        `tokens` are all since the start; what was there at the call before is read again only as far as a
        text may have begun in it.
        """
        start, seen = self._start(tokens), self._count
        self._count = len(tokens)
        if self._place(self._decode(tokens[start:])) < 0:
            return None
        for count in range(seen + 1, len(tokens) + 1):
            if self._place(self._decode(tokens[start:count])) >= 0:
                text = self._decode(tokens[:count])
                if (place := self._place(text)) >= 0:
                    return Stopped(count, text[:place])
        return None

    def _place(self, text: str) -> int:
        """Where the first of the texts begins in `text`; -1 where none does."""
        return min((place for place in map(text.find, self._texts) if place >= 0), default=-1)

    def _start(self, tokens: list[int]) -> int:
        """Token from which the text before the new ones is as long as a text that ends in these can need."""
        need = self._longest + BROKEN
        back = need
        while back < self._count and len(self._decode(tokens[self._count - back : self._count])) < need:
            back *= 2
        return max(self._count - back, 0)
