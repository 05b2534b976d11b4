"""The text of tokens a few at a time is the text of all of them."""

import random

import pytest

from jax_sft.config import TokensConfig
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.streaming import TextStream

TEXT = "Hé 🙂🙂 says: 1 + 1 = 2.\n\n<think>日本</think> naïve “quotes” — done 👨‍👩‍👧 end"


def without_first_space(tokens: list[int]) -> str:
    """Bytes, with a leading space left out, as tokenizers of words do it."""
    return bytes(tokens).decode(errors="replace").removeprefix(" ")


@pytest.mark.parametrize("seed", range(5))
def test_pieces_put_together_are_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    tokens = list((" " + TEXT + " " + TEXT).encode())
    stream, shown, at = TextStream(without_first_space), "", 0
    while at < len(tokens):
        new = tokens[at : at + rng.choice([1, 1, 2, 3, 8])]
        at += len(new)
        piece = stream.add(new)
        assert "\ufffd" not in piece
        shown += piece
        assert without_first_space(tokens[:at]).startswith(shown)
    assert shown + stream.close() == without_first_space(tokens)


def test_with_a_tokenizer() -> None:
    tokenizer = load_tokenizer(TokensConfig())
    tokens = tokenizer.encode(TEXT)
    stream = TextStream(tokenizer.decode)
    assert "".join(map(stream.add, ([token] for token in tokens))) + stream.close() == tokenizer.decode(
        tokens
    )


def test_a_character_that_never_becomes_whole_comes_at_the_end() -> None:
    stream = TextStream(without_first_space)
    assert stream.add([*b"ab", 0xF0]) == "ab"
    assert stream.add([0x9F]) == ""
    assert stream.close() == "\ufffd"
    assert stream.close() == ""
