"""The generation engine: prompts in, completions out, through one compiled decode program.

`slots` sequences are decoded at once, `chunk` tokens between two looks at which have ended; a slot that
ended is refilled with the next prompt. The weights are an argument, so one engine serves every snapshot.
A completion depends only on the weights, its prompt, its settings and its key: never on its slot, on its
neighbours or on the order in which requests arrive.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.sampling import SlotSampling, completion_key
from jax_sft.generation.slots import (
    Chunk,
    Refill,
    Slots,
    decode,
    empty_slots,
    refill,
    slot_formats,
    slot_shardings,
)
from jax_sft.models import Params
from jax_sft.models.decoder import abstract_params
from jax_sft.sharding import GENERATION_RULES, batch_sharding, replicated, shardings_of

SMALLEST_BUCKET = 32


@dataclass
class _Live:
    """A request that occupies a slot, and its new tokens so far."""

    request: Request
    tokens: list[int] = field(default_factory=list)


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

        def refill_slots(
            params: Params, slots: Slots, tokens_RT: jax.Array, lengths_R: jax.Array, orders: Refill
        ) -> Slots:
            return refill(params, slots, tokens_RT, lengths_R, orders, self.model, dtype)

        self._empty = jax.jit(self._make_slots, out_shardings=in_slots)
        self._decode = jax.jit(
            counted_decode,
            in_shardings=(in_params, in_slots),
            out_shardings=(in_slots, whole),
            donate_argnums=1,
        )
        self._refill = jax.jit(
            refill_slots,
            in_shardings=(in_params, in_slots, self._rows, self._rows, self._rows),
            out_shardings=in_slots,
            donate_argnums=1,
        )

    def abstract_params(self) -> Params:
        """Shapes, types (the compute type) and shardings in which the engine wants the weights."""
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        return abstract_params(self.model, dtype, self.mesh, GENERATION_RULES)

    def abstract_slots(self) -> Slots:
        """Shapes, types and shardings of what the device holds of all slots."""
        made = jax.eval_shape(self._make_slots)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            made,
            slot_shardings(made, self.mesh),
        )

    def _make_slots(self) -> Slots:
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        return empty_slots(self.model, self.slots, self.evaluation.context, dtype)

    def lower_decode(self) -> jax.stages.Lowered:
        """The decode program, traced and lowered for the engine's mesh."""
        with jax.set_mesh(self.mesh):
            return self._decode.lower(self.abstract_params(), self.abstract_slots())

    def check(self, request: Request) -> None:
        """UsageError for a request that cannot be answered: nothing to do, too long, unknown tokens."""
        length, new, context = len(request.prompt), request.max_new_tokens, self.evaluation.context
        if length == 0 or new < 1:
            raise UsageError(
                f"item {request.id}: a prompt of {length} tokens and max_new_tokens {new}; "
                "both must be at least 1"
            )
        if max(request.prompt) >= self.model.vocab_size:
            raise UsageError(
                f"item {request.id}: its prompt holds token {max(request.prompt)}, the model knows those "
                f"below {self.model.vocab_size}: the tokenizer is not the model's"
            )
        if length + new > context:
            raise UsageError(
                f"item {request.id}: its prompt of {length} tokens and max_new_tokens {new} do not fit "
                f"evaluation.context {context}: raise it to {length + new} or lower max_new_tokens"
            )

    def load(self, params: Params) -> None:
        """Decode with these weights from now on; they lie as `abstract_params` says."""
        self._params = params

    def generate(self, requests: Iterable[Request], seed: int = 0) -> Iterator[tuple[Request, Completion]]:
        """Each request with its completion, in the order in which they end.

        UsageError at once if a request cannot be answered, or no weights were loaded.
        """
        if self._params is None:
            raise UsageError("the engine has no weights: load some first")
        queue = deque(requests)
        for request in queue:
            self.check(request)
        return self._generate(self._params, queue, seed)

    def _generate(
        self, params: Params, queue: deque[Request], seed: int
    ) -> Iterator[tuple[Request, Completion]]:
        live: dict[int, _Live] = {}
        ended: list[tuple[Request, Completion]] = []
        with jax.set_mesh(self.mesh):
            slots = self._empty()
        while queue or live:
            with jax.set_mesh(self.mesh):
                slots = self._fill(params, slots, queue, live, seed)
                slots, chunk = self._decode(params, slots)
            yield from ended  # the caller works on these while the device works on the next chunk
            ended = self._collect(live, jax.device_get(chunk))
        yield from ended

    def _collect(self, live: dict[int, _Live], chunk: Chunk) -> list[tuple[Request, Completion]]:
        """Hand the new tokens to their requests; those that ended leave their slots."""
        ended = []
        for slot, sequence in sorted(live.items()):
            sequence.tokens.extend(chunk.tokens_BC[slot, : chunk.made_B[slot]].tolist())
            if not chunk.active_B[slot]:
                ended.append((sequence.request, self._completion(sequence.tokens)))
                del live[slot]
        return ended

    def _completion(self, tokens: list[int]) -> Completion:
        stopped = tokens[-1] in self.stop_ids
        kept = tuple(tokens[:-1] if stopped else tokens)
        return Completion(kept, len(tokens), "stop" if stopped else "length")

    def _fill(
        self, params: Params, slots: Slots, queue: deque[Request], live: dict[int, _Live], seed: int
    ) -> Slots:
        """Give every free slot the next waiting request, prefilling a few prompts of one bucket at a time."""
        free = deque(slot for slot in range(self.slots) if slot not in live)
        while queue and free:
            chosen, prompts = self._take(queue, len(free))
            tokens_RT = np.zeros((self.prefill_rows, self._bucket(chosen[0].prompt)), np.int32)
            lengths_R = np.zeros(self.prefill_rows, np.int32)
            for row, prompt in enumerate(prompts):
                lengths_R[row] = len(prompt) - 1
                tokens_RT[row, : len(prompt) - 1] = prompt[:-1]
            starts = {free.popleft(): request for request in chosen}
            live.update({slot: _Live(request) for slot, request in starts.items()})
            orders = _orders(self.slots, starts, prompts, seed)
            slots = self._refill(params, slots, *jax.device_put((tokens_RT, lengths_R, orders), self._rows))
        return slots

    def _take(self, queue: deque[Request], most: int) -> tuple[list[Request], dict[tuple[int, ...], int]]:
        """The next requests that one prefill can serve, and the row of each of their distinct prompts."""
        chosen: list[Request] = []
        prompts: dict[tuple[int, ...], int] = {}
        bucket = self._bucket(queue[0].prompt)
        while queue and len(chosen) < most and self._bucket(queue[0].prompt) == bucket:
            prompt = queue[0].prompt
            if prompt not in prompts and len(prompts) == self.prefill_rows:
                break
            prompts.setdefault(prompt, len(prompts))
            chosen.append(queue.popleft())
        return chosen, prompts

    def _bucket(self, prompt: tuple[int, ...]) -> int:
        """Columns in which a prompt is prefilled: the next power of two, at most the context."""
        size = SMALLEST_BUCKET
        while size < len(prompt) - 1:
            size *= 2
        return min(size, self.evaluation.context)


