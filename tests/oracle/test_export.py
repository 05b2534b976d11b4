"""Exported folders in transformers: same weights, same logits, same tokens, no complaints."""

import copy
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers

from jax_sft.config import EvaluationConfig, ModelConfig, TokensConfig
from jax_sft.generation.backend import Request
from jax_sft.generation.engine import Engine
from jax_sft.models.weights.read import load_pretrained
from jax_sft.models.weights.write import write_huggingface
from jax_sft.sharding import make_generation_mesh
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import stop_ids
from jax_sft.tokens.templates import load_template
from tests.oracle.test_logits import our_logits, their_logits
from tests.random_models import TOKENS_BT, random_config, write_model

pytestmark = pytest.mark.oracle
PROMPT = (5, 17, 33, 2, 58, 9)
NEW_TOKENS = 64


def greedy(params: dict, config: ModelConfig) -> list[int]:
    """By the engine."""
    evaluation = EvaluationConfig(slots=1, context=128, compute_dtype="float32", loop_tokens=0)
    engine = Engine(config, evaluation, (), make_generation_mesh(1, jax.devices()[:1]))
    engine.load(
        jax.tree.map(lambda x, leaf: jax.device_put(x, leaf.sharding), params, engine.abstract_params())
    )
    [(_, completion)] = engine.generate([Request("a", 0, PROMPT, NEW_TOKENS)])
    return list(completion.tokens)


def their_greedy(model: transformers.PreTrainedModel) -> list[int]:
    """The same by transformers' own `generate`, which is not to stop before."""
    model.generation_config.eos_token_id = None
    ids = torch.tensor(PROMPT)[None]
    made = model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    return made[0, len(PROMPT) :].tolist()


@pytest.mark.parametrize("number", range(8))
def test_transformers_loads_an_export(number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = load_tokenizer(TokensConfig())
    template = load_template(TokensConfig(), tokenizer)
    raw = random_config(number) | {"vocab_size": tokenizer.vocab_size + 8}
    config, params = load_pretrained(str(write_model(tmp_path / "source", raw)))
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
    generation_config = copy.deepcopy(model.generation_config)
    assert greedy(exported, config) == their_greedy(model.float())
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "sort 3 1 2"}]
    assert theirs.apply_chat_template(turns, tokenize=False) == template.render(turns)
    assert sorted(generation_config.eos_token_id) == list(stop_ids(tokenizer, template))
