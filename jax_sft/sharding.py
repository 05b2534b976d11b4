"""The device mesh, and the one table from logical array axes to mesh axes.

Every parameter and activation names its axes (`embed`, `heads`, …); the table below says over which mesh
axes each is split. Parameters are sharded over `fsdp` and `sequence` along their model width and over
`tensor` along heads, MLP columns and vocabulary; batches over `replica` and `fsdp`, their tokens over
`sequence`.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_sft.config import ParallelismConfig
from jax_sft.errors import UsageError

MESH_AXES = ("replica", "fsdp", "sequence", "tensor")
BATCH_AXES = ("replica", "fsdp")
WEIGHT_AXES = ("fsdp", "sequence")
"""What a weight is gathered over before it is used."""
Rules = dict[str, str | tuple[str, ...] | None]
RULES: Rules = {
    "batch": BATCH_AXES,
    "time": "sequence",
    "embed": WEIGHT_AXES,
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
    "head_dim": None,
    "layers": None,
}
GENERATION_RULES = RULES | {"embed": None}
"""While generating, the data axes share the slots and each holds the weights whole: nothing is gathered."""


def make_mesh(parallelism: ParallelismConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh of `parallelism` over `devices` (all of them by default).

    On a TPU slice axes follow the links of its torus, the last axes the nearest neighbours; several slices
    are laid out along `replica`. UsageError when sizes do not make the devices, or slices do not divide
    `replica`.
    """
    devices = list(jax.devices()) if devices is None else devices
    sizes = tuple(axis_sizes(parallelism, len(devices)).values())
    slices = _slices(devices)
    if sizes[0] % slices:
        raise UsageError(
            f"parallelism.replica {sizes[0]}: {slices} slices hold copies of the parameters; make it "
            f"{slices} or a multiple"
        )
    # Weights are gathered over fsdp and sequence together: laid out as one axis, that is a plain collective.
    inner = (sizes[0] // slices, sizes[1] * sizes[2], sizes[3])
    if slices == 1:
        grid = mesh_utils.create_device_mesh(inner, devices, allow_split_physical_axes=True)
    else:
        outer = (slices, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(inner, outer, devices, allow_split_physical_axes=True)
    return Mesh(grid.reshape(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def make_generation_mesh(tensor: int, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh of a sweep: weights split over `tensor` devices of one slice, slots over all the others.

    By default of the devices of this process: the processes of a job generate each by itself. UsageError when
    `tensor` does not divide the devices.
    """
    devices = list(jax.local_devices()) if devices is None else devices
    if tensor > len(devices) and jax.process_count() > 1:
        raise UsageError(
            f"evaluation.tensor {tensor}: a process of this job has {len(devices)} devices, and each holds a "
            f"copy of the weights by itself; give it at most {len(devices)}"
        )
    return make_mesh(ParallelismConfig(replica=_slices(devices), tensor=tensor), devices)


def axis_sizes(parallelism: ParallelismConfig, devices: int) -> dict[str, int]:
    """Size of every mesh axis, -1 resolved; UsageError when they do not make that many devices."""
    sizes = [getattr(parallelism, axis) for axis in MESH_AXES]
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UsageError(
            f"parallelism: axis sizes are positive, at most one is -1; found {spell_axes(sizes)}"
        )
    known = math.prod(size for size in sizes if size > 0)
    sizes = [devices // known if size == -1 else size for size in sizes]
    if math.prod(sizes) != devices:
        raise UsageError(
            f"parallelism: {spell_axes(sizes)} makes {math.prod(sizes)} devices, but there are {devices}"
        )
    return dict(zip(MESH_AXES, sizes, strict=True))


def _slices(devices: list[jax.Device]) -> int:
    """How many TPU slices the devices belong to, joined by the data centre network."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(device, "slice_index", 0) for device in devices})


def spell_axes(sizes: list[int]) -> str:
    """`replica=1 x fsdp=8 x …` for the sizes of all mesh axes."""
    return " x ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, sizes, strict=True))


def place_abstract(tree: Any, mesh: Mesh, rules: Rules = RULES) -> Any:
    """ShapeDtypeStructs with shardings for abstract arrays, some boxed with their axis names (Linen).

    Unboxed leaves are replicated. An axis whose size the mesh axis does not divide stays whole when it is
    the vocabulary and is a UsageError otherwise.
    """

    def place(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        value = nn.unbox(leaf)
        names = leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else (None,) * value.ndim
        where = jax.tree_util.keystr(path)
        axes = [
            _mesh_axis(where, rules[name] if name else None, name, size, mesh)
            for name, size in zip(names, value.shape, strict=True)
        ]
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=NamedSharding(mesh, P(*axes)))

    return jax.tree_util.tree_map_with_path(place, tree, is_leaf=_is_box)


def _is_box(leaf: Any) -> bool:
    return isinstance(leaf, nn.meta.AxisMetadata)


def _mesh_axis(
    where: str, axis: str | tuple[str, ...] | None, name: str | None, size: int, mesh: Mesh
) -> str | tuple[str, ...] | None:
    axes = (axis,) if isinstance(axis, str) else axis or ()
    ways = math.prod(mesh.shape[each] for each in axes)
    if size % ways == 0:
        return axis
    if name == "vocab":
        return None
    asked = " x ".join(f"{each}={mesh.shape[each]}" for each in axes)
    raise UsageError(f"parallelism: {where}: {name} has size {size}, which {asked} does not divide")


def shardings_of(tree: Any) -> Any:
    """The sharding of every array of a tree, abstract or not."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def batch_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """Sharding of an array whose axis number `leading` is the batch."""
    return NamedSharding(mesh, P(*([None] * leading), BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of a value that every device holds whole."""
    return NamedSharding(mesh, P())


def platform() -> str:
    """`tpu`, `gpu` or `cpu`: what the mesh that is set is made of, or without one the devices here."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return jax.default_backend()
    kind = device.device_kind.lower()
    return next((name for name in ("tpu", "cpu") if name in kind), "gpu")


def alone() -> bool:
    """Whether no mesh of several devices is set: no array is split, so that axes may be joined."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or mesh.size == 1


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Ask for the layout that the table gives `x`, whose axes are named; nothing outside a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    return jax.lax.with_sharding_constraint(x, P(*(RULES[axis] if axis else None for axis in axes)))


def split_over(compute: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`compute` on what each device of the mesh that is set holds of its arguments, as the specs say."""
    if alone():
        return compute
    return jax.shard_map(compute, in_specs=in_specs, out_specs=out_specs, check_vma=False)
