"""Logits of imported models against transformers on CPU in float32."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from jax_sft.config import ModelConfig, TokensConfig
from jax_sft.models.decoder import forward_rows, logits
from jax_sft.models.weights.gguf import smollm2_source
from jax_sft.models.weights.read import load_pretrained
from jax_sft.packed import Rows
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_prompt
from jax_sft.tokens.templates import load_template
from tests.random_models import (
    TOKENS_BT,
    equivalent_llama,
    random_config,
    random_tensors,
    write_model,
)

pytestmark = pytest.mark.oracle
CONFIGS = 56
GOLDEN_CONFIGS = 16
PROMPTS = (
    "What is the capital of France?",
    "Natalia sold 48 clips in April and half as many in May. How many in all?",
    "Schreibe einen Satz über 日本 🎌.",
    "def fib(n):",
    "List three prime numbers above 100, then explain how you checked each of them.",
)


def our_logits(
    params: dict, config: ModelConfig, tokens_BT: np.ndarray, dtype: Any = jnp.float32
) -> np.ndarray:
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    rows = Rows.to_read(jnp.asarray(tokens_BT), positions_BT, jnp.ones_like(positions_BT))
    hidden_BTD = forward_rows(params, config, rows, dtype)
    return np.asarray(logits(params, config, hidden_BTD))


def their_logits(model: torch.nn.Module, tokens_BT: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(tokens_BT.astype(np.int64))).logits.float().numpy()


def their_model(config: dict, tensors: dict[str, np.ndarray]) -> torch.nn.Module:
    """The transformers model with exactly these weights: anything missing or left over is an error.

    transformers has no InternLM2 of its own; it is given as the Llama that computes the same.
    """
    if config["model_type"] == "internlm2":
        config, tensors = equivalent_llama(config, tensors)
    model_class = getattr(transformers, config["architectures"][0])
    model = model_class(transformers.AutoConfig.for_model(**config)).float().eval()
    state = {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert unexpected == []
    assert set(missing) <= {"lm_head.weight"}
    assert not missing or config["tie_word_embeddings"]
    model.tie_weights()
    return model


@pytest.mark.parametrize("number", range(CONFIGS))
def test_random_models_agree(number: int, tmp_path: Path) -> None:
    config = random_config(number)
    model = their_model(config, random_tensors(config))
    if config["model_type"] == "internlm2":
        write_model(tmp_path, config)
    else:
        model.save_pretrained(tmp_path)
    ours, params = load_pretrained(str(tmp_path))
    difference = np.abs(our_logits(params, ours, TOKENS_BT) - their_logits(model, TOKENS_BT)).max()
    assert difference <= 1e-4


def log_softmax(logits_BTV: np.ndarray) -> np.ndarray:
    """In float64."""
    shifted_BTV = logits_BTV.astype(np.float64) - logits_BTV.max(-1, keepdims=True)
    return shifted_BTV - np.log(np.exp(shifted_BTV).sum(-1, keepdims=True))


@pytest.mark.parametrize("number", range(8))
def test_bfloat16_stays_close_to_transformers(number: int, tmp_path: Path) -> None:
    """Mean KL of our bf16 from their bf16, both on the same bf16 weights."""
    config = random_config(number)
    model = their_model(config, random_tensors(config)).bfloat16()
    ours, params = load_pretrained(str(write_model(tmp_path, config)))
    theirs_BTV = log_softmax(their_logits(model.bfloat16(), TOKENS_BT))
    ours_BTV = log_softmax(our_logits(params, ours, TOKENS_BT, jnp.bfloat16))
    divergence = (np.exp(theirs_BTV) * (theirs_BTV - ours_BTV)).sum(-1).mean()
    assert divergence <= 1e-3


def test_golden_logits_are_current(golden: Path, renew_golden: bool) -> None:
    made = {}
    for number in range(GOLDEN_CONFIGS):
        config = random_config(number)
        made[f"{number}"] = their_logits(their_model(config, random_tensors(config)), TOKENS_BT)
    if renew_golden:
        np.savez_compressed(golden / "random_logits.npz", **made)
    stored = np.load(golden / "random_logits.npz")
    for name, logits_BTV in made.items():
        np.testing.assert_allclose(stored[name], logits_BTV, atol=2e-5)


def their_smollm2() -> torch.nn.Module:
    """SmolLM2-135M with the packaged weights, in float32."""
    source = smollm2_source()
    raw = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    }
    return their_model(raw, {name: source.read(name) for name in source.shapes()})


def test_smollm2_agrees(golden: Path, renew_golden: bool) -> None:
    model, (config, params) = their_smollm2(), load_pretrained("smollm2")
    tokens = TokensConfig(tokenizer="smollm2")
    tokenizer = load_tokenizer(tokens)
    template = load_template(tokens, tokenizer)
    made: dict[str, np.ndarray] = {}
    for number, prompt in enumerate(PROMPTS):
        ids_T = render_prompt(tokenizer, template, [{"role": "user", "content": prompt}])
        theirs_TV = their_logits(model, ids_T[None])[0]
        difference = np.abs(our_logits(params, config, ids_T[None])[0] - theirs_TV).max()
        print(f"SmolLM2, prompt {number}: {len(ids_T)} tokens, largest difference {difference:.2e}")
        assert difference <= 1e-3
        made |= {f"ids_{number}": ids_T, f"logits_{number}": theirs_TV[:, ::1024]}
    if renew_golden:
        np.savez_compressed(golden / "smollm2_logits.npz", **made)
    stored = np.load(golden / "smollm2_logits.npz")
    for name, values in made.items():
        np.testing.assert_allclose(stored[name], values, atol=1e-3)
