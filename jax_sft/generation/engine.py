"""The generation engine: prompts in, completions out, through one compiled decode program.

`slots` sequences are decoded at once, `chunk` tokens between two looks at which have ended; a slot that
ended is refilled with the next prompt. The weights are an argument, so one engine serves every snapshot.
A completion depends only on the weights, its prompt, its settings and its key: never on its slot, on its
neighbours or on the order in which requests arrive. Which request gets which slot is `schedule`'s business.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.sampling import completion_key, penalises, slot_sampling
from jax_sft.generation.schedule import Admission, Schedule, check
from jax_sft.generation.slots import (
    Chunk,
    Refill,
    Slots,
    decode,
    empty_slots,
    refill,
    slot_formats,
    slot_shardings,
    stop_slots,
)
from jax_sft.generation.watch import Watch
from jax_sft.models import Params
from jax_sft.models.params import abstract_params
from jax_sft.sharding import GENERATION_RULES, batch_sharding, replicated, shardings_of


class Engine:
    """A compiled decoder for one model shape."""

    def __init__(
        self,
        model: ModelConfig,
        evaluation: EvaluationConfig,
        stop_ids: tuple[int, ...],
        mesh: Mesh,
    ) -> None:
        """Nothing is compiled yet. Slots and prefill rows are rounded up to fill the mesh's data axes."""
        self.model, self.evaluation, self.stop_ids, self.mesh = model, evaluation, stop_ids, mesh
        ways = mesh.shape["replica"] * mesh.shape["fsdp"]
        self.slots = fill_ways(evaluation.slots, ways)
        self.prefill_rows = fill_ways(evaluation.prefill_rows, ways)
        self.decode_compilations = 0
        """Times the decode program was traced; 1 after any number of snapshots."""
        self._params: Params | None = None
        self._compile()

    def _compile(self) -> None:
        """The three programs. Slots keep one layout from call to call and are updated in place (donated)."""
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        in_slots = slot_formats(self.abstract_slots(), self.mesh)
        in_params = shardings_of(self.abstract_params())
        whole, self._rows = replicated(self.mesh), batch_sharding(self.mesh)

        def counted_decode(params: Params, slots: Slots) -> tuple[Slots, Chunk]:
            self.decode_compilations += 1
            return decode(params, slots, self.model, dtype, self.evaluation.chunk, self.stop_ids)

        def refill_slots(params: Params, slots: Slots, orders: Refill) -> Slots:
            return refill(params, slots, orders, self.model, dtype)

        self._empty = jax.jit(self._make_slots, out_shardings=in_slots)
        self._decode = jax.jit(
            counted_decode,
            in_shardings=(in_params, in_slots),
            out_shardings=(in_slots, whole),
            donate_argnums=1,
        )
        self._stop = jax.jit(
            stop_slots, in_shardings=(in_slots, self._rows), out_shardings=in_slots, donate_argnums=0
        )
        self._refill = jax.jit(
            refill_slots,
            in_shardings=(in_params, in_slots, self._rows),
            out_shardings=in_slots,
            donate_argnums=1,
        )

    def abstract_params(self) -> Params:
        """Shapes, types (the compute type) and shardings in which the engine wants the weights."""
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        return abstract_params(self.model, dtype, self.mesh, GENERATION_RULES)

    def abstract_slots(self) -> Slots:
        """Shapes, types and shardings of what the device holds of all slots."""
        slots = jax.eval_shape(self._make_slots)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            slots,
            slot_shardings(slots, self.mesh),
        )

    def _make_slots(self) -> Slots:
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        counted = self.model.vocab_size if self.evaluation.penalties else 0
        return empty_slots(self.model, self.slots, self.evaluation.context, dtype, counted)

    def lower_decode(self) -> jax.stages.Lowered:
        """The decode program, traced and lowered for the engine's mesh."""
        with jax.set_mesh(self.mesh):
            return self._decode.lower(self.abstract_params(), self.abstract_slots())

    def load(self, params: Params) -> None:
        """Decode with these weights from now on; they lie as `abstract_params` says."""
        self._params = params

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
        schedule = Schedule(asked, self.slots, self.prefill_rows, self.evaluation.context, self.stop_ids)
        return self._generate(self._params, schedule, seed)

    def _generate(
        self, params: Params, schedule: Schedule, seed: int
    ) -> Iterator[tuple[Request, Completion]]:
        ended: list[tuple[Request, Completion]] = []
        with jax.set_mesh(self.mesh):
            slots = self._empty()
        while schedule.unfinished:
            with jax.set_mesh(self.mesh):
                while admission := schedule.admit():
                    orders = make_orders(admission, self.slots, self.prefill_rows, seed)
                    slots = self._refill(params, slots, jax.device_put(orders, self._rows))
                if cut := schedule.take_cut():
                    slots = self._stop(slots, jax.device_put(mask(cut, self.slots), self._rows))
                slots, chunk = self._decode(params, slots)
            yield from ended  # the caller works on these while the device works on the next chunk
            ended = schedule.collect(*_on_host(chunk))
        yield from ended


def _on_host(chunk: Chunk) -> tuple[list[list[int]], list[bool], list[list[float]]]:
    """New tokens of every slot, whether it goes on, and their log-probabilities; waits for the device."""
    chunk = jax.device_get(chunk)
    made = chunk.made_B.tolist()

    def cut(values_BC: jax.Array) -> list[list[Any]]:
        return [values[:count] for values, count in zip(values_BC.tolist(), made, strict=True)]

    return cut(chunk.tokens_BC), chunk.active_B.tolist(), cut(chunk.logprobs_BC)


def mask(at: list[int], slots: int) -> np.ndarray:
    """bool [slots], true for those in `at`."""
    mask_B = np.zeros(slots, bool)
    mask_B[at] = True
    return mask_B


def fill_ways(count: int, ways: int) -> int:
    """The least number of slots or rows, at least `count`, that `ways` devices share equally."""
    return -(-count // ways) * ways


def make_orders(admission: Admission, slots: int, rows: int, seed: int) -> Refill:
    """An admission as arrays on the host, for so many slots and rows of a prefill."""
    tokens_RT: Any = np.zeros((rows, admission.columns), np.int32)
    lengths_R: Any = np.zeros(rows, np.int32)
    for row, prompt in enumerate(admission.prompts):
        lengths_R[row] = len(prompt) - 1
        tokens_RT[row, : len(prompt) - 1] = prompt[:-1]
    at = [start.slot for start in admission.starts]
    requests = [start.request for start in admission.starts]

    def column(values: list[Any], dtype: type, otherwise: int = 0) -> Any:
        column_B = np.full((slots, *np.shape(values)[1:]), otherwise, dtype)
        column_B[at] = values
        return column_B

    return Refill(
        tokens_RT,
        lengths_R,
        prompt_B=column([start.row for start in admission.starts], np.int32, otherwise=-1),
        token_B=column([r.prompt[-1] for r in requests], np.int32),
        limit_B=column([r.max_new_tokens for r in requests], np.int32),
        keys_B2=column([completion_key(seed, r.id, r.sample) for r in requests], np.uint32),
        sampling=slot_sampling([r.sampling for r in requests], at, slots),
        logprobs_B=column([r.logprobs for r in requests], bool),
    )
