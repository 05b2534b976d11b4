"""Where the arrays of a batch lie: which packed rows each device holds, and whether they divide at all."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jax_sft.config import DataConfig
from jax_sft.data.batches import Batch
from jax_sft.errors import UsageError
from jax_sft.models.kernels.splash import ATTENTION_BLOCK
from jax_sft.packed import TYPES, Rows
from jax_sft.sharding import BATCH_AXES, MESH_AXES, batch_sharding, replicated, spell_axes

LONGEST_PLAIN = 2048
"""Most tokens of a row for which attention does without the kernel."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DeviceBatch:
    """The packed rows of one step, of whose M micro-batches only the first `micro_batches` are real."""

    rows: Rows
    """Arrays [M, R, T]."""
    micro_batches: jax.Array


def check_batch(data: DataConfig, mesh: Mesh) -> None:
    """UsageError unless packed rows divide among the data axes, and their tokens among `sequence`.

    On TPU a device's share of a long row must also divide into blocks of the attention kernel: without it,
    attention to a long row takes too much memory.
    """
    sizes: list[tuple[str, int, tuple[str, ...]]]
    sizes = [("rows_per_micro_batch", data.rows_per_micro_batch, BATCH_AXES)]
    lengths = [("row_lengths", length) for length in data.row_lengths] or [("row_length", data.row_length)]
    sizes += [(name, length, ("sequence",)) for name, length in lengths]
    shape = spell_axes([mesh.shape[axis] for axis in MESH_AXES])
    for name, size, axes in sizes:
        ways = math.prod(mesh.shape[axis] for axis in axes)
        if size % ways:
            raise UsageError(f"data.{name} {size} does not divide by {ways}, as parallelism {shape} asks")
    on_tpu = mesh.devices.flat[0].platform == "tpu"
    for name, length in lengths if on_tpu else []:
        tokens = length // mesh.shape["sequence"]
        if tokens > LONGEST_PLAIN and tokens % ATTENTION_BLOCK:
            raise UsageError(
                f"data.{name} {length} puts {tokens} tokens of a row on a device; the attention kernel "
                f"works on blocks of {ATTENTION_BLOCK}: make it a multiple of "
                f"{ATTENTION_BLOCK * mesh.shape['sequence']}"
            )


def batch_shardings(mesh: Mesh) -> Any:
    """The shardings of a `DeviceBatch`: all arrays of rows over the data axes, the count everywhere."""
    rows: Any = batch_sharding(mesh, leading=1)
    count: Any = replicated(mesh)
    return DeviceBatch(rows, count)


def abstract_batch(shape: tuple[int, int, int], mesh: Mesh) -> DeviceBatch:
    """Shapes, types and shardings of a batch of M micro-batches of R packed rows of T tokens."""
    where = batch_shardings(mesh)
    rows = Rows(*(jax.ShapeDtypeStruct(shape, dtype, sharding=where.rows) for dtype in TYPES))
    count: Any = jax.ShapeDtypeStruct((), np.int32, sharding=where.micro_batches)
    return DeviceBatch(rows, count)


def held_rows(rows_per_micro_batch: int, mesh: Mesh) -> list[int]:
    """Packed rows of a micro-batch that devices of this process hold."""
    parts = batch_sharding(mesh).addressable_devices_indices_map((rows_per_micro_batch,)).values()
    places = range(rows_per_micro_batch)
    return sorted({place for part in parts if part is not None for place in places[part[0]]})


def place_batch(batch: Batch, mesh: Mesh) -> DeviceBatch:
    """A batch on the devices; every process puts down what its own devices hold (`held_rows`)."""

    def put(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
        parts = sharding.addressable_devices_indices_map(x.shape)
        shards = jax.device_put([x[part] for part in parts.values()], list(parts))
        return jax.make_array_from_single_device_arrays(x.shape, sharding, shards)

    where = batch_shardings(mesh)
    rows = jax.tree.map(lambda x_MRT: put(x_MRT, where.rows), batch.rows)
    return DeviceBatch(rows, put(np.asarray(batch.micro_batches, np.int32), where.micro_batches))
