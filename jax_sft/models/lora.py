"""Low-rank adapters (LoRA, arXiv 2106.09685): which weights are learnt, and folding them into the others.

An adapted projection computes `x W + (alpha / rank) (x A) B`; `A` starts random, `B` at zero. In the tree of
parameters `lora_a` and `lora_b` lie beside the projection's `kernel`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jax_sft.config import LoraConfig
from jax_sft.models import Params

A, B = "lora_a", "lora_b"


def has_adapter(lora: LoraConfig, projection: str | None) -> bool:
    """Whether the projection of that name gets an adapter."""
    return lora.rank > 0 and projection in lora.targets


def adapted(
    module: nn.Module, x_F: jax.Array, shape: tuple[int, ...], axes: tuple[Any, ...], lora: LoraConfig
) -> Any:
    """What the adapter of `module` adds to its result, which is [..., *shape]; `x_F` is its input [..., F].

    `axes` names the axes of F and of the result.
    """
    width = x_F.shape[-1]
    a_init = nn.with_logical_partitioning(nn.initializers.normal(width**-0.5), (axes[0], None))
    b_init = nn.with_logical_partitioning(nn.initializers.zeros_init(), (None, *axes[1:]))
    a_Fr = module.param(A, a_init, (width, lora.rank), jnp.float32).astype(x_F.dtype)
    b_rF = module.param(B, b_init, (lora.rank, *shape), jnp.float32).astype(x_F.dtype)
    return jnp.tensordot(x_F @ a_Fr, b_rF, axes=1) * (lora.alpha / lora.rank)


def split(params: Params) -> tuple[Params, Params]:
    """The parameters that are learnt and those that are frozen; without adapters all are learnt."""
    flat = flatten_dict(params)
    learnt = {path: leaf for path, leaf in flat.items() if path[-1] in (A, B)}
    if not learnt:
        return params, {}
    frozen = {path: leaf for path, leaf in flat.items() if path not in learnt}
    return unflatten_dict(learnt), unflatten_dict(frozen)


def without_adapters(params: Params) -> Params:
    """The parameters of the plain model among these."""
    return split(params)[1] or params


def merge(learnt: Params, frozen: Params) -> Params:
    """The tree that `split` took apart."""
    return unflatten_dict(flatten_dict(learnt) | flatten_dict(frozen)) if frozen else learnt


def fold(params: Params, lora: LoraConfig) -> Params:
    """The parameters of the plain model that computes the same: adapters are added to their kernels."""
    flat = flatten_dict(params)
    folded = {}
    for path, leaf in flat.items():
        if path[-1] in (A, B):
            continue
        if (*path[:-1], A) in flat and path[-1] == "kernel":
            a, b = (flat[*path[:-1], name].astype(jnp.float32) for name in (A, B))
            # Both have the layers as their first axis.
            delta = jax.vmap(lambda a_Fr, b_rF: jnp.tensordot(a_Fr, b_rF, axes=1))(a, b)
            delta = delta.reshape(leaf.shape) * (lora.alpha / lora.rank)
            leaf = (leaf.astype(jnp.float32) + delta).astype(leaf.dtype)
        folded[path] = leaf
    return unflatten_dict(folded)
