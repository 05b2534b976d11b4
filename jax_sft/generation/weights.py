"""Weights as the engine's programs take them: each layer's by themselves, in the layout of their products.

Stacked over layers, a loop over tokens would copy each layer's part of them for every token: on a CPU all of
them, on a TPU those of the queries, and there also turn the projections to heads, which products read with
the model's width last, once a chunk.
"""

from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jax_sft.config import ModelConfig, replace
from jax_sft.models import Params
from jax_sft.models.decoder import LAYERS, part_layers
from jax_sft.models.quantised import Quantised, quantise_weights
from jax_sft.sharding import shardings_of

WeightDtype = Literal["same", "int8"]


def as_used(params: Params, config: ModelConfig, weight_dtype: WeightDtype) -> Params:
    """The parameters, stacked over layers and in the compute type, as programs take them."""
    return part_layers(_quantised(params, weight_dtype), config)


class Preparing:
    """Makes weights as programs take them; of those that come from the host no device ever holds two sets.

    They go over layer by layer; what a layer was made from is let go of before the
    next comes.
    """

    def __init__(self, config: ModelConfig, weight_dtype: WeightDtype, wanted: Params, platform: str) -> None:
        """Nothing is compiled yet. `wanted` says how the parameters lie on devices, abstractly."""
        layer = replace(config, num_layers=1)

        def layer_as_used(layers: Params, at: jax.Array) -> Params:
            taken = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, at, 1), layers)
            return as_used({LAYERS: taken}, layer, weight_dtype)[LAYERS][0]

        ready = formats(abstract_as_used(wanted, config, weight_dtype), platform)
        self._count, self._places = config.num_layers, shardings_of(wanted)
        self._layer = jax.jit(layer_as_used, out_shardings=ready[LAYERS][0])
        self._others = {
            name: jax.jit(
                lambda leaf, name=name: _quantised({name: leaf}, weight_dtype)[name], out_shardings=place
            )
            for name, place in ready.items()
            if name != LAYERS
        }

    def __call__(self, params: Params) -> Params:
        """The parameters, on the host or on devices as was said, as programs take them."""
        found = {
            name: jax.block_until_ready(make(jax.device_put(params[name], self._places[name])))
            for name, make in self._others.items()
        }
        return {**found, LAYERS: tuple(self._layers(params[LAYERS]))}

    def _layers(self, layers: Params) -> Iterator[Params]:
        on_host = all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(layers))
        for number in range(self._count):
            if on_host:
                here = slice(number, number + 1)
                taken = jax.tree.map(lambda leaf, here=here: leaf[here], layers)
                ready = self._layer(jax.device_put(taken, self._places[LAYERS]), np.int32(0))
            else:
                ready = self._layer(layers, np.int32(number))
            yield jax.block_until_ready(ready)


def _quantised(params: Params, weight_dtype: WeightDtype) -> Params:
    return quantise_weights(params) if weight_dtype == "int8" else params


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
