"""A tiny random model for tests of generation, engines for it, and decoding done the slow and obvious way."""

from collections.abc import Iterable, Sequence
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jax_sft.config import EvaluationConfig, ModelConfig, ParallelismConfig, Sampling
from jax_sft.generation.backend import Backend, Completion, Request
from jax_sft.generation.engine import Engine
from jax_sft.models.decoder import Params, forward_rows, init_params, logits
from jax_sft.packed import Rows
from jax_sft.sharding import make_mesh

MODEL = ModelConfig(
    vocab_size=96,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_size=48,
    qk_norm=True,
    tie_embeddings=False,
)
CONTEXT = 64
STOPS = (36, 57)
LENGTHS = (1, 2, 31, 32, 33, 34, 40, 63, 9, 1, 50, 12)
LIMITS = (24, 1, 20, 7, 31, 5, 24, 1, 40, 63, 14, 30)


@cache
def params(seed: int = 0) -> Params:
    """Float32 weights large enough that greedy completions differ and end at different times."""
    rng = np.random.default_rng(seed)
    abstract = nn.unbox(jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0))))

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        return 1 + 0.2 * noise if leaf.shape[-2:-1] in ((), (MODEL.num_layers,)) else 0.9 * noise

    return jax.tree.map(draw, abstract)


@cache
def engine(
    slots: int = 3,
    devices: int = 1,
    tensor: int = 1,
    dtype: str = "float32",
    stops: tuple[int, ...] = STOPS,
    **memory: int,
) -> Engine:
    """An engine, shared by all tests of a process so that each program is compiled once."""
    evaluation = EvaluationConfig(
        slots=slots,
        context=CONTEXT,
        chunk=5,
        prefill_rows=2,
        tensor=tensor,
        compute_dtype="float32" if dtype == "float32" else "bfloat16",
        penalties=True,
        pages=memory.get("pages", 0),
        prefill_chunk=memory.get("chunk", 0),
    )
    mesh = make_mesh(ParallelismConfig(tensor=tensor), jax.devices()[:devices])
    return Engine(MODEL, evaluation, stops, mesh)


def placed(engine: Backend, seed: int = 0) -> Params:
    """The tiny weights where the engine wants them."""
    wanted = engine.abstract_params()

    def place(value: np.ndarray, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put(value.astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(place, params(seed), wanted)


def prompts() -> list[tuple[int, ...]]:
    """Prompts of every interesting length; see LENGTHS."""
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(0, MODEL.vocab_size, length).tolist()) for length in LENGTHS]


def greedy_requests() -> list[Request]:
    """One request for each prompt; together with their limits, some fill the context to its last column."""
    return [
        Request(f"item {number}", 0, prompt, limit)
        for number, (prompt, limit) in enumerate(zip(prompts(), LIMITS, strict=True))
    ]


def mixed_requests() -> list[Request]:
    """Greedy and sampled requests with settings of all kinds, three samples of each sampled item."""
    settings = [
        Sampling(1.0),
        Sampling(0.7, top_p=0.9),
        Sampling(1.3, top_k=7),
        Sampling(1.0, min_p=0.1),
        Sampling(0.6, 0.95, 20, 0.01),
    ]
    sampled = [
        Request(f"sampled {number}", sample, prompt, min(limit, 20), settings[number % len(settings)])
        for number, (prompt, limit) in enumerate(zip(prompts(), LIMITS, strict=True))
        for sample in range(3)
    ]
    return [*greedy_requests(), *sampled]


def generate(
    engine: Engine, requests: Iterable[Request], seed: int = 0, model_seed: int = 0
) -> dict[tuple[str, int], Completion]:
    """All completions by id and sample, each there once."""
    engine.load(placed(engine, model_seed))
    made = list(engine.generate(requests, seed))
    by_key = {(request.id, request.sample): one for request, one in made}
    assert len(by_key) == len(made)
    return by_key


@partial(jax.jit, static_argnames="length")
def next_logits(weights: Params, tokens_BT: jax.Array, lengths_B: jax.Array, length: int) -> jax.Array:
    positions_BT = jnp.broadcast_to(jnp.arange(length)[None], tokens_BT.shape)
    segments_BT = (positions_BT < lengths_B[:, None]).astype(jnp.int32)
    hidden_BTD = forward_rows(weights, MODEL, Rows.to_read(tokens_BT, positions_BT, segments_BT))
    last_BD = jnp.take_along_axis(hidden_BTD, lengths_B[:, None, None] - 1, axis=1)[:, 0]
    return logits(weights, MODEL, last_BD)


def naive_greedy(
    requests: Sequence[Request], stops: tuple[int, ...] = STOPS, seed: int = 0
) -> dict[tuple[str, int], Completion]:
    """The same completions by a whole forward pass for every token: no cache, no slots, no chunks."""
    tokens_BT = np.zeros((len(requests), CONTEXT + 1), np.int32)
    for row, request in enumerate(requests):
        tokens_BT[row, : len(request.prompt)] = request.prompt
    lengths_B = np.array([len(request.prompt) for request in requests])
    made: list[list[int]] = [[] for _ in requests]
    going = set(range(len(requests)))
    while going:
        next_B = np.asarray(next_logits(params(seed), tokens_BT, lengths_B, CONTEXT + 1)).argmax(-1)
        for row in sorted(going):
            token = int(next_B[row])
            made[row].append(token)
            tokens_BT[row, lengths_B[row]] = token
            lengths_B[row] += 1
            if token in stops or len(made[row]) == requests[row].max_new_tokens:
                going.remove(row)
    completions = {}
    for request, tokens in zip(requests, made, strict=True):
        stopped = tokens[-1] in stops
        kept = tuple(tokens[:-1] if stopped else tokens)
        one = Completion(kept, len(tokens), "stop" if stopped else "length")
        completions[request.id, request.sample] = one
    return completions
