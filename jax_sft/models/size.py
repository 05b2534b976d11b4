"""Sizes of models, and the FLOPs that training them takes.

Model FLOPs, padding and recomputation left out (arXiv 2204.02311, appendix B, with the head where it is
needed): 6 x body parameters x tokens + 6 x head parameters x targets + 12 x layers x heads x head size x
pairs, a pair being a query and a key that it sees. Frozen weights need no gradient: 4 x instead of 6 x.
"""

import functools
import math
from dataclasses import dataclass

import jax

from jax_sft.config import ModelConfig
from jax_sft.models.params import abstract_params


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model by what they cost."""

    total: int
    body: int
    """Of the layers: each token passes them."""
    head: int
    """Of the output head: each target passes them. With a tied head this is the embedding table."""


@functools.cache
def model_size(model: ModelConfig) -> ModelSize:
    """Parameters, counted from the very tree that is trained."""
    sizes = {
        jax.tree_util.keystr(path): math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_params(model))
    }
    table = model.vocab_size * model.hidden_size
    outside = table * (1 if model.tie_embeddings else 2)
    return ModelSize(total=sum(sizes.values()), body=sum(sizes.values()) - outside, head=table)


def model_flops(
    model: ModelConfig, tokens: float, targets: float, pairs: float, frozen: bool = False
) -> float:
    """FLOPs of forward and backward pass, by the formula at the head of this file.

    `frozen` is for adapters on frozen weights (LoRA), whose own FLOPs are left out.
    """
    size, per_weight = model_size(model), 4.0 if frozen else 6.0
    attention = 12.0 * model.num_layers * model.num_heads * model.head_dim * pairs
    return per_weight * (size.body * tokens + size.head * targets) + attention
