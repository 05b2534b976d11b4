"""What a plan compiles, traced over a slice that is not there: train step, decode and prefill."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jax_sft.config import EvaluationConfig, Run, replace
from jax_sft.generation.engine import Engine
from jax_sft.planning.topologies import Topology, parse_topology
from jax_sft.sharding import make_generation_mesh, make_mesh
from jax_sft.study.document import run_from_json, run_to_json
from jax_sft.training.placement import abstract_batch, check_batch
from jax_sft.training.step import abstract_state, compile_step

Kind = Literal["train", "decode", "prefill"]
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
        loss=run.loss,
        lora=run.lora,
        remat=run.remat,
        optimizer_memory=run.optimizer_memory,
        model=run.model,
        optimizer=replace(run.optimizer, learning_rate=1e-5, schedule="cosine", warmup_fraction=0.1),
        parallelism=run.parallelism,
    )
    data = replace(kept.data, row_length=row_length, rows_per_micro_batch=run.data.rows_per_micro_batch)
    return Program("train", replace(kept, data=data), topology, micro_batches)


def engine_program(
    kind: Literal["decode", "prefill"], run: Run, topology: Topology, evaluation: EvaluationConfig
) -> Program:
    """A program of the engine that sweeps a run's snapshots."""
    kept = replace(evaluation, seed=0, workers=1)
    return Program(kind, Run(name="plan", model=run.model), topology, evaluation=kept)


def mesh_of(program: Program, devices: list[Any]) -> Mesh:
    """The mesh a program runs on; UsageError when it cannot be made of the devices."""
    if program.evaluation is not None:
        return make_generation_mesh(program.evaluation.tensor, devices)
    return make_mesh(program.run.parallelism, devices)


def lower(program: Program, mesh: Mesh) -> tuple[Any, dict[str, int]]:
    """The program traced and lowered for a mesh (`jax.stages.Lowered`), and the bytes that it keeps.

    The bytes are those on one device, of parameters, optimizer and key/value cache. UsageError when mesh,
    model and batch do not fit one another.
    """
    return _lower_train(program, mesh) if program.kind == "train" else _lower_engine(program, mesh)


def _lower_train(program: Program, mesh: Mesh) -> tuple[Any, dict[str, int]]:
    run = program.run
    check_batch(run.data, mesh)
    wanted = abstract_state(run, mesh)
    shape = (program.micro_batches, run.data.rows_per_micro_batch, run.data.row_length)
    step: Any = compile_step(run, wanted, TOTAL_STEPS)
    with jax.set_mesh(mesh):
        lowered = step.lower(wanted, abstract_batch(shape, mesh))
    return lowered, {"parameters": held(wanted.params), "optimizer": held(wanted.opt_state)}


def _lower_engine(program: Program, mesh: Mesh) -> tuple[Any, dict[str, int]]:
    assert program.evaluation is not None
    engine = Engine(program.run.model, program.evaluation, (0,), mesh)
    wanted, slots = engine.abstract_ready(), engine.abstract_slots()
    lowered = engine.lower_decode() if program.kind == "decode" else engine.lower_prefill()
    return lowered, {"parameters": held(wanted), "cache": held(slots.layers)}


def held(tree: Any) -> int:
    """Bytes of abstract arrays in the memory of one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * jnp.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
        if leaf.sharding.memory_kind != "pinned_host"
    )
