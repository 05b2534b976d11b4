"""What a sweep takes on a slice: decode and prefill as compiled, and what is alive counted beside them.

The programs repeat one layer, so they are compiled with two depths and carried on to the model's own. What
the attention kernel reads and computes is data, and counted here by arithmetic: blocks of whole pages for as
many positions as sequences have in the middle of their completions.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp

from jax_sft.config import EvaluationConfig, ModelConfig, Run, replace
from jax_sft.errors import JaxSftError
from jax_sft.generation.shapes import shape_of
from jax_sft.models.kernels.paged import block_tokens, page_shape
from jax_sft.models.size import model_size
from jax_sft.planning.compiling import Facts, compile_facts
from jax_sft.planning.expected import SweepWorkload
from jax_sft.planning.hlo import Cost
from jax_sft.planning.hlo.cycles import VECTOR_LANES
from jax_sft.planning.programs import engine_program
from jax_sft.planning.roofline import Roofline, roofline
from jax_sft.planning.topologies import Topology

if TYPE_CHECKING:
    from jax_sft.planning.costing import Settings

DEPTHS = (1, 2)
"""Layers that are compiled."""
MASK_OPERATIONS = {1: 7, 2: 4, 4: 1}
"""That the kernel makes of each entry of keys and values to read it, by its bytes."""
SCORE_OPERATIONS, QUERY_ROWS = 8, 8
"""Of each score; so many queries at least share a register."""


@dataclass(frozen=True)
class SweepPlan:
    """The sweep of one snapshot on a slice. Bytes and FLOPs are per device, of a token of every sequence."""

    facts: Facts
    decode: Roofline
    prefill: Roofline
    """Of one call."""
    prefill_tokens: int
    """Of one call, all devices together."""
    prefill_chunk: int
    """Of one prompt in a call."""
    sequences: float
    """Decoded at once: slots, or fewer if pages hold fewer."""
    live: float
    """Positions of a sequence, on the mean while it is decoded."""
    useful_bytes: float
    """Weights and living keys and values."""
    work: SweepWorkload
    fits: bool

    @property
    def useful(self) -> float:
        """Share of the bytes moved that are weights or alive."""
        return self.useful_bytes / self.decode.hbm_bytes

    @property
    def tokens_per_second(self) -> tuple[float, float]:
        """Of all devices together, when nothing overlaps and when all does."""
        return self.sequences / self.decode.serial, self.sequences / self.decode.bound

    def seconds(self) -> tuple[float, float]:
        """Of a snapshot's sweep, when all overlaps and when nothing does."""
        steps = self.work.tokens / self.sequences
        chunks = max(1.0, self.work.prompt_tokens / self.prefill_chunk)
        calls = self.work.prompts * chunks * self.prefill_chunk / self.prefill_tokens
        return (
            steps * self.decode.bound + calls * self.prefill.bound,
            steps * self.decode.serial + calls * self.prefill.serial,
        )


