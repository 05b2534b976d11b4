"""tokenizer.model files against the sentencepiece library, which also makes the ones kept as goldens."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece

from jax_sft.tokens.loading import read_tokenizer
from tests.conversations import conversations

pytestmark = pytest.mark.oracle
KINDS = {"plain": False, "prefix": True}
"""Whether a space is put before the text."""


def texts() -> list[str]:
    return [turn["content"] for messages in conversations(200) for turn in messages]


def train(add_dummy_prefix: bool) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.replace("\n", " ") for text in texts()),
        model_writer=model,
        model_type="bpe",
        vocab_size=500,
        byte_fallback=True,
        remove_extra_whitespaces=False,
        user_defined_symbols=["[UNUSED_TOKEN_0]"],
        character_coverage=0.98,
        num_threads=1,
        minloglevel=2,
        add_dummy_prefix=add_dummy_prefix,
        normalization_rule_name="identity",
    )
    return model.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_text_are_those_of_the_library(kind: str, golden: Path, renew_golden: bool) -> None:
    folder = golden / "sentencepiece" / kind
    if renew_golden:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.model").write_bytes(train(KINDS[kind]))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ours = read_tokenizer(folder)
    ids = {text: theirs.encode(text) for text in texts()}
    for text, wanted in ids.items():
        assert ours.encode(text) == wanted
        assert ours.decode(wanted) == theirs.decode(wanted)
    if renew_golden:
        kept = dict(list(ids.items())[:60])
        (folder / "ids.json").write_text(json.dumps(kept, ensure_ascii=False, indent=0) + "\n")
    assert json.loads((folder / "ids.json").read_text()).items() <= ids.items()
