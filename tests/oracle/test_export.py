"""Exported folders in transformers: same weights, same logits, same tokens, no complaints."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from jax_sft.config import TokensConfig
from jax_sft.models.export import write_huggingface
from jax_sft.models.pretrained import load_pretrained
from jax_sft.tokens.templates import load_template
from jax_sft.tokens.tokenizer import load_tokenizer
from tests.oracle.test_logits import our_logits, their_logits
from tests.random_models import TOKENS_BT, random_config, write_model

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("number", range(6))
def test_transformers_loads_an_export(number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_model(tmp_path / "source", random_config(number) | {"vocab_size": 520})
    config, params = load_pretrained(str(source))
    tokenizer = load_tokenizer(TokensConfig())
    template = load_template(TokensConfig(), tokenizer)
    folder = tmp_path / "export"
    write_huggingface(folder, config, params, tokenizer, template, shard_bytes=40_000)
    transformers.utils.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert "weights" not in caplog.text
    assert model.dtype == torch.bfloat16
    exported_config, exported = load_pretrained(str(folder))
    assert exported_config == config
    difference = np.abs(our_logits(exported, config, TOKENS_BT) - their_logits(model.float(), TOKENS_BT))
    assert difference.max() <= 1e-4
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "sort 3 1 2"}]
    assert theirs.apply_chat_template(turns, tokenize=False) == template.render(turns)
    assert sorted(model.generation_config.eos_token_id) == [0, 2]