@dataclass(frozen=True)
class Attention:
    """What one device's kernel does for a token of one sequence with so many positions, in all layers."""

    model: ModelConfig
    evaluation: EvaluationConfig
    page: int

    def _shape(self) -> tuple[int, int, int, int]:
        kv_dtype = self.evaluation.kv_dtype
        dtype = jnp.dtype(self.evaluation.compute_dtype if kv_dtype == "same" else kv_dtype)
        tensor, model = self.evaluation.tensor, self.model
        _, _, heads, width = page_shape(1, self.page, model.num_kv_heads, model.head_dim, dtype, tensor)
        return self.page, heads // tensor, width, dtype.itemsize

    def position_bytes(self) -> int:
        """Of one position."""
        _, heads, width, size = self._shape()
        return self.model.num_layers * heads * width * size

    def read_bytes(self, live: float) -> float:
        """Whole blocks: half of one more than is alive."""
        return self.position_bytes() * (live + block_tokens(*self._shape()) / 2)

    def flops(self, live: float) -> float:
        """Scores and values."""
        model = self.model
        return 4.0 * model.num_layers * model.num_heads * model.head_dim * live / self.evaluation.tensor

    def cycles(self, live: float) -> float:
        """Of the vector units: entries of keys and values made readable, scores made weights."""
        _, heads, width, size = self._shape()
        rows = max(QUERY_ROWS, self.model.num_heads // self.model.num_kv_heads)
        operations = heads * width * MASK_OPERATIONS[size] + heads / 2 * rows * SCORE_OPERATIONS
        return self.model.num_layers * live * operations / VECTOR_LANES

    def beside(self, cost: Cost, topology: Topology, tokens: float, live: float, shared: int = 1) -> Roofline:
        """The roofline of a program's cost with attention of so many tokens of a device to `live` positions.

        `shared` tokens that follow one another read them once. What the vector units take longer than memory
        for the same keys and values counts with the elementwise work.
        """
        alone, chip = roofline(cost, topology, {}), topology.chip
        read, flops = tokens * self.read_bytes(live) / shared, tokens * self.flops(live)
        hbm_seconds = read * chip.devices / chip.hbm_bandwidth
        waiting = max(0.0, tokens / shared * self.cycles(live) / chip.clock - hbm_seconds)
        return dataclasses.replace(
            alone,
            kernel_flops=flops,
            hbm_bytes=alone.hbm_bytes + read,
            compute_seconds=alone.compute_seconds + flops * chip.devices / chip.peak_flops,
            hbm_seconds=alone.hbm_seconds + hbm_seconds,
            elementwise_seconds=cost.cycles / chip.clock + waiting,
        )


def plan_sweep(
    run: Run, evaluation: EvaluationConfig, work: SweepWorkload, topology: Topology, settings: "Settings"
) -> SweepPlan | None:
    """Compile decode and prefill; None when the study draws nothing. JaxSftError when they do not fit."""
    if not work.completions:
        return None
    shards = topology.devices // evaluation.tensor
    shape = shape_of(evaluation, "tpu", shards, 1)
    facts, token = _carried_on("decode", run, topology, evaluation, settings)
    _, call = _carried_on("prefill", run, topology, evaluation, settings)
    live = min(work.live, evaluation.context)
    held = min(live + shape.page / 2, shape.columns * shape.page)
    sequences = min(shape.slots, shape.pages * shape.page / held)
    attention, each = Attention(run.model, evaluation, shape.page), sequences / shards
    prompts, half = shape.prefill_rows * shape.prefill_chunk, work.prompt_tokens / 2
    return SweepPlan(
        facts=facts,
        decode=attention.beside(token, topology, each, live),
        prefill=attention.beside(call, topology, prompts / shards, half, shape.prefill_chunk),
        prefill_tokens=prompts,
        prefill_chunk=shape.prefill_chunk,
        sequences=sequences,
        live=live,
        useful_bytes=facts.memory["parameters"]
        - unread_bytes(run.model, evaluation)
        + each * live * attention.position_bytes(),
        work=work,
        fits=facts.peak <= settings.hbm_share * topology.hbm_bytes,
    )


def unread_bytes(model: ModelConfig, evaluation: EvaluationConfig) -> float:
    """Of the weights of a device: an embedding that is no head gives a row a token."""
    if model.tie_embeddings:
        return 0.0
    size = 1 if evaluation.weight_dtype == "int8" else jnp.dtype(evaluation.compute_dtype).itemsize
    return model_size(model).head * size / evaluation.tensor


def _carried_on(
    kind: Literal["decode", "prefill"],
    run: Run,
    topology: Topology,
    evaluation: EvaluationConfig,
    how: "Settings",
) -> tuple[Facts, Cost]:
    """Facts of a program and the cost of one of its tokens or calls, for all layers of the model."""
    depths = [depth for depth in DEPTHS if depth < run.model.num_layers]
    depths = depths if len(depths) == len(DEPTHS) else [run.model.num_layers]
    compiled, costs = [], []
    for depth in depths:
        less = replace(run, model=replace(run.model, num_layers=depth))
        facts = compile_facts(engine_program(kind, less, topology, evaluation), how.cache, how.timeout)
        if facts.cost is None:
            raise JaxSftError(
                f"run {run.name}: {depth} layers of the {kind} program on {topology.label} need "
                f"{facts.peak / 2**30:.1f} GiB, there are {topology.hbm_bytes / 2**30:.1f}: raise "
                "evaluation.tensor or lower evaluation.slots or pages"
            )
        tokens = evaluation.chunk if kind == "decode" else 1
        cost = Cost()
        cost.add(facts.cost.total((tokens,)), 1 / tokens)
        compiled.append(facts)
        costs.append(cost)
    if len(depths) == 1:
        return compiled[0], costs[0]
    more = (run.model.num_layers - depths[0]) / (depths[1] - depths[0])
    cost = Cost()
    cost.add(costs[0], 1 - more)
    cost.add(costs[1], more)
    first, second = compiled
    return dataclasses.replace(first, memory=_memory_of_all(first.memory, second.memory, more)), cost


def _memory_of_all(first: Mapping[str, float], second: Mapping[str, float], more: float) -> dict[str, float]:
    """Bytes by kind, of programs of two depths carried on by `more` times their difference.

    Temporaries may be fewer with two layers, where the compiler finds room among what a layer leaves: they do
    not go on falling, and the peak is never below what is held all the time with them.
    """
    memory = {name: max(0.0, size + more * (second[name] - size)) for name, size in first.items()}
    temporaries = [depth.get("temporaries", 0.0) for depth in (first, second)]
    held = memory["parameters"] + memory.get("cache", 0.0)
    memory["temporaries"] = max(*temporaries, memory.get("temporaries", 0.0))
    memory["peak"] = max(memory["peak"], held + min(temporaries))
    return memory
