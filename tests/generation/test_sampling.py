"""Sampling against a plain reference: which tokens are allowed, and how often each is drawn."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.generation.sampling import SlotSampling, choose, completion_key, keep_likely

jitted_keep_likely = jax.jit(keep_likely)
jitted_choose = jax.jit(choose)


def settings(
    B: int, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0
) -> SlotSampling:
    """The same settings for every slot."""
    full = partial(jnp.full, B)
    return SlotSampling(full(temperature), full(top_p), full(top_k, dtype=jnp.int32), full(min_p))


def allowed(logits_V: np.ndarray, top_p: float, top_k: int, min_p: float) -> np.ndarray:
    """The tokens that may be drawn, in float64 and one by one: top-k, of those top-p, of those min-p."""
    order = sorted(range(len(logits_V)), key=lambda token: -logits_V[token])
    order = order[: top_k or None]
    weights = np.exp(logits_V[order].astype(np.float64) - logits_V[order[0]])
    weights /= weights.sum()
    kept: list[int] = []
    mass = 0.0
    for token, weight in zip(order, weights, strict=True):
        if kept and top_p < 1 and mass >= top_p:
            break
        if kept and weight < min_p * weights[0]:
            break
        kept.append(token)
        mass += weight
    return logits_V >= min(logits_V[token] for token in kept)


@pytest.mark.short
def test_filters_agree_with_the_reference_for_random_logits_and_settings() -> None:
    rng = np.random.default_rng(0)
    B, V = 400, 57
    logits_BV = (rng.standard_normal((B, V)) * rng.choice([0.3, 1, 4], (B, 1))).astype(np.float32)
    top_p_B = np.where(rng.random(B) < 0.3, 1.0, rng.uniform(0.01, 0.999, B)).astype(np.float32)
    top_k_B = np.where(rng.random(B) < 0.3, 0, rng.integers(1, 2 * V, B)).astype(np.int32)
    min_p_B = np.where(rng.random(B) < 0.3, 0.0, rng.uniform(0, 1, B) ** 3).astype(np.float32)
    sampling = SlotSampling(jnp.ones(B), jnp.asarray(top_p_B), jnp.asarray(top_k_B), jnp.asarray(min_p_B))
    got_BV = np.asarray(jitted_keep_likely(jnp.asarray(logits_BV), sampling))
    for row in range(B):
        want_V = allowed(logits_BV[row], top_p_B[row], top_k_B[row], min_p_B[row])
        assert np.array_equal(np.isfinite(got_BV[row]), want_V), (top_p_B[row], top_k_B[row], min_p_B[row])
        assert np.array_equal(got_BV[row][want_V], logits_BV[row][want_V])
    sizes_B = np.isfinite(got_BV).sum(axis=1)
    assert len(set(sizes_B.tolist())) > 20, "settings that keep few, many and all tokens"


HALVES = np.log([0.48, 0.26, 0.14, 0.08, 0.04])


@pytest.mark.parametrize(
    ("logits", "chosen", "kept"),
    [
        pytest.param(HALVES, {}, 5, id="nothing set"),
        pytest.param(HALVES, {"top_p": 1.0, "top_k": 0, "min_p": 0.0}, 5, id="all off"),
        pytest.param(HALVES, {"top_p": 0.47}, 1, id="p below the likeliest"),
        pytest.param(HALVES, {"top_p": 0.49}, 2, id="p just above it"),
        pytest.param(HALVES, {"top_p": 1e-6}, 1, id="the likeliest stays"),
        pytest.param(HALVES, {"top_p": 0.9999}, 5, id="p just below 1"),
        pytest.param(HALVES, {"top_k": 1}, 1, id="k 1"),
        pytest.param(HALVES, {"top_k": 5}, 5, id="k V"),
        pytest.param(HALVES, {"top_k": 500}, 5, id="k above V"),
        pytest.param(HALVES, {"min_p": 0.25}, 3, id="min-p: 0.12 of 0.48"),
        pytest.param(HALVES, {"min_p": 0.99}, 1, id="min-p keeps the likeliest"),
        pytest.param(HALVES, {"top_k": 2, "top_p": 0.7}, 2, id="p counts what top-k left: 0.65 of 1"),
        pytest.param(HALVES, {"top_k": 2, "top_p": 0.64}, 1, id="and no more"),
        pytest.param(HALVES, {"top_k": 4, "top_p": 0.95, "min_p": 0.2}, 3, id="all three"),
        pytest.param([0, 0, 0, 0], {"top_k": 1}, 4, id="ties of the last one kept stay"),
        pytest.param([0, 0, 0, 0], {"top_p": 0.3}, 4, id="in top-p too"),
        pytest.param([2, 1, 1, 0], {"top_k": 2}, 3, id="ties below the likeliest"),
        pytest.param([1e4, 0, -1e4], {"top_p": 0.9}, 1, id="extreme logits"),
    ],
)
def test_edges_of_the_filters(logits: list[float], chosen: dict[str, Any], kept: int) -> None:
    logits_1V = jnp.asarray(logits, jnp.float32)[None]
    got_1V = keep_likely(logits_1V, settings(1, **chosen))
    assert np.array_equal(
        np.isfinite(got_1V[0]), np.asarray(logits) >= sorted(logits, reverse=True)[kept - 1]
    )


def draw(logits_V: np.ndarray, B: int, chosen: dict[str, Any], count: int = 0) -> np.ndarray:
    """The tokens [B] that B samples of an item draw as their token number `count`."""
    keys_B2 = jnp.asarray(np.stack([completion_key(0, "item", sample) for sample in range(B)]))
    logits_BV = jnp.broadcast_to(jnp.asarray(logits_V, jnp.float32), (B, len(logits_V)))
    return np.asarray(jitted_choose(logits_BV, keys_B2, jnp.full(B, count), settings(B, **chosen)))


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's statistic; cells that cannot happen must be empty."""
    assert observed[expected == 0].sum() == 0
    possible = expected > 0
    return float((((observed - expected) ** 2)[possible] / expected[possible]).sum())


