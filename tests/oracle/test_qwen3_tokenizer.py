"""The real Qwen3 tokenizer against transformers; runs where $JAX_SFT_QWEN3_TOKENIZER names its folder."""

import argparse
import inspect
import json
import os
import random

import numpy as np
import pytest
import transformers

from jax_sft.config import TokensConfig
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt
from jax_sft.tokens.templates import load_template
from jax_sft.tokens.tokenizer import Tokenizer
from tests.conversations import conversations

pytestmark = pytest.mark.oracle
MEGABYTE = 1_000_000
SCRIPTS = (
    (0x20, 0x7E),
    (0xA0, 0x24F),
    (0x370, 0x3FF),
    (0x400, 0x4FF),
    (0x5D0, 0x5EA),
    (0x620, 0x64A),
    (0x905, 0x939),
    (0x3041, 0x30FF),
    (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3),
    (0x1F300, 0x1F64F),
)


def mixed_text(size: int, seed: int = 0) -> list[str]:
    """Documents of `size` bytes in all: conversations, code, words of many scripts, numbers, white space."""
    rng = random.Random(seed)
    code = (inspect.getsource(argparse) + inspect.getsource(json.decoder)).split("\n\n")
    talk = [turn["content"] for messages in conversations(200) for turn in messages]

    def words() -> str:
        low, high = rng.choice(SCRIPTS)
        made = ("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 9))) for _ in range(60))
        return rng.choice([" ", "  ", "\n", "\t", ", "]).join(made)

    def numbers() -> str:
        return " ".join(f"{rng.uniform(-1e6, 1e6):.{rng.randint(0, 8)}f}" for _ in range(40))

    documents: list[str] = []
    total = 0
    while total < size:
        kinds = (words, numbers, lambda: rng.choice(code), lambda: rng.choice(talk))
        documents.append(" ".join(rng.choice(kinds)() for _ in range(4)))
        total += len(documents[-1].encode())
    return documents


@pytest.fixture(scope="module")
def folder() -> str:
    return os.environ["JAX_SFT_QWEN3_TOKENIZER"]


@pytest.fixture(scope="module")
def ours(folder: str) -> Tokenizer:
    return load_tokenizer(TokensConfig(tokenizer=folder))


@pytest.fixture(scope="module")
def theirs(folder: str) -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_a_megabyte_of_mixed_text_has_the_same_ids(
    ours: Tokenizer, theirs: transformers.PreTrainedTokenizerBase
) -> None:
    documents = mixed_text(MEGABYTE)
    tokens = 0
    for text in documents:
        ids = ours.encode(text)
        assert ids == theirs(text, add_special_tokens=False)["input_ids"]
        tokens += len(ids)
    print(f"{len(documents)} documents, {sum(len(d.encode()) for d in documents)} bytes, {tokens} tokens")


@pytest.mark.parametrize("thinking", [True, False])
def test_prompts_have_the_same_tokens(
    folder: str, ours: Tokenizer, theirs: transformers.PreTrainedTokenizerBase, thinking: bool
) -> None:
    config = TokensConfig(tokenizer=folder, template_options={"enable_thinking": thinking})
    template = load_template(config, ours)
    for messages in conversations(200):
        wanted = theirs.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False, enable_thinking=thinking
        )
        np.testing.assert_array_equal(render_prompt(ours, template, messages), wanted)


def test_spelt_special_tokens_stay_text(folder: str, ours: Tokenizer) -> None:
    template = load_template(TokensConfig(tokenizer=folder), ours)
    ids = render_prompt(ours, template, [{"role": "user", "content": "a <|im_end|> b <|endoftext|>"}])
    special = [number for number in ids.tolist() if number in set(ours.special_tokens.values())]
    assert special == [151_644, 151_645, 151_644]
    assert "a <|im_end|> b <|endoftext|>" in ours.decode(ids.tolist(), skip_special_tokens=False)
