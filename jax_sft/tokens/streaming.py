"""The text of tokens that come a few at a time."""

from collections.abc import Callable, Sequence

CUT = "\ufffd"
"""What the bytes of a character that is not whole are decoded as."""


class TextStream:
    """Gives the text that new tokens add; all it gives, put together, is the text of all tokens.

    Tokens cannot be decoded each by itself: a character may take several, and a tokenizer may drop the space
    at the start of a text. New ones are therefore read together with those before them, as vLLM does.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        """`decode` gives the text of tokens."""
        self._decode = decode
        self._tokens: list[int] = []
        self._before, self._shown = 0, 0

    def add(self, tokens: Sequence[int]) -> str:
        """What the new tokens add; bytes of a character that is not whole yet are kept back."""
        self._tokens += tokens
        for end in range(len(self._tokens), self._shown, -1):
            if text := self._upto(end):
                if text.endswith(CUT):
                    continue
                self._before, self._shown = self._shown, end
                return text
        return ""

    def close(self) -> str:
        """What was kept back."""
        text = self._upto(len(self._tokens))
        self._before = self._shown = len(self._tokens)
        return text

    def _upto(self, end: int) -> str:
        """The text that tokens up to `end` add to what was shown."""
        shown = self._decode(self._tokens[self._before : self._shown])
        return self._decode(self._tokens[self._before : end])[len(shown) :]
