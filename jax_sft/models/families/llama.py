"""Llama 2 and 3, and SmolLM2, which shares their architecture. The other families start from its names."""

from jax_sft.config import ModelConfig, RopeScaling, replace
from jax_sft.models.families.family import Family, Weight

_LAYER = "model.layers.{}."
WEIGHTS = (
    Weight("embed/embedding", "model.embed_tokens.weight", inputs="D", outputs="V", transposed=False),
    Weight("layers/attention_norm/scale", _LAYER + "input_layernorm.weight", outputs="D"),
    Weight("layers/attention/q/kernel", _LAYER + "self_attn.q_proj.weight", inputs="D", outputs="Hd"),
    Weight("layers/attention/k/kernel", _LAYER + "self_attn.k_proj.weight", inputs="D", outputs="Kd"),
    Weight("layers/attention/v/kernel", _LAYER + "self_attn.v_proj.weight", inputs="D", outputs="Kd"),
    Weight("layers/attention/o/kernel", _LAYER + "self_attn.o_proj.weight", inputs="Hd", outputs="D"),
    Weight("layers/mlp_norm/scale", _LAYER + "post_attention_layernorm.weight", outputs="D"),
    Weight("layers/mlp/gate/kernel", _LAYER + "mlp.gate_proj.weight", inputs="D", outputs="F"),
    Weight("layers/mlp/up/kernel", _LAYER + "mlp.up_proj.weight", inputs="D", outputs="F"),
    Weight("layers/mlp/down/kernel", _LAYER + "mlp.down_proj.weight", inputs="F", outputs="D"),
    Weight("final_norm/scale", "model.norm.weight", outputs="D"),
    Weight("head/kernel", "lm_head.weight", inputs="D", outputs="V"),
)


def _llama(size: tuple[int, int, int, int, int], vocab: int, theta: float, positions: int) -> ModelConfig:
    width, layers, heads, kv_heads, mlp = size
    return ModelConfig(
        vocab_size=vocab,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=width // heads,
        mlp_size=mlp,
        rope_theta=theta,
        norm_eps=1e-5,
        tie_embeddings=vocab == 49_152,
        max_positions=positions,
    )


def _llama31(size: tuple[int, int, int, int, int], factor: float, tied: bool) -> ModelConfig:
    """Llama 3.1 and 3.2: pretraining on 8,192 positions stretched to 131,072."""
    scaling = RopeScaling(
        "llama3", factor, original_positions=8192, low_freq_factor=1.0, high_freq_factor=4.0
    )
    config = _llama(size, 128_256, 5e5, 131_072)
    return replace(config, rope_scaling=scaling, tie_embeddings=tied)


FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    weights=WEIGHTS,
    presets={
        "llama2-7b": _llama((4096, 32, 32, 32, 11008), 32_000, 1e4, 4096),
        "llama2-13b": _llama((5120, 40, 40, 40, 13824), 32_000, 1e4, 4096),
        "llama3-8b": _llama((4096, 32, 32, 8, 14336), 128_256, 5e5, 8192),
        "llama3.1-8b": _llama31((4096, 32, 32, 8, 14336), 8.0, tied=False),
        "llama3.1-70b": _llama31((8192, 80, 64, 8, 28672), 8.0, tied=False),
        "llama3.2-1b": _llama31((2048, 16, 32, 8, 8192), 32.0, tied=True),
        "llama3.2-3b": _llama31((3072, 28, 24, 8, 8192), 32.0, tied=True),
        "smollm2-135m": _llama((576, 30, 9, 3, 1536), 49_152, 1e5, 8192),
        "smollm2-360m": _llama((960, 32, 15, 5, 2560), 49_152, 1e5, 8192),
        "smollm2-1.7b": _llama((2048, 24, 32, 32, 8192), 49_152, 1.3e5, 8192),
    },
)
