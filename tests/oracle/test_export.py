"""Exported folders in transformers: same weights, same logits, same tokens, no complaints."""

import copy
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jax_sft.config import ModelConfig, TokensConfig
from jax_sft.models.attention import Cached
from jax_sft.models.decoder import forward_cached, logits, prefill_rows
from jax_sft.models.kv_cache import KVCache, LayerCache
from jax_sft.models.weights.read import load_pretrained
from jax_sft.models.weights.write import write_huggingface
from jax_sft.packed import Rows
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import stop_ids
from jax_sft.tokens.templates import load_template
from tests.oracle.test_logits import our_logits, their_logits
from tests.random_models import TOKENS_BT, random_config, write_model

pytestmark = pytest.mark.oracle
PROMPT = (5, 17, 33, 2, 58, 9)
NEW_TOKENS = 64


def greedy(params: dict, config: ModelConfig) -> list[int]:
    """The prompt prefilled whole, then one token at a time from the cache."""
    params = jax.tree.map(jnp.asarray, params)
    prompt_1T = jnp.asarray(PROMPT)[None]
    P = prompt_1T.shape[1]
    positions_1T = jnp.arange(P)[None]
    rows = Rows.to_read(prompt_1T, positions_1T, jnp.ones_like(positions_1T))
    hidden_1TD, made = prefill_rows(params, config, rows)
    cache = tuple(
        LayerCache(*(jnp.pad(x, ((0, 0), (0, 0), (0, NEW_TOKENS), (0, 0))) for x in layer))
        for layer in zip(made.k_BKSd, made.v_BKSd, strict=True)
    )

    @jax.jit
    def step(token_1: jax.Array, position_1: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
        contexts = [Cached(layer, position_1) for layer in cache]
        new = token_1[:, None], position_1[:, None]
        hidden_11D, kept = forward_cached(params, config, *new, contexts, jnp.float32)
        return hidden_11D[:, 0], kept

    token_1 = logits(params, config, hidden_1TD[:, -1]).argmax(-1)
    tokens = [int(token_1[0])]
    for position in range(P, P + NEW_TOKENS - 1):
        hidden_1D, cache = step(token_1, jnp.asarray([position]), cache)
        token_1 = logits(params, config, hidden_1D).argmax(-1)
        tokens.append(int(token_1[0]))
    return tokens


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
