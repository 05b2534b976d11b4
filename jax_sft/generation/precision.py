"""How far generation in fewer bits is from what it was: greedy tokens and logits beside one another."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_sft.config import EvaluationConfig, ModelConfig
from jax_sft.generation.weights import as_used
from jax_sft.models import Params
from jax_sft.models.calibration import calibrate
from jax_sft.models.decoder import forward_cached, logits
from jax_sft.models.memory import Orders, memory_of


class Agreement(NamedTuple):
    """Of greedy completions by two ways of computing."""

    completions: float
    """Share that is the same to the last token."""
    tokens: float
    """Share of the first way's tokens that come before the first one that differs, of all completions."""
    first: tuple[tuple[str, int], ...]
    """(which, at which token) they part, those that part earliest first."""


def agreement(ours: Mapping[str, Sequence[int]], theirs: Mapping[str, Sequence[int]]) -> Agreement:
    """Completions by name, the same names in both."""
    parted, same, total = dict[str, int](), 0, 0
    for name, tokens in ours.items():
        others = theirs[name]
        pairs = enumerate(zip(tokens, others, strict=False))
        alike = next((at for at, (a, b) in pairs if a != b), min(len(tokens), len(others)))
        if tuple(tokens) != tuple(others):
            parted[name] = alike
        same, total = same + alike, total + len(tokens)
    first = tuple(sorted(parted.items(), key=lambda pair: pair[1]))
    return Agreement(1 - len(parted) / max(len(ours), 1), same / max(total, 1), first)


def text_logits(
    params: Params, config: ModelConfig, tokens_T: Sequence[int], evaluation: EvaluationConfig
) -> jax.Array:
    """Logits [T, V] after each token of a text, with weights and pages in the bits of an evaluation.

    `params` are whole, in float32 or the compute type, stacked over layers. The text is read as a prompt is:
    its keys and values are attended to as they lie in pages.
    """
    eight, page = evaluation.kv_dtype != "same", 16
    dtype = jnp.dtype(evaluation.compute_dtype)
    kv_dtype = jnp.dtype(evaluation.kv_dtype) if eight else dtype
    length = -(-len(tokens_T) // page) * page
    tokens_1C = jnp.zeros((1, length), jnp.int32).at[0, : len(tokens_T)].set(jnp.asarray(tokens_T))

    def read(params: Params) -> jax.Array:
        used = as_used(jax.tree.map(lambda leaf: leaf.astype(dtype), params), config, evaluation.weight_dtype)
        memory = memory_of("cpu", eight)
        layers = memory.empty(config, length, page, kv_dtype)
        if evaluation.kv_dtype == "int8":
            found = calibrate(used, config, dtype)
            layers = tuple(layer._replace(scales=of) for layer, of in zip(layers, found, strict=True))
        places_1N, zero_1 = jnp.arange(length // page)[None], jnp.zeros(1, jnp.int32)
        orders = Orders(tokens_1C, zero_1, jnp.full(1, len(tokens_T)), places_1N, places_1N)
        contexts = memory.prompts(layers, orders)
        hidden, _ = forward_cached(used, config, tokens_1C, jnp.arange(length)[None], contexts, dtype)
        return logits(used, config, hidden[0, : len(tokens_T)])

    return jax.jit(read)(params)


class Difference(NamedTuple):
    """Of the logits of two ways of computing, over positions."""

    nats: float
    """Mean KL divergence of the second's next-token distribution from the first's."""
    largest: float
    """Largest difference of two log-probabilities of a token that the first thinks likeliest."""
    greedy: float
    """Share of positions with the same likeliest token."""


def difference(ours_TV: jax.Array, theirs_TV: jax.Array) -> Difference:
    """Of logits [T, V] at the same positions."""
    ours_TV, theirs_TV = jax.nn.log_softmax(ours_TV), jax.nn.log_softmax(theirs_TV)
    nats_T = (jnp.exp(ours_TV) * (ours_TV - theirs_TV)).sum(axis=-1)
    best_T1 = ours_TV.argmax(axis=-1, keepdims=True)
    gap_T1 = jnp.take_along_axis(ours_TV - theirs_TV, best_T1, axis=-1)
    alike_T1 = best_T1 == theirs_TV.argmax(axis=-1, keepdims=True)
    return Difference(float(nats_T.mean()), float(jnp.abs(gap_T1).max()), float(alike_T1.mean()))
