"""Stop texts: found at the first token that completes one, wherever the borders of tokens lie."""

import random

import pytest

from jax_sft.config import TokensConfig
from jax_sft.generation.stops import Stops
from jax_sft.tokens.loading import load_tokenizer

BYTES = [bytes([number]) for number in range(256)]
PIECES = [
    *BYTES,
    *(text.encode() for text in ("ab", "ba", "END", "EN", "D\n", "\n\n", "é", "🙂x", " the", "")),
]
"""A made-up vocabulary: all bytes, some longer pieces, and one without text, as special tokens are."""


def decode(tokens: list[int]) -> str:
    return b"".join(PIECES[token] for token in tokens).decode(errors="replace")


def plain(tokens: list[int], texts: list[str]) -> tuple[int, str] | None:
    """The whole text after every token."""
    for count in range(1, len(tokens) + 1):
        text = decode(tokens[:count])
        places = [text.find(stop) for stop in texts if stop in text]
        if places:
            return count, text[: min(places)]
    return None


@pytest.mark.short
@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_stop_texts_agree_with_the_reference(chunk: int) -> None:
    rng = random.Random(chunk)
    often = [b"E", b"N", b"D", b"\n", b"a", b"b", *PIECES[256:], "é".encode()[:1], "é".encode()[1:]]
    ended = 0
    for _ in range(400):
        tokens = [PIECES.index(rng.choice(often)) for _ in range(rng.randrange(1, 60))]
        texts = rng.sample(["END", "\n\n", "é", "🙂", "abab", "D", "aab", "ENDEND", "é\n"], rng.randint(1, 3))
        stops, found = Stops(texts, decode), None
        for end in range(chunk, len(tokens) + chunk, chunk):
            if found := stops.look(tokens[:end]):
                break
        assert found == plain(tokens, texts)
        ended += found is not None
    assert 100 < ended < 390


def test_long_runs_without_text_do_not_hide_a_stop_text() -> None:
    """A text that began before fifty tokens of no text."""
    nothing = PIECES.index(b"")
    tokens = [*(PIECES.index(bytes([c])) for c in b"say EN"), *[nothing] * 50, PIECES.index(b"D")]
    stops = Stops(["END"], decode)
    assert stops.look(tokens[:40]) is None
    assert stops.look(tokens) == (57, "say ")


def test_with_a_tokenizer_the_text_is_cut_before_the_stop_text() -> None:
    tokenizer = load_tokenizer(TokensConfig())
    text = "def f(x):\n    return x\n\nprint(f(1))"
    tokens = tokenizer.encode(text)
    found = Stops(["\nprint", "return y"], tokenizer.decode).look(tokens)
    assert found is not None
    assert found.text == "def f(x):\n    return x\n"
    assert tokenizer.decode(tokens[: found.token_count - 1]).find("\nprint") < 0
