"""The generation engine: prompts in, completions out, through one compiled decode program.

Up to `slots` sequences are decoded at once, `chunk` tokens between two looks at which have ended; a slot that
ended is refilled with the next prompt. Keys and values lie in pages (`models.memory`), so that memory holds
and attention reads what is alive. The weights are an argument, so one engine serves every snapshot.
A completion depends only on the weights, its prompt, its settings and its key: never on its slot, its pages,
its neighbours, the order in which requests arrive or a loss of memory on the way. Who gets which slot and
which pages is `schedule`'s business.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.sampling import completion_key, penalises, slot_sampling
from jax_sft.generation.schedule import Plan, Schedule, check
from jax_sft.generation.sequences import Landed
from jax_sft.generation.shapes import shape_of
from jax_sft.generation.shards import empty_prefill
from jax_sft.generation.slots import (
    Chunk,
    Decoding,
    Slots,
    Turn,
    decode,
    empty_progress,
    prefill,
    slot_shardings,
)
from jax_sft.generation.watch import Watch
from jax_sft.generation.weights import Preparing, abstract_as_used, formats
from jax_sft.models import Params
from jax_sft.models.calibration import calibrate
from jax_sft.models.memory import Layers, Orders, memory_of
from jax_sft.models.params import abstract_params, check_whole
from jax_sft.sharding import GENERATION_RULES, batch_sharding, replicated, shardings_of


class Engine:
    """A compiled decoder for one model shape."""

    def __init__(
        self, model: ModelConfig, evaluation: EvaluationConfig, stop_ids: tuple[int, ...], mesh: Mesh
    ) -> None:
        """Nothing is compiled yet. UsageError when pages and contexts do not fit one another."""
        self.model, self.evaluation, self.stop_ids, self.mesh = model, evaluation, stop_ids, mesh
        platform = mesh.devices.flat[0].platform
        self.memory = memory_of(platform, eight_bits=evaluation.kv_dtype != "same")
        self.shape = shape_of(
            evaluation, platform, mesh.shape["replica"] * mesh.shape["fsdp"], self.memory.units
        )
        self.ahead = 0 if platform == "cpu" else 1
        """Chunks that the device is given before the one before them is looked at: it goes on while the host
        works, and a slot that ended is refilled a chunk later. Nothing is gained where both are a CPU."""
        self.decode_compilations = 0
        """Times the decode program was traced; 1 after any number of snapshots."""
        self._params: Params | None = None
        self._scales: tuple[Any, ...] = ()
        """Of keys and values in 8-bit integers, on the host."""
        self.schedule: Schedule | None = None
        """Of the requests that are being answered, or were last."""
        self._compile()

    def _compile(self) -> None:
        """The programs. Slots keep one layout from call to call and are updated in place (donated)."""
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        how = Decoding(self.model, self.memory, dtype, self.shape.chunk, self.stop_ids)
        in_slots = shardings_of(self.abstract_slots())
        platform = self.mesh.devices.flat[0].platform
        in_params = formats(self.abstract_ready(), platform)
        whole, self._rows = replicated(self.mesh), batch_sharding(self.mesh)

        def counted_decode(params: Params, slots: Slots, turn: Turn) -> tuple[Slots, Chunk]:
            self.decode_compilations += 1
            return decode(params, slots, turn, how)

        def prefill_slots(params: Params, slots: Slots, orders: Orders) -> Slots:
            return prefill(params, slots, orders, self.model, self.memory, dtype)

        def copy(slots: Slots, from_B: jax.Array, to_B: jax.Array) -> Slots:
            return Slots(self.memory.copy(slots.layers, from_B, to_B), slots.progress)

        self._calibrate = jax.jit(lambda params: calibrate(params, self.model, dtype))
        self._ready = Preparing(self.model, self.evaluation.weight_dtype, self.abstract_params(), platform)
        self._empty = jax.jit(self._make_slots, out_shardings=in_slots)
        self._decode = jax.jit(
            counted_decode,
            in_shardings=(in_params, in_slots, self._rows),
            out_shardings=(in_slots, whole),
            donate_argnums=1,
        )
        self._prefill = jax.jit(
            prefill_slots,
            in_shardings=(in_params, in_slots, self._rows),
            out_shardings=in_slots,
            donate_argnums=1,
        )
        self._copy = jax.jit(
            copy, in_shardings=(in_slots, self._rows, self._rows), out_shardings=in_slots, donate_argnums=0
        )

    @property
    def slots(self) -> int:
        """Sequences decoded at once."""
        return self.shape.slots

    def abstract_params(self) -> Params:
        """Shapes, types (the compute type) and shardings in which the engine wants the weights."""
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        return abstract_params(self.model, dtype, self.mesh, GENERATION_RULES)

    def abstract_ready(self) -> Params:
        """The weights as the programs take them."""
        return abstract_as_used(self.abstract_params(), self.model, self.evaluation.weight_dtype)

    def abstract_slots(self) -> Slots:
        """Shapes, types and shardings of what the device holds of all slots."""
        with jax.set_mesh(self.mesh):
            slots = jax.eval_shape(self._make_slots)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            slots,
            slot_shardings(slots, self.memory, self.mesh),
        )

    def _make_slots(self) -> Slots:
        kv_dtype = self.evaluation.kv_dtype
        dtype = jnp.dtype(self.evaluation.compute_dtype if kv_dtype == "same" else kv_dtype)
        counted = self.model.vocab_size if self.evaluation.penalties else 0
        layers = self.memory.empty(self.model, self.shape.pages, self.shape.page, dtype)
        return Slots(layers, empty_progress(self.shape.slots, counted))

    def lower_decode(self) -> jax.stages.Lowered:
        """The decode program, traced and lowered for the engine's mesh."""
        B, N = self.shape.slots, self.shape.columns
        nothing = Plan(
            [], [], *(np.zeros(B, bool), np.zeros((B, N), np.int32)), *(np.zeros(B, np.int32),) * 2, True
        )
        turn = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._rows),
            make_turn(nothing, B, 0),
        )
        with jax.set_mesh(self.mesh):
            return self._decode.lower(self.abstract_ready(), self.abstract_slots(), turn)

    def lower_prefill(self) -> jax.stages.Lowered:
        """The prefill program, as `lower_decode`."""
        orders = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self._rows),
            Orders(*map(jnp.asarray, empty_prefill(self.shape))),
        )
        with jax.set_mesh(self.mesh):
            return self._prefill.lower(self.abstract_ready(), self.abstract_slots(), orders)

    def load(self, params: Params) -> None:
        """Decode with these weights from now on; UsageError unless they are as `abstract_params` says.

        They may lie on the host, as numpy arrays. What was loaded before is let go of first: the devices need
        memory for one set of weights.
        """
        check_whole(params, self.abstract_params())
        self.unload()
        with jax.set_mesh(self.mesh):
            self._params = self._ready(params)
            if self.evaluation.kv_dtype == "int8":
                self._scales = jax.device_get(self._calibrate(self._params))

    def unload(self) -> None:
        """Let go of the weights; the devices' memory is free for others."""
        self._params, self._scales = None, ()

    def generate(self, requests: Iterable[Request], seed: int = 0) -> Iterator[tuple[Request, Completion]]:
        """Each request with its completion, in the order in which they end.

        UsageError at once if a request cannot be answered, or no weights were loaded.
        """
        if self._params is None:
            raise UsageError("the engine has no weights: load some first")
        asked = tuple(requests)
        for request in asked:
            check(request, self.evaluation.context, self.model.vocab_size)
            Watch(request)
            if penalises(request.sampling) and not self.evaluation.penalties:
                raise UsageError(f"item {request.id}: penalties need evaluation.penalties; set it to True")
        self.schedule = Schedule(asked, self.shape, self.stop_ids)
        return self._generate(self._params, self._scales, self.schedule, seed)

    def _generate(
        self, params: Params, scales: tuple[Any, ...], schedule: Schedule, seed: int
    ) -> Iterator[tuple[Request, Completion]]:
        ended: list[tuple[Request, Completion]] = []
        chunks = deque[Chunk]()
        with jax.set_mesh(self.mesh):
            slots = self._empty()
            if scales:
                slots = replace(slots, layers=scaled(slots.layers, scales))
        while schedule.unfinished:
            plan = schedule.plan()
            with jax.set_mesh(self.mesh):
                slots, chunk = self._dispatch(params, slots, plan, seed)
            if chunk is not None:
                chunks.append(chunk)
            yield from ended  # the caller works on these while the device works on the next chunk
            ended = []
            if len(chunks) > (self.ahead if plan.busy else 0):
                ended = schedule.collect(on_host(chunks.popleft()))
        yield from ended

    def _dispatch(self, params: Params, slots: Slots, plan: Plan, seed: int) -> tuple[Slots, Chunk | None]:
        """Give the device what a plan says, without waiting for it."""
        for call in plan.prefills:
            arrays: tuple[Any, ...] = call
            slots = self._prefill(params, slots, jax.device_put(Orders(*arrays), self._rows))
        if not plan.busy:
            return slots, None
        if (plan.copy_to_B < self.shape.pages).any():
            slots = self._copy(slots, *jax.device_put((plan.copy_from_B, plan.copy_to_B), self._rows))
        turn = make_turn(plan, self.shape.slots, seed)
        return self._decode(params, slots, jax.device_put(turn, self._rows))


