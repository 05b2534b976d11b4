"""Qwen3 (dense): Llama with RMSNorm on every query and key head, and a head size of its own."""

from jax_sft.config import ModelConfig
from jax_sft.models.families import llama
from jax_sft.models.families.family import Family, Weight

_ATTENTION = "model.layers.{}.self_attn."
WEIGHTS = (
    *llama.WEIGHTS,
    Weight("layers/attention/q_norm/scale", _ATTENTION + "q_norm.weight", outputs="d"),
    Weight("layers/attention/k_norm/scale", _ATTENTION + "k_norm.weight", outputs="d"),
)


def _qwen3(width: int, layers: int, heads: int, mlp: int, tied: bool) -> ModelConfig:
    return ModelConfig(
        vocab_size=151_936,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=128,
        mlp_size=mlp,
        rope_theta=1e6,
        norm_eps=1e-6,
        tie_embeddings=tied,
        qk_norm=True,
        max_positions=32_768,
    )


FAMILY = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    weights=WEIGHTS,
    switches={"qk_norm": True},
    needed=("num_key_value_heads", "head_dim"),
    harmless=("sliding_window", "max_window_layers"),
    presets={
        "qwen3-0.6b": _qwen3(1024, 28, 16, 3072, tied=True),
        "qwen3-1.7b": _qwen3(2048, 28, 16, 6144, tied=True),
        "qwen3-4b": _qwen3(2560, 36, 32, 9728, tied=True),
        "qwen3-8b": _qwen3(4096, 36, 32, 12288, tied=False),
        "qwen3-14b": _qwen3(5120, 40, 40, 17408, tied=False),
        "qwen3-32b": _qwen3(5120, 64, 64, 25600, tied=False),
    },
)
