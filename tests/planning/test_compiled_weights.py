"""A layer's weights as a change of snapshot puts them on a TPU, by its own compiler."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jax_sft.config import EvaluationConfig
from jax_sft.generation.engine import Engine
from jax_sft.models.families import PRESETS
from jax_sft.planning.topologies import parse_topology
from jax_sft.sharding import make_generation_mesh

V6E = parse_topology("v6e:4")
MIB = 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tensor", "weight_dtype", "read", "ready"), [(1, "same", 369, 369), (4, "int8", 93, 47)]
)
def test_a_layer_of_qwen3_8b_takes_its_own_bytes_and_no_more(
    libtpu: Any, tensor: int, weight_dtype: Any, read: int, ready: int
) -> None:
    mesh = make_generation_mesh(tensor, libtpu(V6E))
    shape = EvaluationConfig(slots=32, context=2048, tensor=tensor, weight_dtype=weight_dtype)
    engine = Engine(PRESETS["qwen3-8b"], shape, (0,), mesh)
    layer = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype, sharding=leaf.sharding),
        engine.abstract_params()["layers"],
    )
    with jax.set_mesh(mesh):
        compiled = engine._ready._layer.lower(layer, jax.ShapeDtypeStruct((), jnp.int32)).compile()
    memory: Any = compiled.memory_analysis()
    assert memory.argument_size_in_bytes < read * MIB
    assert memory.output_size_in_bytes < ready * MIB
    assert memory.temp_size_in_bytes < MIB
    formats: Any = compiled.output_formats
    query = jax.tree.leaves(formats["attention"]["q"]["kernel"])[0]
    assert query.layout.major_to_minor == (1, 2, 0), "as products read it"
