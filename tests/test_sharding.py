"""The mesh, the table from logical axes to mesh axes, and every way they can fail to fit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jax_sft.config import ModelConfig, ParallelismConfig
from jax_sft.errors import UsageError
from jax_sft.models.decoder import init_params
from jax_sft.sharding import (
    GENERATION_RULES,
    RULES,
    WEIGHT_AXES,
    Rules,
    constrain,
    make_mesh,
    place_abstract,
)

MODEL = ModelConfig(vocab_size=97, hidden_size=32, num_heads=4, num_kv_heads=2, head_dim=8, mlp_size=48)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ({}, (1, 8, 1, 1)),
        ({"fsdp": 4, "tensor": 2}, (1, 4, 1, 2)),
        ({"replica": 2}, (2, 4, 1, 1)),
        ({"replica": 2, "fsdp": 2, "sequence": 2, "tensor": 1}, (2, 2, 2, 1)),
        ({"fsdp": 1, "tensor": -1}, (1, 1, 1, 8)),
    ],
)
def test_mesh_shapes(axes: dict[str, int], shape: tuple[int, ...]) -> None:
    mesh = make_mesh(ParallelismConfig(**axes))
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_names == ("replica", "fsdp", "sequence", "tensor")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"fsdp": 3}, "replica=1 x fsdp=3 x sequence=1 x tensor=1 makes 3 devices, but there are 8"),
        ({"tensor": 3}, "makes 6 devices, but there are 8"),
        ({"fsdp": 16}, "makes 16 devices, but there are 8"),
        ({"replica": 16}, "makes 0 devices, but there are 8"),
        ({"replica": -1}, "at most one is -1"),
        ({"fsdp": 0}, "axis sizes are positive"),
        ({"tensor": -2}, "axis sizes are positive"),
    ],
)
def test_meshes_that_do_not_fit(axes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_mesh(ParallelismConfig(**axes))
    assert str(caught.value).startswith("parallelism: ")
    assert message in str(caught.value)


def specs(mesh: jax.sharding.Mesh, rules: Rules = RULES) -> dict[str, P]:
    boxed = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(place_abstract(boxed, mesh, rules))
    return {"/".join(key.key for key in path): leaf.sharding.spec for path, leaf in leaves}


def test_parameters_are_laid_out_by_the_table() -> None:
    placed = specs(make_mesh(ParallelismConfig(fsdp=4, tensor=2)))
    assert placed["layers/attention/q/kernel"] == P(None, WEIGHT_AXES, "tensor", None)
    assert placed["layers/attention/o/kernel"] == P(None, "tensor", None, WEIGHT_AXES)
    assert placed["layers/mlp/down/kernel"] == P(None, "tensor", WEIGHT_AXES)
    assert placed["layers/mlp_norm/scale"] == P(None, WEIGHT_AXES)
    assert placed["embed/embedding"] == P(None, WEIGHT_AXES), "97 entries do not divide by 2 and stay whole"


def test_generation_keeps_the_width_whole() -> None:
    placed = specs(make_mesh(ParallelismConfig(fsdp=4, tensor=2)), GENERATION_RULES)
    assert placed["layers/attention/q/kernel"] == P(None, None, "tensor", None)


def test_what_does_not_divide_is_named() -> None:
    with pytest.raises(UsageError, match=r"kv_heads has size 2, which tensor=4 does not divide"):
        specs(make_mesh(ParallelismConfig(fsdp=2, tensor=4)))


def test_leaves_without_names_are_replicated() -> None:
    mesh = make_mesh(ParallelismConfig())
    tree = {
        "plain": jax.ShapeDtypeStruct((3,), jnp.int32),
        "boxed": nn.LogicallyPartitioned(jax.ShapeDtypeStruct((8, 5), jnp.float32), ("embed", None)),
    }
    placed = place_abstract(tree, mesh)
    assert placed["plain"].sharding.spec == P(None)
    assert placed["boxed"].sharding.spec == P(WEIGHT_AXES, None)


def test_constrain_asks_inside_a_mesh_and_does_nothing_outside() -> None:
    x = jnp.zeros((8, 4))
    assert constrain(x, "batch", None) is x
    mesh = make_mesh(ParallelismConfig(replica=2))
    with jax.set_mesh(mesh):
        out = jax.jit(lambda x: constrain(x, "batch", None))(x)
    assert out.sharding.spec == P(("replica", "fsdp"))
