"""Imported models against logits of transformers (renewed by `make oracle`); config.json read strictly."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ModelConfig
from jax_sft.errors import UsageError
from jax_sft.models.decoder import forward_rows, init_params, logits
from jax_sft.models.families import (
    FAMILIES,
    PRESETS,
    family_of,
    family_of_huggingface,
    model_config_from_huggingface,
)
from jax_sft.models.weights.read import load_pretrained
from jax_sft.packed import Rows
from tests.random_models import TOKENS_BT, random_config, tensor_shapes, write_model

GOLDEN_CONFIGS = 16


@pytest.mark.parametrize("number", range(GOLDEN_CONFIGS))
def test_logits_equal_those_of_transformers(number: int, tmp_path: Path, golden: Path) -> None:
    config, params = load_pretrained(str(write_model(tmp_path, random_config(number))))
    positions_BT = jnp.broadcast_to(jnp.arange(TOKENS_BT.shape[1]), TOKENS_BT.shape)
    segments_BT = jnp.ones_like(positions_BT)
    rows = Rows.to_read(jnp.asarray(TOKENS_BT), positions_BT, segments_BT)
    hidden_BTD = forward_rows(params, config, rows)
    wanted_BTV = np.load(golden / "random_logits.npz")[str(number)]
    np.testing.assert_allclose(logits(params, config, hidden_BTD), wanted_BTV, atol=1e-4)


@pytest.mark.parametrize("number", range(GOLDEN_CONFIGS))
def test_tables_name_every_parameter_and_tensor(number: int) -> None:
    raw = random_config(number)
    config = model_config_from_huggingface(raw)
    table = family_of_huggingface(raw).table(config)
    named = {name: weight.tensor_shape(config) for weight in table for name in weight.names(config)}
    assert named == tensor_shapes(raw)
    tree = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    ours = {
        "/".join(key.key for key in path if isinstance(key, jax.tree_util.DictKey)): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    stacked = {
        weight.path: ((config.num_layers,) if weight.stacked else ()) + weight.shape(config)
        for weight in table
    }
    assert stacked == ours


@pytest.mark.parametrize("number", range(GOLDEN_CONFIGS))
def test_config_survives_a_round_trip(number: int) -> None:
    config = model_config_from_huggingface(random_config(number))
    model_type = random_config(number)["model_type"]
    # An InternLM2 goes out as the Llama it equals unless told otherwise.
    assert family_of(config).model_type == model_type.replace("internlm2", "llama")
    family = family_of(config, model_type)
    assert family.model_type == model_type
    assert model_config_from_huggingface(family.write_config(config)) == config


def count_parameters(config: ModelConfig) -> int:
    table = family_of(config).table(config)
    return sum(
        int(np.prod(weight.shape(config))) * (config.num_layers if weight.stacked else 1) for weight in table
    )


# As published on the models' cards, in millions.
PUBLISHED = {
    "smollm2-135m": 134.5,
    "smollm2-360m": 361.8,
    "smollm2-1.7b": 1711.4,
    "llama2-7b": 6738.4,
    "llama2-13b": 13015.9,
    "llama3-8b": 8030.3,
    "llama3.1-8b": 8030.3,
    "llama3.1-70b": 70553.7,
    "llama3.2-1b": 1235.8,
    "llama3.2-3b": 3212.7,
    "internlm2_5-7b": 7737.7,
    "internlm2_5-20b": 19861.1,
    "qwen2.5-0.5b": 494.0,
    "qwen2.5-1.5b": 1543.7,
    "qwen2.5-3b": 3085.9,
    "qwen2.5-7b": 7615.6,
    "qwen2.5-14b": 14770.0,
    "qwen2.5-32b": 32763.9,
    "qwen2.5-72b": 72706.2,
    "qwen3-0.6b": 596.0,
    "qwen3-1.7b": 1720.6,
    "qwen3-4b": 4022.5,
    "qwen3-8b": 8190.7,
    "qwen3-14b": 14768.3,
    "qwen3-32b": 32762.1,
}


def test_every_preset_has_the_published_number_of_parameters() -> None:
    counted = {name: round(count_parameters(config) / 1e6, 1) for name, config in PRESETS.items()}
    assert counted == PUBLISHED


def test_newer_files_keep_the_rope_base_in_a_group() -> None:
    raw = random_config(0)
    theta = raw.pop("rope_theta")
    raw["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    assert model_config_from_huggingface(raw) == model_config_from_huggingface(random_config(0))


@pytest.mark.parametrize(
    ("family", "change", "named"),
    [
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("qwen3", {"num_experts": 8}, "num_experts"),
        ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, "type 'longrope'"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "high_freq_factor is missing"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 8.0, "mscale": 1.0}}, "rope_scaling.mscale"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor is 0.5"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling.factor is '2'"),
        ("internlm2", {"bias": True}, "bias"),
        (
            "llama",
            {"rope_scaling": None, "rope_parameters": {"rope_theta": 1e4, "factor": 2.0}},
            "rope_parameters.factor",
        ),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"hidden_size": None}, "hidden_size"),
        ("llama", {"hidden_size": "576"}, "hidden_size"),
        ("llama", {"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ("llama", {"model_type": "mixtral"}, "model_type"),
    ],
)
def test_an_unsupported_field_is_named(family: str, change: dict[str, Any], named: str) -> None:
    raw = {**random_config(list(FAMILIES).index(family)), **change}
    with pytest.raises(UsageError, match=named):
        model_config_from_huggingface(raw, "here/config.json")


def test_fields_that_change_nothing_are_read_over() -> None:
    published = {
        "llama": {
            "_attn_implementation_autoset": True,
            "attention_bias": False,
            "chunk_size_feed_forward": 0,
            "gradient_checkpointing": False,
            "hidden_act": "swish",
            "is_llama_config": True,
            "mlp_bias": False,
            "output_attentions": False,
            "partial_rotary_factor": 1.0,
            "pretraining_tp": 2,
            "pruned_heads": {},
            "rope_interleaved": False,
            "sliding_window": 4096,
            "some_new_switch": False,
            "some_new_list": [],
            "temperature": 0.6,
            "transformers.js_config": {"dtype": "q4"},
            "unsloth_fixed": True,
            "use_sliding_window": False,
        },
        "qwen2": {"max_window_layers": 21, "sliding_window": 4096, "use_mrope": False, "torchscript": True},
        "qwen3": {"layer_types": ["full_attention"] * 3, "max_window_layers": 36, "sliding_window": None},
        "internlm2": {"auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"}, "bias": False},
    }
    for family, fields in published.items():
        raw = random_config(list(FAMILIES).index(family))
        assert model_config_from_huggingface(raw | fields) == model_config_from_huggingface(raw)


def test_a_neutral_field_beside_the_scaling_is_read_over() -> None:
    raw = random_config(0) | {"rope_scaling": None}
    theta = raw.pop("rope_theta")
    rope = {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": 1.0, "mrope_section": None}
    plain = model_config_from_huggingface(raw | {"rope_theta": theta})
    assert model_config_from_huggingface(raw | {"rope_parameters": rope}) == plain
    with pytest.raises(UsageError, match=r"rope_parameters\.partial_rotary_factor is not supported"):
        model_config_from_huggingface(raw | {"rope_parameters": rope | {"partial_rotary_factor": 0.5}})


def test_what_is_named_can_be_ignored() -> None:
    raw = random_config(0) | {"rope_scaling": {"type": "yarn", "factor": 8.0}}
    family = family_of_huggingface(raw)
    odd = raw | {"attention_dropout": 0.1, "use_mup": True}
    odd["rope_scaling"] = {"type": "yarn", "factor": 8.0, "finetuned": True}
    remedies = "attention_dropout", "use_mup", r"rope_scaling\.finetuned"
    for known, remedy in enumerate(remedies):
        ignored = [name.replace("\\", "") for name in (*remedies[:known], *remedies[known + 1 :])]
        with pytest.raises(UsageError, match=f"here: {remedy}.* read on with --init-ignore {remedy}"):
            family.read_config(odd, "here", ignored)
    whole = family.read_config(odd, "here", ("attention_dropout", "use_mup", "rope_scaling.finetuned"))
    assert whole == family.read_config(raw)


def test_a_family_is_named_or_refused() -> None:
    with pytest.raises(UsageError, match="no family 'mixtral'"):
        family_of(ModelConfig(), "mixtral")
    with pytest.raises(UsageError, match="unlike qwen3"):
        family_of(ModelConfig(), "qwen3")


def test_both_switches_belong_to_no_family() -> None:
    with pytest.raises(UsageError, match="qk_norm and qkv_bias"):
        family_of(ModelConfig(qk_norm=True, qkv_bias=True))
