"""The generation engine: prompts in, completions out, through one compiled decode program.

`slots` sequences are decoded at once, `chunk` tokens between two looks at which have ended; a slot that
ended is refilled with the next prompt. The weights are an argument, so one engine serves every snapshot.
A completion depends only on the weights, its prompt, its settings and its key: never on its slot, on its
neighbours or on the order in which requests arrive.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.errors import UsageError
from jax_sft.generation.sampling import Sampling, choose, completion_key
from jax_sft.models.decoder import Params, forward_rows, forward_token, init_params, logits
from jax_sft.models.kv_cache import KVCache, LayerCache, insert, make_cache
from jax_sft.sharding import BATCH_AXES, GENERATION_RULES, place_abstract

SMALLEST_BUCKET = 32


@dataclass(frozen=True)
class Request:
    """One completion to draw."""

    item: str
    sample: int
    prompt: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


@dataclass(frozen=True)
class Completion:
    """What came back: the new tokens, the closing stop token not among them."""

    item: str
    sample: int
    tokens: tuple[int, ...]
    generated: int
    """Tokens generated, the stop token counted."""
    finish: str
    """`stop` (a stop token came) or `length` (the limit was reached)."""


@flax.struct.dataclass
class Slots:
    """What the device holds for every slot."""

    cache: KVCache
    token_B: jax.Array
    """Last token, not yet in the cache."""
    position_B: jax.Array
    """Its position."""
    active_B: jax.Array
    count_B: jax.Array
    """New tokens so far."""
    limit_B: jax.Array
    output_BS: jax.Array
    keys_B2: jax.Array
    sampling: Sampling


class Engine:
    """A compiled decoder for one model shape."""

    def __init__(
        self,
        model: ModelConfig,
        evaluation: EvaluationConfig,
        stop_ids: tuple[int, ...],
        mesh: Mesh,
    ) -> None:
        """Nothing is compiled yet; UsageError when the slots do not divide among the mesh's data axes."""
        self.model, self.evaluation, self.mesh = model, evaluation, mesh
        self.stop_ids = stop_ids
        self.decode_compilations = 0
        """Times the decode program was traced; 1 after any number of snapshots."""
        ways = mesh.shape["replica"] * mesh.shape["fsdp"]
        if evaluation.slots % ways:
            raise UsageError(f"evaluation.slots {evaluation.slots} do not divide among {ways} devices")
        self._decode = jax.jit(self._decode_chunk, donate_argnums=(1,))
        self._refill = jax.jit(self._refill_slots, donate_argnums=(1,))

    def abstract_params(self, dtype: jnp.dtype | None = None) -> Params:
        """Shapes, types and shardings in which the engine wants the weights (compute type by default)."""
        boxed = jax.eval_shape(lambda: init_params(self.model, jax.random.key(0)))
        dtype = dtype or jnp.dtype(self.evaluation.compute_dtype)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding),
            place_abstract(boxed, self.mesh, GENERATION_RULES),
        )

    def generate(self, params: Params, requests: Iterable[Request], seed: int = 0) -> Iterator[Completion]:
        """Completions in the order in which they end. UsageError for a prompt that leaves no room to answer."""
        queue = deque(requests)
        for request in queue:
            self._check(request)
        live: dict[int, Request] = {}
        with jax.set_mesh(self.mesh):
            slots = self._empty()
            while queue or live:
                slots = self._fill(params, slots, queue, live, seed)
                slots = self._decode(params, slots)
                active_B, count_B = jax.device_get((slots.active_B, slots.count_B))
                ended = [slot for slot in sorted(live) if not active_B[slot]]
                output_BS = jax.device_get(slots.output_BS) if ended else None
                for slot in ended:
                    yield self._harvest(live.pop(slot), output_BS[slot, : count_B[slot]])

    def _check(self, request: Request) -> None:
        room = self.evaluation.context - len(request.prompt)
        if not request.prompt or room < request.max_new_tokens:
            raise UsageError(
                f"item {request.item}: a prompt of {len(request.prompt)} tokens and max_new_tokens "
                f"{request.max_new_tokens} do not fit evaluation.context {self.evaluation.context}"
            )

    def _harvest(self, request: Request, tokens: np.ndarray) -> Completion:
        stopped = bool(len(tokens)) and int(tokens[-1]) in self.stop_ids
        kept = tuple(int(token) for token in (tokens[:-1] if stopped else tokens))
        return Completion(request.item, request.sample, kept, len(tokens), "stop" if stopped else "length")

    def _empty(self) -> Slots:
        """All slots free, laid out over the mesh: slots over the data axes, key/value heads over tensor."""
        B, S = self.evaluation.slots, self.evaluation.context
        rows = NamedSharding(self.mesh, P(BATCH_AXES))
        heads = NamedSharding(self.mesh, P(BATCH_AXES, "tensor"))
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        integers = partial(jnp.zeros, dtype=jnp.int32)
        floats = partial(jnp.zeros, dtype=jnp.float32)
        slots = Slots(
            cache=make_cache(self.model, B, S, dtype),
            token_B=integers(B),
            position_B=integers(B),
            active_B=jnp.zeros(B, bool),
            count_B=integers(B),
            limit_B=integers(B),
            output_BS=integers((B, S)),
            keys_B2=jnp.zeros((B, 2), jnp.uint32),
            sampling=Sampling(floats(B), floats(B), integers(B), floats(B)),
        )
        return jax.tree.map(lambda x: jax.device_put(x, heads if x.ndim == 4 else rows), slots)

    def _fill(
        self, params: Params, slots: Slots, queue: deque[Request], live: dict[int, Request], seed: int
    ) -> Slots:
        """Give every free slot the next waiting request, prefilling a few prompts of one length at a time."""
        free = [slot for slot in range(self.evaluation.slots) if slot not in live]
        while queue and free:
            chosen, prompts = self._take(queue, len(free))
            bucket = self._bucket(chosen[0].prompt)
            tokens_PT = np.zeros((self.evaluation.prefill_rows, bucket), np.int32)
            for row, prompt in enumerate(prompts):
                tokens_PT[row, : len(prompt) - 1] = prompt[:-1]
            lengths_P = np.zeros(len(tokens_PT), np.int32)
            lengths_P[: len(prompts)] = [len(prompt) - 1 for prompt in prompts]
            orders = _Orders(self.evaluation.slots)
            for request in chosen:
                slot = free.pop(0)
                live[slot] = request
                key = completion_key(seed, request.item, request.sample)
                orders.give(slot, request, prompts[request.prompt], key)
            slots = self._refill(params, slots, jnp.asarray(tokens_PT), jnp.asarray(lengths_P), orders.arrays())
        return slots

    def _take(self, queue: deque[Request], most: int) -> tuple[list[Request], dict[tuple[int, ...], int]]:
        """The next requests that one prefill can serve, and the row of each of their distinct prompts."""
        chosen: list[Request] = []
        prompts: dict[tuple[int, ...], int] = {}
        bucket = self._bucket(queue[0].prompt)
        while queue and len(chosen) < most and self._bucket(queue[0].prompt) == bucket:
            prompt = queue[0].prompt
            if prompt not in prompts and len(prompts) == self.evaluation.prefill_rows:
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

    def _refill_slots(
        self, params: Params, slots: Slots, tokens_PT: jax.Array, lengths_P: jax.Array, orders: "OrderArrays"
    ) -> Slots:
        """Prefill all but the last token of each prompt, and put the results and settings into slots."""
        P, T = tokens_PT.shape
        positions_PT = jnp.broadcast_to(jnp.arange(T)[None], (P, T))
        segments_PT = (positions_PT < lengths_P[:, None]).astype(jnp.int32)
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        _, made = forward_rows(
            params, self.model, tokens_PT, positions_PT, segments_PT, dtype=dtype, keep_cache=True
        )
        refill_B = orders.prompt_B >= 0
        prompt_B = jnp.maximum(orders.prompt_B, 0)
        cache = tuple(
            insert(slots.cache[layer], made.k_BKSd[layer], made.v_BKSd[layer], prompt_B, refill_B)
            for layer in range(self.model.num_layers)
        )
        new = slots.replace(
            token_B=orders.token_B,
            position_B=lengths_P[prompt_B],
            active_B=jnp.ones_like(refill_B),
            count_B=jnp.zeros_like(slots.count_B),
            limit_B=orders.limit_B,
            keys_B2=orders.keys_B2,
            sampling=orders.sampling,
            cache=(),
        )

        def pick(fresh: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(refill_B.reshape((-1,) + (1,) * (old.ndim - 1)), fresh, old)

        return jax.tree.map(pick, new, slots.replace(cache=())).replace(cache=cache)

    def _decode_chunk(self, params: Params, slots: Slots) -> Slots:
        """Decode up to `chunk` tokens in every active slot; ends early when none is active."""
        self.decode_compilations += 1
        dtype = jnp.dtype(self.evaluation.compute_dtype)
        stops_1N = jnp.asarray(self.stop_ids, jnp.int32)[None, :]

        def one_token(carry: tuple[jax.Array, Slots]) -> tuple[jax.Array, Slots]:
            i, slots = carry
            hidden_BD, cache = forward_token(
                params, self.model, slots.token_B, slots.position_B, slots.cache, dtype
            )
            logits_BV = logits(params, self.model, hidden_BD)
            token_B = choose(logits_BV, slots.keys_B2, slots.count_B, slots.sampling)
            active_B = slots.active_B
            column_B = jnp.where(active_B, slots.count_B, slots.output_BS.shape[1])
            output_BS = jax.vmap(lambda row_S, at, value: row_S.at[at].set(value, mode="drop"))(
                slots.output_BS, column_B, token_B
            )
            count_B = slots.count_B + active_B
            ended_B = (token_B[:, None] == stops_1N).any(axis=1) | (count_B >= slots.limit_B)
            return i + 1, slots.replace(
                cache=cache,
                token_B=jnp.where(active_B, token_B, slots.token_B),
                position_B=slots.position_B + active_B,
                active_B=active_B & ~ended_B,
                count_B=count_B,
                output_BS=output_BS,
            )

        def go_on(carry: tuple[jax.Array, Slots]) -> jax.Array:
            i, slots = carry
            return (i < self.evaluation.chunk) & slots.active_B.any()

        return jax.lax.while_loop(go_on, one_token, (jnp.zeros((), jnp.int32), slots))[1]


@flax.struct.dataclass
class OrderArrays:
    """What each slot is to start; slots with prompt -1 go on as they are."""

    prompt_B: jax.Array
    token_B: jax.Array
    limit_B: jax.Array
    keys_B2: jax.Array
    sampling: Sampling


class _Orders:
    """Collects `OrderArrays` on the host."""

    def __init__(self, slots: int) -> None:
        self.prompt_B = np.full(slots, -1, np.int32)
        self.token_B, self.limit_B, self.top_k_B = (np.zeros(slots, np.int32) for _ in range(3))
        self.temperature_B, self.top_p_B, self.min_p_B = (np.zeros(slots, np.float32) for _ in range(3))
        self.keys_B2 = np.zeros((slots, 2), np.uint32)

    def give(self, slot: int, request: Request, prompt_row: int, key: np.ndarray) -> None:
        self.prompt_B[slot] = prompt_row
        self.token_B[slot] = request.prompt[-1]
        self.limit_B[slot] = request.max_new_tokens
        self.temperature_B[slot], self.top_p_B[slot] = request.temperature, request.top_p
        self.top_k_B[slot], self.min_p_B[slot] = request.top_k, request.min_p
        self.keys_B2[slot] = key

    def arrays(self) -> OrderArrays:
        sampling = Sampling(self.temperature_B, self.top_p_B, self.top_k_B, self.min_p_B)
        host = OrderArrays(self.prompt_B, self.token_B, self.limit_B, self.keys_B2, sampling)
        return jax.tree.map(jnp.asarray, host)
