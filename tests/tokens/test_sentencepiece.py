"""tokenizer.model files: ids of the sentencepiece library (renewed by `make oracle`), and refusals."""

import json
import shutil
from pathlib import Path

import pytest

from jax_sft.config import TokensConfig
from jax_sft.errors import UsageError
from jax_sft.tokens.loading import load_tokenizer, read_tokenizer
from jax_sft.tokens.rendering import render_prompt
from jax_sft.tokens.templates import load_template

pytestmark = pytest.mark.short


@pytest.mark.parametrize("kind", ["plain", "prefix"])
def test_ids_equal_those_of_the_library(kind: str, golden: Path) -> None:
    tokenizer = read_tokenizer(golden / "sentencepiece" / kind)
    stored = json.loads((golden / "sentencepiece" / kind / "ids.json").read_text())
    assert len(stored) >= 50
    for text, ids in stored.items():
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text


@pytest.fixture
def internlm(golden: Path, tmp_path: Path) -> Path:
    """A folder like InternLM2.5's: a piece renamed to a special token, a class that is code of its own."""
    shutil.copy(golden / "sentencepiece" / "plain" / "tokenizer.model", tmp_path)
    settings = {
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "tokenizer_class": "InternLM2Tokenizer",
        "added_tokens_decoder": {
            "3": {"content": "<|im_end|>", "special": True, "normalized": False},
            "500": {"content": "<|im_start|>", "special": True, "normalized": False},
        },
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


def test_the_internlm2_template_uses_renamed_and_added_pieces(internlm: Path, tmp_path: Path) -> None:
    config = TokensConfig(tokenizer=str(internlm), template="internlm2")
    tokenizer = load_tokenizer(config)
    template = load_template(config, tokenizer)
    ids = render_prompt(tokenizer, template, [{"role": "user", "content": "3 + 4 <|im_end|>"}]).tolist()
    special = [number for number in ids if number in set(tokenizer.special_tokens.values())]
    assert special == [tokenizer.token_id("<s>"), 500, 3, 500]
    assert (
        tokenizer.decode(ids, skip_special_tokens=False)
        == "<s><|im_start|>user\n3 + 4 <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    tokenizer.save(tmp_path / "saved", template.source)
    again = read_tokenizer(tmp_path / "saved")
    assert again.encode("<|im_start|>user\n3 + 4") == tokenizer.encode("<|im_start|>user\n3 + 4")
    assert "auto_map" not in again.settings
    assert again.settings["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_bad_files_are_named(golden: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    content = (golden / "sentencepiece" / "plain" / "tokenizer.model").read_bytes()
    for damaged in (b"<html>404</html>", content[: len(content) // 2], b""):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"tokenizer\.model: ") as caught:
            read_tokenizer(tmp_path)
        assert "\n" not in str(caught.value)
