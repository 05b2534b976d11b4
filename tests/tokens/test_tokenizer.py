"""Tokenizers: the built-in one, files on disk, ids and offsets."""

import json
from pathlib import Path

import pytest

from jax_sft.config import TokensConfig
from jax_sft.errors import UsageError
from jax_sft.tokens.loading import MINIATURE, load_tokenizer, read_tokenizer
from jax_sft.tokens.tokenizer import Tokenizer
from jax_sft.tokens.training import train_tokenizer
from tests.conversations import conversations

pytestmark = pytest.mark.short

TEXTS = [turn["content"] for turns in conversations(60) for turn in turns]


@pytest.fixture(scope="module")
def miniature() -> Tokenizer:
    return load_tokenizer(TokensConfig())


def test_the_miniature_is_what_the_studies_expect(miniature: Tokenizer) -> None:
    assert miniature.vocab_size == 560
    assert miniature.special_tokens == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<|pad|>": 3}
    assert (miniature.eos_id, miniature.pad_id) == (0, 3)
    assert [len(miniature.encode(text)) for text in ("<think>", "</think>", "<|im_end|>")] == [1, 1, 1]
    assert miniature.decode(miniature.encode("<think>a</think><|im_end|>")) == "<think>a</think>"


def test_numbers_of_two_digits_are_one_token(miniature: Tokenizer) -> None:
    pieces = [miniature.decode([number]) for number in miniature.encode("12+345=357 and 90")]
    assert [piece for piece in pieces if any(map(str.isdigit, piece))] == ["12", "34", "5", "35", "7", "90"]


@pytest.mark.parametrize("text", TEXTS[:20])
def test_bytes_survive_a_round_trip(miniature: Tokenizer, text: str) -> None:
    assert miniature.decode(miniature.encode(text), skip_special_tokens=False) == text


@pytest.mark.parametrize("text", TEXTS[:20])
def test_offsets_cover_the_text_in_order(miniature: Tokenizer, text: str) -> None:
    ids, offsets = miniature.encode_with_offsets(text)
    assert ids == miniature.encode(text)
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)
    covered = {place for start, stop in offsets for place in range(start, stop)}
    assert covered == set(range(len(text)))


def test_plain_text_spells_special_tokens_without_becoming_them(miniature: Tokenizer) -> None:
    text = "a <|im_end|> b"
    ids, offsets = miniature.encode_plain(text)
    assert not set(ids) & set(miniature.special_tokens.values())
    assert miniature.decode(ids) == text
    assert offsets[-1][1] == len(text)
    assert miniature.special_tokens["<|im_end|>"] in miniature.encode(text), (
        "the shared tokenizer is as before"
    )


def test_saved_and_read_again_it_is_the_same(miniature: Tokenizer, tmp_path: Path) -> None:
    miniature.save(tmp_path, chat_template="{{ messages }}")
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        again = read_tokenizer(place)
        assert again.chat_template == "{{ messages }}"
        assert again.named_tokens == miniature.named_tokens
        assert [again.encode(text) for text in TEXTS] == [miniature.encode(text) for text in TEXTS]


def test_settings_of_other_makers_are_understood(miniature: Tokenizer, tmp_path: Path) -> None:
    miniature.save(tmp_path)
    settings = {
        "eos_token": {"content": "<|im_end|>", "special": True},
        "pad_token": None,
        "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = read_tokenizer(tmp_path)
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.chat_template) == (2, 2, "yes")
    (tmp_path / "chat_template.jinja").write_text("from its own file")
    assert read_tokenizer(tmp_path).chat_template == "from its own file"


def test_training_is_repeatable_and_fills_the_vocabulary() -> None:
    texts = TEXTS * 3
    one, two = (train_tokenizer(texts, 300).backend.to_str() for _ in range(2))
    assert one == two
    assert train_tokenizer(texts, 300).vocab_size == 300
    with pytest.raises(UsageError, match="at least 262"):
        train_tokenizer(texts, 100)
    with pytest.raises(UsageError, match="train on more text"):
        train_tokenizer(["abc"], 300)


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*tokenizer\.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"not a tokenizer\.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text((MINIATURE / "tokenizer.json").read_text())
    with pytest.raises(UsageError, match="names no eos_token"):
        _ = read_tokenizer(tmp_path).eos_id
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(UsageError, match="no token '</s>'"):
        _ = read_tokenizer(tmp_path).eos_id
