"""Small random models of every family: the same weights in every environment, for tests and their oracle."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FAMILIES = ("llama", "qwen2", "qwen3", "internlm2")
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
}
# The sequences in TOKENS_BT are longer than what each of these was made for.
ROPE_SCALINGS = (
    None,
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "dynamic", "factor": 2.5},
    {"type": "dynamic", "factor": 2.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 12,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 10,
        "beta_fast": 2.0,
        "beta_slow": 0.25,
        "attention_factor": 1.3,
    },
)
TOKENS_BT = np.random.default_rng(7).integers(0, 61, (2, 24)).astype(np.int32)


_OWN_FIELDS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": False, "attention_dropout": 0.0},
    "qwen2": {"use_sliding_window": False, "sliding_window": 32, "attention_dropout": 0.0},
    "qwen3": {"attention_bias": False, "use_sliding_window": False, "sliding_window": 32},
    "internlm2": {"bias": False, "attn_implementation": "eager", "pretraining_tp": 1},
}


def random_config(number: int) -> dict[str, Any]:
    """config.json `number` of an endless series that goes round the families and varies every switch."""
    rng = np.random.default_rng(number)
    family = FAMILIES[number % len(FAMILIES)]
    kv_heads = int(rng.choice([1, 2, 3]))
    heads = kv_heads * int(rng.choice([1, 2, 4]))
    # Only Qwen3 and Llama let a head's size differ from hidden_size / heads; keep the ratio whole for Llama.
    head_dim = int(rng.choice([4, 8, 16]))
    width = heads * head_dim if family in ("qwen2", "internlm2") else heads * int(rng.choice([4, 8, 12]))
    scaling = ROPE_SCALINGS[number * 5 // 2 % len(ROPE_SCALINGS)]
    return {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": int(rng.choice([61, 64, 97])),
        "hidden_size": width,
        "num_hidden_layers": int(rng.choice([1, 2, 3])),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": int(rng.choice([20, 48, 64])),
        "rope_theta": float(rng.choice([1e4, 1e5, 1e6])),
        "rms_norm_eps": float(rng.choice([1e-5, 1e-6])),
        "tie_word_embeddings": bool(rng.random() < 0.5),
        "max_position_embeddings": 10 if scaling else 64,
        "hidden_act": "silu",
        # A copy: transformers writes rope_theta into the dictionary it is given.
        "rope_scaling": dict(scaling) if scaling else None,
        **_OWN_FIELDS[family],
    }


def scoring_config(number: int) -> dict[str, Any]:
    """The same model with one score in place of the vocabulary."""
    config = random_config(number)
    named = ARCHITECTURES[config["model_type"]].replace("ForCausalLM", "ForSequenceClassification")
    return config | {"architectures": [named], "id2label": {"0": "score"}, "label2id": {"score": 0}}


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes as transformers has them, written out by hand: independent of jax_sft's tables."""
    if config["model_type"] == "internlm2":
        return _internlm2_shapes(config)
    width, mlp, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    q, kv = (config[name] * config["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, width)}
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        shapes |= {
            f"{block}input_layernorm.weight": (width,),
            f"{block}post_attention_layernorm.weight": (width,),
            f"{block}self_attn.q_proj.weight": (q, width),
            f"{block}self_attn.k_proj.weight": (kv, width),
            f"{block}self_attn.v_proj.weight": (kv, width),
            f"{block}self_attn.o_proj.weight": (width, q),
            f"{block}mlp.gate_proj.weight": (mlp, width),
            f"{block}mlp.up_proj.weight": (mlp, width),
            f"{block}mlp.down_proj.weight": (width, mlp),
        }
        if config["model_type"] == "qwen2":
            shapes |= {
                f"{block}self_attn.q_proj.bias": (q,),
                f"{block}self_attn.k_proj.bias": (kv,),
                f"{block}self_attn.v_proj.bias": (kv,),
            }
        if config["model_type"] == "qwen3":
            shapes |= {
                f"{block}self_attn.q_norm.weight": (config["head_dim"],),
                f"{block}self_attn.k_norm.weight": (config["head_dim"],),
            }
    shapes["model.norm.weight"] = (width,)
    if "id2label" in config:
        shapes["score.weight"] = (1, width)
    elif not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, width)
    return shapes


def _internlm2_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, mlp, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.tok_embeddings.weight": (vocab, width)}
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}."
        shapes |= {
            f"{block}attention_norm.weight": (width,),
            f"{block}ffn_norm.weight": (width,),
            f"{block}attention.wqkv.weight": ((heads + 2 * kv_heads) * config["head_dim"], width),
            f"{block}attention.wo.weight": (width, heads * config["head_dim"]),
            f"{block}feed_forward.w1.weight": (mlp, width),
            f"{block}feed_forward.w3.weight": (mlp, width),
            f"{block}feed_forward.w2.weight": (width, mlp),
        }
    shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["output.weight"] = (vocab, width)
    return shapes


def equivalent_llama(
    config: dict[str, Any], tensors: dict[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The Llama that computes what an InternLM2 does: its tensors renamed, wqkv dealt out head by head.

    wqkv has, for each key/value head, one block of rows for every query head that shares it, then one for
    the key, then one for the value.
    """
    heads, kv_heads, size = (
        config[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim")
    )
    names = {
        "tok_embeddings": "embed_tokens",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w3": "mlp.up_proj",
        "feed_forward.w2": "mlp.down_proj",
        "output": "lm_head",
    }
    made = {}
    for name, tensor in tensors.items():
        if "wqkv" not in name:
            for theirs, llama in names.items():
                name = name.replace(f"{theirs}.weight", f"{llama}.weight")
            made[name] = tensor
            continue
        dealt: dict[str, list[np.ndarray]] = {"q": [], "k": [], "v": []}
        blocks = iter(np.split(tensor, heads + 2 * kv_heads))
        for _ in range(kv_heads):
            for kind in ["q"] * (heads // kv_heads) + ["k", "v"]:
                dealt[kind].append(next(blocks))
        for kind, rows in dealt.items():
            assert all(len(block) == size for block in rows)
            made[name.replace("attention.wqkv", f"self_attn.{kind}_proj")] = np.concatenate(rows)
    kept = {name: value for name, value in config.items() if name not in _OWN_FIELDS["internlm2"]}
    return kept | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, made


def random_tensors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """float32 weights, each drawn from a seed made of its name: of ordinary size, norms away from 1."""
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if len(shape) == 2:
            tensors[name] = noise / shape[1] ** 0.5
        elif name.endswith(".bias"):
            tensors[name] = 0.5 * noise
        else:
            tensors[name] = 1 + 0.2 * noise
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def write_model(folder: Path, config: dict[str, Any], tensors: dict[str, Any] | None = None) -> Path:
    """A Hugging Face folder, its weights written by the safetensors library."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(config) if tensors is None else tensors, folder / "model.safetensors")
    return folder