def fill_ways(count: int, ways: int) -> int:
    """The least number of slots or rows, at least `count`, that `ways` devices share equally."""
    return -(-count // ways) * ways


def _orders(slots: int, starts: dict[int, Request], rows: dict[tuple[int, ...], int], seed: int) -> Refill:
    """Orders on the host: slot s starts with `starts[s]`, whose prompt is prefilled in row `rows[prompt]`."""
    at, requests = list(starts), list(starts.values())

    def column(values: list[Any], dtype: type, otherwise: int = 0) -> Any:
        column_B = np.full((slots, *np.shape(values)[1:]), otherwise, dtype)
        column_B[at] = values
        return column_B

    return Refill(
        prompt_B=column([rows[r.prompt] for r in requests], np.int32, otherwise=-1),
        token_B=column([r.prompt[-1] for r in requests], np.int32),
        limit_B=column([r.max_new_tokens for r in requests], np.int32),
        keys_B2=column([completion_key(seed, r.id, r.sample) for r in requests], np.uint32),
        sampling=SlotSampling(
            temperature_B=column([r.sampling.temperature for r in requests], np.float32),
            top_p_B=column([r.sampling.top_p for r in requests], np.float32),
            top_k_B=column([r.sampling.top_k for r in requests], np.int32),
            min_p_B=column([r.sampling.min_p for r in requests], np.float32),
        ),
    )