def scaled(layers: Layers, scales: tuple[Any, ...]) -> Layers:
    """Empty layers with the scales that the weights have."""
    return tuple(
        layer._replace(scales=jax.device_put(of_layer, shardings_of(layer.scales)))
        for layer, of_layer in zip(layers, scales, strict=True)
    )


def on_host(chunk: Chunk) -> Landed:
    """What a chunk made; waits for the device."""
    landed: Any = jax.device_get(chunk)
    return Landed(landed.tokens_BC, landed.logprobs_BC, landed.made_B, landed.active_B)


def make_turn(plan: Plan, slots: int, seed: int) -> Turn:
    """What a plan changes before a chunk, as arrays on the host."""
    at = [slot for slot, _ in plan.starts]
    requests = [request for _, request in plan.starts]

    def column(values: list[Any], dtype: type) -> Any:
        column_B = np.zeros((slots, *np.shape(values)[1:]), dtype)
        column_B[at] = values
        return column_B

    keys_B2: Any = np.zeros((slots, 2), np.uint32)
    for slot, request in plan.starts:
        keys_B2[slot] = completion_key(seed, request.id, request.sample)
    stops_B: Any = plan.stops_B
    table_BN: Any = plan.table_BN
    return Turn(
        starts_B=column([True for _ in at], bool),
        stops_B=stops_B,
        table_BN=table_BN,
        token_B=column([r.prompt[-1] for r in requests], np.int32),
        position_B=column([len(r.prompt) - 1 for r in requests], np.int32),
        limit_B=column([r.max_new_tokens for r in requests], np.int32),
        keys_B2=keys_B2,
        sampling=slot_sampling([r.sampling for r in requests], at, slots),
        logprobs_B=column([r.logprobs for r in requests], bool),
    )
