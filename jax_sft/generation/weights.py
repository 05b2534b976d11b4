"""Weights as the engine's programs take them: each layer's by themselves, in the layout of their products.

Stacked over layers, a loop over tokens would copy each layer's part of them for every token: on a CPU all of
them, on a TPU those of the queries, and there also turn the projections to heads, which products read with
the model's width last, once a chunk.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jax_sft.config import ModelConfig
from jax_sft.models import Params
from jax_sft.models.decoder import LAYERS, part_layers
from jax_sft.models.quantised import Quantised, quantise_weights

WeightDtype = Literal["same", "int8"]


def as_used(params: Params, config: ModelConfig, weight_dtype: WeightDtype) -> Params:
    """The parameters, stacked over layers and in the compute type, as programs take them."""
    return part_layers(quantise_weights(params) if weight_dtype == "int8" else params, config)


def abstract_as_used(params: Params, config: ModelConfig, weight_dtype: WeightDtype) -> Params:
    """Shapes, types and shardings of `as_used`, from those of the parameters."""
    if weight_dtype == "int8":
        params = quantise_weights(params, _abstract_quantised)
    layer = jax.tree.map(lambda leaf: _without(leaf, (0,)), params[LAYERS])
    return {**params, LAYERS: (layer,) * config.num_layers}


def formats(params: Params, platform: str) -> Any:
    """Shardings of `abstract_as_used`, on a TPU with the layouts in memory that are not the usual ones."""

    def of_leaf(path: Any, leaf: jax.ShapeDtypeStruct) -> Any:
        names = {getattr(entry, "key", None) for entry in path}
        if platform == "tpu" and leaf.ndim == 3 and names & {"q", "k", "v"}:
            return Format(Layout((1, 2, 0)), leaf.sharding)
        return leaf.sharding

    return jax.tree_util.tree_map_with_path(of_leaf, params)


def _abstract_quantised(leaf: Any, summed: tuple[int, ...]) -> Quantised:
    values: Any = jax.ShapeDtypeStruct(leaf.shape, jnp.int8, sharding=leaf.sharding)
    kept = _without(leaf, summed)
    scale: Any = jax.ShapeDtypeStruct(kept.shape, jnp.float32, sharding=kept.sharding)
    return Quantised(values, scale)


def _without(leaf: Any, axes: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """An abstract array without some of its axes."""
    kept = [axis for axis in range(leaf.ndim) if axis not in axes]
    spec = (*leaf.sharding.spec, *(None,) * leaf.ndim)
    sharding = NamedSharding(leaf.sharding.mesh, P(*(spec[axis] for axis in kept)))
    return jax.ShapeDtypeStruct(tuple(leaf.shape[axis] for axis in kept), leaf.dtype, sharding=sharding)
