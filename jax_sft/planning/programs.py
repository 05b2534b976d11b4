"""The two programs that a plan compiles, traced over a slice that is not there: train step and decode."""

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from jax_sft.config import EvaluationConfig, ParallelismConfig, Run, replace
from jax_sft.errors import UsageError
from jax_sft.generation.engine import Engine
from jax_sft.generation.slots import Slots, empty_slots, slot_shardings
from jax_sft.planning.topologies import Topology, parse_topology
from jax_sft.sharding import MESH_AXES, check_batch, make_mesh
from jax_sft.studies import run_from_json, run_to_json
from jax_sft.training.step import DeviceBatch, PackedRows, abstract_state, batch_shardings, compile_step

Kind = Literal["train", "decode"]
TOTAL_STEPS = 1000
"""Stands in for the run's number of steps: a constant of the program that changes nothing measured."""


@dataclass(frozen=True)
class Program:
    """What to compile: the parts of a run that the program depends on, and the slice it is for."""

    kind: Kind
    run: Run
    topology: Topology
    micro_batches: int = 1
    """Most micro-batches of a step (train)."""
    evaluation: EvaluationConfig | None = None
    """Shape of the engine (decode)."""

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads; equal for programs that are the same."""
        return {
            "kind": self.kind,
            "run": run_to_json(self.run),
            "chips": self.topology.label,
            "micro_batches": self.micro_batches,
            "evaluation": asdict(self.evaluation) if self.evaluation else None,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Program":
        """The program that `to_json` wrote."""
        return Program(
            kind=value["kind"],
            run=run_from_json(value["run"]),
            topology=parse_topology(value["chips"]),
            micro_batches=value["micro_batches"],
            evaluation=EvaluationConfig(**value["evaluation"]) if value["evaluation"] else None,
        )


def train_program(run: Run, topology: Topology, row_length: int, micro_batches: int) -> Program:
    """The train step of a run, without what does not matter to it: runs that share it compile it once."""
    kept = Run(
        name="plan",
        compute_dtype=run.compute_dtype,
        param_dtype=run.param_dtype,
        remat=run.remat,
        model=run.model,
        optimizer=replace(run.optimizer, learning_rate=1e-5, schedule="cosine", warmup_fraction=0.1),
        parallelism=run.parallelism,
    )
    data = replace(kept.data, row_length=row_length, rows_per_micro_batch=run.data.rows_per_micro_batch)
    return Program("train", replace(kept, data=data), topology, micro_batches)


def decode_program(run: Run, topology: Topology, evaluation: EvaluationConfig) -> Program:
    """The decode step of the engine that sweeps a run's snapshots."""
    kept = replace(evaluation, seed=0, workers=1)
    return Program("decode", Run(name="plan", model=run.model), topology, evaluation=kept)


def mesh_of(program: Program, devices: list[Any]) -> Mesh:
    """The mesh a program runs on; several slices are laid out along `replica`.

    UsageError when the sizes do not multiply to the devices, or the slices do not divide `replica`.
    """
    parallelism = program.run.parallelism
    if program.kind == "decode":
        assert program.evaluation is not None
        parallelism = ParallelismConfig(tensor=program.evaluation.tensor)
    slices = program.topology.slices
    sizes = resolve_sizes(parallelism, program.topology)
    if slices == 1:
        if not program.topology.holds(tuple(sizes.values())):
            shape = "x".join(map(str, program.topology.shape))
            told = " x ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1)
            raise UsageError(
                f"parallelism {told} cannot be laid out on {shape} chips: each axis takes whole dimensions"
            )
        return make_mesh(parallelism, devices)
    if program.kind == "decode":
        sizes["replica"], sizes["fsdp"] = slices, sizes["fsdp"] // slices
    if sizes["replica"] % slices:
        raise UsageError(
            f"parallelism.replica {sizes['replica']}: {slices} slices hold copies of the parameters; make it "
            f"{slices} or a multiple"
        )
    # jax.make_mesh knows one slice only.
    inner = (sizes["replica"] // slices, *(sizes[axis] for axis in MESH_AXES[1:]))
    outer = (slices, *(1 for _ in MESH_AXES[1:]))
    grid = mesh_utils.create_hybrid_device_mesh(inner, outer, devices=devices)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def resolve_sizes(parallelism: ParallelismConfig, topology: Topology) -> dict[str, int]:
    """Sizes of the mesh axes on that slice, -1 resolved; UsageError when they do not make its devices."""
    sizes = {axis: int(getattr(parallelism, axis)) for axis in MESH_AXES}
    known = math.prod(size for size in sizes.values() if size > 0)
    sizes = {axis: topology.devices // known if size == -1 else size for axis, size in sizes.items()}
    if math.prod(sizes.values()) != topology.devices:
        told = " x ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise UsageError(
            f"parallelism {told} does not make the {topology.devices} devices of {topology.label}"
        )
    return sizes


def lower(program: Program, mesh: Mesh) -> Any:
    """The program traced and lowered for a mesh (`jax.stages.Lowered`).

    UsageError when mesh, model and batch do not fit one another.
    """
    return _lower_train(program, mesh) if program.kind == "train" else _lower_decode(program, mesh)


def _lower_train(program: Program, mesh: Mesh) -> Any:
    run = program.run
    check_batch(run.data, mesh)
    shardings = batch_shardings(mesh)
    shape = (program.micro_batches, run.data.rows_per_micro_batch, run.data.row_length)

    def array(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=shardings.rows.tokens)

    integers_MRT, floats_MRT = array(jnp.int32), array(jnp.float32)
    rows = PackedRows(integers_MRT, integers_MRT, integers_MRT, integers_MRT, floats_MRT)
    count: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=shardings.micro_batches)
    step: Any = compile_step(run, mesh, TOTAL_STEPS)
    with jax.set_mesh(mesh):
        return step.lower(abstract_state(run, mesh), DeviceBatch(rows, count))


def _lower_decode(program: Program, mesh: Mesh) -> Any:
    engine, slots = _engine(program, mesh)
    decode: Any = engine._decode
    with jax.set_mesh(mesh):
        return decode.lower(engine.abstract_params(), slots)


def _engine(program: Program, mesh: Mesh) -> tuple[Engine, Slots]:
    """The engine, and its slots as abstract arrays."""
    evaluation = program.evaluation
    assert evaluation is not None
    engine = Engine(program.run.model, evaluation, (0,), mesh)
    dtype = jnp.dtype(evaluation.compute_dtype)
    slots = jax.eval_shape(partial(empty_slots, program.run.model, engine.slots, evaluation.context, dtype))
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        slots,
        slot_shardings(slots, mesh),
    )
    return engine, placed


def state_bytes(program: Program, mesh: Mesh) -> dict[str, int]:
    """Bytes on one device of what the program is given: parameters, optimizer, batch, key/value cache."""
    if program.kind == "train":
        state = abstract_state(program.run, mesh)
        return {"parameters": _held(state.params), "optimizer": _held(state.opt_state)}
    engine, slots = _engine(program, mesh)
    return {"parameters": _held(engine.abstract_params()), "cache": _held(slots.cache)}


def _held(tree: Any) -> int:
    """Bytes of abstract arrays on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )
