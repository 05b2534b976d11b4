"""Shape and switches of a model, as fields of a run."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for sequences longer than those of pretraining."""

    kind: Literal["none", "linear", "dynamic", "llama3", "yarn"] = "none"
    """As `rope_type` in config.json; `dynamic` is dynamic NTK, which acts beyond max_positions only."""
    factor: float = 1.0
    """How many times longer sequences become; at least 1."""
    original_positions: int = 0
    """Longest sequence of pretraining (llama3, yarn); 0 means max_positions."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original_positions / this are stretched by the whole factor."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_positions / this stay."""
    beta_fast: float = 32.0
    """yarn: pairs that turn more often than this over original_positions stay."""
    beta_slow: float = 1.0
    """yarn: pairs that turn less often than this are stretched by the whole factor."""
    truncate: bool = True
    """yarn: round the borders between those pairs to whole pairs."""
    attention_factor: float = 0.0
    """yarn: multiplies cosines and sines; 0 means 0.1 ln(factor) + 1."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape and switches of one decoder-only transformer."""

    vocab_size: int = 512
    """Rows of the embedding table, unused ones included."""
    hidden_size: int = 128
    """Width of the residual stream."""
    num_layers: int = 4
    num_heads: int = 4
    """Query heads."""
    num_kv_heads: int = 4
    """Key/value heads; divides num_heads."""
    head_dim: int = 32
    """Size of one head; need not be hidden_size / num_heads."""
    mlp_size: int = 384
    """Width of the SwiGLU layer."""
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    """The output head is the embedding table."""
    qk_norm: bool = False
    """RMSNorm on each query and key head (Qwen3)."""
    qkv_bias: bool = False
    """Biases on the q, k and v projections (Qwen2)."""
    max_positions: int = 4096
    """Longest sequence the position encoding was made for."""
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    head: Literal["vocabulary", "score"] = "vocabulary"
    """What the last hidden states become: logits, or one number for a whole row (reward models, judges)."""