LOGITS = np.random.default_rng(5).standard_normal(12) * 1.5


@pytest.mark.parametrize(
    "chosen",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"temperature": 1.0, "top_k": 5},
        {"temperature": 1.0, "top_p": 0.8},
        {"temperature": 1.5, "min_p": 0.1},
        {"temperature": 0.8, "top_k": 9, "top_p": 0.95, "min_p": 0.02},
    ],
)
def test_tokens_are_drawn_as_often_as_their_probability(chosen: dict[str, Any]) -> None:
    """Filters look at the probabilities after temperature. 40 is beyond the 99.99% point of 11 degrees."""
    B = 10_000
    scaled_V = LOGITS / chosen["temperature"]
    may_V = allowed(scaled_V, chosen.get("top_p", 1.0), int(chosen.get("top_k", 0)), chosen.get("min_p", 0.0))
    probability_V = np.where(may_V, np.exp(scaled_V), 0)
    probability_V /= probability_V.sum()
    observed_V = np.bincount(draw(LOGITS, B, chosen), minlength=len(LOGITS))
    assert chi_square(observed_V, B * probability_V) < 40


def test_successive_tokens_are_drawn_independently() -> None:
    """Pairs of the tokens at two places of one completion: 16 cells, 60 is beyond the 99.99% point."""
    B, probability_V = 10_000, np.array([0.4, 0.3, 0.2, 0.1])
    first_B, second_B = (draw(np.log(probability_V), B, {}, count) for count in (0, 1))
    observed_VV = np.bincount(4 * first_B + second_B, minlength=16)
    assert chi_square(observed_VV, B * np.outer(probability_V, probability_V).ravel()) < 60


def test_greedy_slots_among_sampled_ones() -> None:
    rng = np.random.default_rng(1)
    B, V = 64, 33
    logits_BV = jnp.asarray(rng.standard_normal((B, V)), jnp.float32)
    keys_B2 = jnp.asarray(np.stack([completion_key(0, "item", n) for n in range(B)]))
    greedy_B = rng.random(B) < 0.5
    every = settings(B, 1.0, top_p=0.9)
    mixed = every._replace(temperature_B=jnp.where(greedy_B, 0.0, 1.0))
    count_B = jnp.arange(B)
    drawn_B, mixed_B = (np.asarray(jitted_choose(logits_BV, keys_B2, count_B, s)) for s in (every, mixed))
    assert np.array_equal(mixed_B[greedy_B], np.argmax(logits_BV, axis=1)[greedy_B])
    assert np.array_equal(mixed_B[~greedy_B], drawn_B[~greedy_B])
    # A filtered neighbour sends all slots through the filters; those without limits must not notice.
    free = settings(B, 1.0)
    one_filtered = free._replace(top_k_B=free.top_k_B.at[0].set(1))
    free_B, neighbour_B = (jitted_choose(logits_BV, keys_B2, count_B, s) for s in (free, one_filtered))
    assert np.array_equal(free_B[1:], neighbour_B[1:])


def test_greedy_takes_the_first_of_equals() -> None:
    logits_1V = jnp.asarray([[0.0, 3.0, 3.0, 1.0]])
    token_1 = choose(logits_1V, jnp.zeros((1, 2), jnp.uint32), jnp.zeros(1, jnp.int32), settings(1, 0.0))
    assert token_1.tolist() == [1]


def test_keys_are_fixed_and_differ_by_seed_item_and_sample() -> None:
    """The stored key pins the stream: if it changes, no sampled completion can be reproduced."""
    named = [(0, "a", 0), (0, "a", 1), (1, "a", 0), (0, "b", 0), (0, "a1", 0), (10, "a", 0), (0, "é", 0)]
    keys = {tuple(completion_key(*name).tolist()) for name in named}
    assert len(keys) == len(named)
    assert completion_key(0, "a", 0).dtype == np.uint32
    assert completion_key(0, "a", 0).tolist() == [391533663, 2098419074]
