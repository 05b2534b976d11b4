"""Small random models of every family: the same weights in every environment, for tests and their oracle."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FAMILIES = ("llama", "qwen2", "qwen3")
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
TOKENS_BT = np.random.default_rng(7).integers(0, 61, (2, 24)).astype(np.int32)


def random_config(number: int) -> dict[str, Any]:
    """config.json `number` of an endless series that goes round the families and varies every switch."""
    rng = np.random.default_rng(number)
    family = FAMILIES[number % len(FAMILIES)]
    kv_heads = int(rng.choice([1, 2, 3]))
    heads = kv_heads * int(rng.choice([1, 2, 4]))
    # Only Qwen3 and Llama let a head's size differ from hidden_size / heads; keep the ratio whole for Llama.
    head_dim = int(rng.choice([4, 8, 16]))
    width = heads * head_dim if family == "qwen2" else heads * int(rng.choice([4, 8, 12]))
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
        "max_position_embeddings": 64,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        **({"attention_bias": False} if family != "qwen2" else {}),
        **({"use_sliding_window": False, "sliding_window": 32} if family != "llama" else {}),
    }


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes as transformers has them, written out by hand: independent of jax_sft's tables."""
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
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, width)
    return shapes


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
