"""Qwen2 and Qwen2.5: Llama with biases on the q, k and v projections."""

from jax_sft.config import ModelConfig
from jax_sft.models.families import llama
from jax_sft.models.families.family import Family, Weight

_ATTENTION = "model.layers.{}.self_attn."
WEIGHTS = (
    *llama.WEIGHTS,
    Weight("layers/attention/q/bias", _ATTENTION + "q_proj.bias", outputs="Hd"),
    Weight("layers/attention/k/bias", _ATTENTION + "k_proj.bias", outputs="Kd"),
    Weight("layers/attention/v/bias", _ATTENTION + "v_proj.bias", outputs="Kd"),
)


def _qwen25(size: tuple[int, int, int, int, int], eps: float, tied: bool) -> ModelConfig:
    width, layers, heads, kv_heads, mlp = size
    return ModelConfig(
        # The larger models pad their embedding tables further.
        vocab_size=151_936 if tied else 152_064,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=width // heads,
        mlp_size=mlp,
        rope_theta=1e6,
        norm_eps=eps,
        tie_embeddings=tied,
        qkv_bias=True,
        max_positions=32_768 if tied else 131_072,
    )


FAMILY = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    weights=WEIGHTS,
    switches={"qkv_bias": True},
    needed=("num_key_value_heads",),
    harmless=("sliding_window", "max_window_layers"),
    presets={
        "qwen2.5-0.5b": _qwen25((896, 24, 14, 2, 4864), 1e-6, tied=True),
        "qwen2.5-1.5b": _qwen25((1536, 28, 12, 2, 8960), 1e-6, tied=True),
        "qwen2.5-3b": _qwen25((2048, 36, 16, 2, 11008), 1e-6, tied=True),
        "qwen2.5-7b": _qwen25((3584, 28, 28, 4, 18944), 1e-6, tied=False),
        "qwen2.5-14b": _qwen25((5120, 48, 40, 8, 13824), 1e-5, tied=False),
        "qwen2.5-32b": _qwen25((5120, 64, 40, 8, 27648), 1e-5, tied=False),
        "qwen2.5-72b": _qwen25((8192, 80, 64, 8, 29568), 1e-5, tied=False),
    },
)
