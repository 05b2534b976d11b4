"""How far generation in fewer bits is from what it was: greedy tokens and logits beside one another."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


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
