"""InternLM2 and InternLM2.5: Llama under other names, with q, k and v fused and interleaved, dynamic NTK."""

from jax_sft.config import ModelConfig, RopeScaling
from jax_sft.models.families.family import Family, Weight

_LAYER = "model.layers.{}."
_WQKV = _LAYER + "attention.wqkv.weight"
WEIGHTS = (
    Weight("embed/embedding", "model.tok_embeddings.weight", inputs="D", outputs="V", transposed=False),
    Weight("layers/attention_norm/scale", _LAYER + "attention_norm.weight", outputs="D"),
    Weight("layers/attention/q/kernel", _WQKV, inputs="D", outputs="Hd", part="q"),
    Weight("layers/attention/k/kernel", _WQKV, inputs="D", outputs="Kd", part="k"),
    Weight("layers/attention/v/kernel", _WQKV, inputs="D", outputs="Kd", part="v"),
    Weight("layers/attention/o/kernel", _LAYER + "attention.wo.weight", inputs="Hd", outputs="D"),
    Weight("layers/mlp_norm/scale", _LAYER + "ffn_norm.weight", outputs="D"),
    Weight("layers/mlp/gate/kernel", _LAYER + "feed_forward.w1.weight", inputs="D", outputs="F"),
    Weight("layers/mlp/up/kernel", _LAYER + "feed_forward.w3.weight", inputs="D", outputs="F"),
    Weight("layers/mlp/down/kernel", _LAYER + "feed_forward.w2.weight", inputs="F", outputs="D"),
    Weight("final_norm/scale", "model.norm.weight", outputs="D"),
    Weight("head/kernel", "output.weight", inputs="D", outputs="V"),
)


def _internlm25(size: tuple[int, int, int, int], theta: float) -> ModelConfig:
    width, layers, heads, mlp = size
    return ModelConfig(
        vocab_size=92_544,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=width // heads,
        mlp_size=mlp,
        rope_theta=theta,
        norm_eps=1e-5,
        tie_embeddings=False,
        max_positions=32_768,
        rope_scaling=RopeScaling(kind="dynamic", factor=2.0),
    )


FAMILY = Family(
    model_type="internlm2",
    architecture="InternLM2ForCausalLM",
    weights=WEIGHTS,
    needed=("num_key_value_heads",),
    presets={
        "internlm2_5-7b": _internlm25((4096, 32, 32, 14336), 1e6),
        "internlm2_5-20b": _internlm25((6144, 48, 48, 16384), 5e7),
    },
)
