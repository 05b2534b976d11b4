"""A decoder's parameters before there are any: random, or what shapes, types and places they are to have."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_sft.config import LoraConfig, ModelConfig
from jax_sft.errors import UsageError
from jax_sft.models import Params
from jax_sft.models.decoder import FULL, init_params
from jax_sft.sharding import RULES, Rules, place_abstract


def init_plain(config: ModelConfig, key: jax.Array, dtype: Any, lora: LoraConfig = FULL) -> Params:
    """Random parameters in a type, without the names of their axes."""
    return nn.unbox(_in_dtype(init_params(config, key, lora), dtype))


def boxed_params(config: ModelConfig, dtype: Any, lora: LoraConfig = FULL) -> Params:
    """Shapes and types of the parameters, carrying their logical axis names."""
    return jax.eval_shape(lambda: _in_dtype(init_params(config, jax.random.key(0), lora), dtype))


def abstract_params(
    config: ModelConfig,
    dtype: Any = jnp.float32,
    mesh: Mesh | None = None,
    rules: Rules = RULES,
    lora: LoraConfig = FULL,
) -> Params:
    """Shapes and types of the parameters, and on a mesh their shardings by `rules`."""
    boxed = boxed_params(config, dtype, lora)
    return nn.unbox(boxed) if mesh is None else place_abstract(boxed, mesh, rules)


def _in_dtype(params: Params, dtype: Any) -> Params:
    return jax.tree.map(lambda p: p.astype(dtype), params)


def on_host(wanted: Params) -> Params:
    """The same shapes and types, in the memory of the host: as numpy arrays, by whoever reads them."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), wanted)


def check_whole(params: Params, wanted: Params) -> None:
    """UsageError unless arrays are there as `wanted` (abstract) says: all, no more, shapes, types, places.

    Those of the host have no place yet.
    """
    have, want = (
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params, wanted)
    )
    for name in sorted(have.keys() ^ want.keys()):
        raise UsageError(f"weights: {name} is {'missing' if name in want else 'not of this model'}")
    for name, leaf in want.items():
        found = have[name]
        if (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
            raise UsageError(
                f"weights: {name} is {found.dtype} {list(found.shape)}, not {leaf.dtype} {list(leaf.shape)}"
            )
        if isinstance(found, np.ndarray):
            continue
        place = getattr(found, "sharding", None)
        if place is None or not place.is_equivalent_to(leaf.sharding, len(leaf.shape)):
            raise UsageError(f"weights: {name} lies as {place}, not as {leaf.sharding}")
