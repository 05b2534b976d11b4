"""Sampling against a plain reference: which tokens are allowed, and how often each is drawn."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.sharding import NamedSharding, PartitionSpec

from jax_sft.config import Sampling
from jax_sft.generation import sampling as sampling_page
from jax_sft.generation.sampling import (
    BLOCK,
    SlotSampling,
    choose,
    completion_key,
    likeliest,
    log_probability,
    penalise,
    slot_sampling,
    threshold,
)
from jax_sft.sharding import BATCH_AXES, make_generation_mesh

jitted_choose = jax.jit(choose)


def settings(B: int, temperature: float = 1.0, **others: Any) -> SlotSampling:
    """The same settings for every slot."""
    return slot_sampling([Sampling(temperature, **others)] * B, range(B), B)


def thresholds(logits_BV: jax.Array, sampling: SlotSampling) -> jax.Array:
    """The threshold of each slot [B]."""
    return threshold(sampling_page.in_blocks(logits_BV), sampling)


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
@pytest.mark.parametrize(("V", "candidate_blocks"), [(57, 64), (30 * BLOCK + 5, 64), (30 * BLOCK + 5, 3)])
def test_filters_agree_with_the_reference(
    V: int, candidate_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3 blocks that are looked at first most thresholds cannot be proven, and all tokens are looked at."""
    monkeypatch.setattr(sampling_page, "CANDIDATE_BLOCKS", candidate_blocks)
    rng = np.random.default_rng(0)
    B = 400 if V < BLOCK else 83  # not a multiple of the slots that are looked at together
    logits_BV = (rng.standard_normal((B, V)) * rng.choice([0.3, 1, 4], (B, 1))).astype(np.float32)
    top_p_B = np.where(rng.random(B) < 0.3, 1.0, rng.uniform(0.01, 0.999, B)).astype(np.float32)
    top_k_B = np.where(rng.random(B) < 0.3, 0, rng.integers(1, 2 * V, B)).astype(np.int32)
    min_p_B = np.where(rng.random(B) < 0.3, 0.0, rng.uniform(0, 1, B) ** 3).astype(np.float32)
    sampling = settings(B)._replace(top_p_B=top_p_B, top_k_B=top_k_B, min_p_B=min_p_B)
    least_B = jax.jit(lambda *given: thresholds(*given))(jnp.asarray(logits_BV), sampling)
    kept_BV = logits_BV >= np.asarray(least_B)[:, None]
    for row in range(B):
        want_V = allowed(logits_BV[row], top_p_B[row], top_k_B[row], min_p_B[row])
        assert np.array_equal(kept_BV[row], want_V), (top_p_B[row], top_k_B[row], min_p_B[row])
    assert len(set(kept_BV.sum(axis=1).tolist())) > 20, "settings that keep few, many and all tokens"


@pytest.mark.short
def test_each_device_chooses_for_its_own_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a mesh: the first half of the slots takes two rounds through all tokens, the second none.

    Devices that share weights each have a part of the vocabulary, and send it to where the slots are.
    """
    monkeypatch.setattr(sampling_page, "CANDIDATE_BLOCKS", 3)
    rng = np.random.default_rng(2)
    B = 48
    flat_B = (np.arange(B) % 12 < 5) & (np.arange(B) < B // 2)
    logits_BV = np.where(flat_B, 0.5, 40.0)[:, None] * rng.standard_normal((B, 9 * BLOCK))
    keys_B2 = np.stack([completion_key(0, "item", n) for n in range(B)])
    given = np.float32(logits_BV), keys_B2, np.arange(B, dtype=np.int32), settings(B, top_p=0.9)
    mesh = make_generation_mesh(4, jax.devices())
    with jax.set_mesh(mesh):
        rows = NamedSharding(mesh, PartitionSpec(BATCH_AXES))
        logits = jax.device_put(given[0], NamedSharding(mesh, PartitionSpec(BATCH_AXES, "tensor")))
        placed = logits, *jax.device_put(given[1:], rows)
        split = jax.jit(lambda *given: choose(*given)).lower(*placed).compile()
        assert np.array_equal(np.asarray(split(*placed)), np.asarray(jitted_choose(*given)))
    assert set(re.findall(r" (all-\w+|collective-\w+)\(", split.as_text())) <= {"all-to-all"}


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
    least = float(thresholds(logits_1V, settings(1, **chosen))[0])
    assert np.array_equal(logits_1V[0] >= least, np.asarray(logits) >= sorted(logits, reverse=True)[kept - 1])


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


def test_tokens_of_many_blocks_are_drawn_as_often_as_their_probability() -> None:
    """Shares of 4 blocks and a bit from 0.3 to 1e-5; 70 is beyond the 99.99% point of 33 degrees."""
    B, V = 20_000, 4 * BLOCK + 7
    rng = np.random.default_rng(3)
    logits_V = rng.standard_normal(V) * 2.5
    observed_V = np.bincount(draw(logits_V, B, {"min_p": 1e-4}), minlength=V)
    may_V = allowed(logits_V, 1.0, 0, 1e-4)
    probability_V = np.where(may_V, np.exp(logits_V), 0)
    probability_V /= probability_V.sum()
    assert observed_V[~may_V].sum() == 0
    cell_V = np.digitize(np.cumsum(probability_V), np.linspace(0, 1, 34)[1:-1])
    counts, expected = (np.bincount(cell_V, weights=w) for w in (observed_V, B * probability_V))
    assert chi_square(counts, expected) < 70
    rarest_V = may_V & (probability_V < 1e-4)
    assert abs(observed_V[rarest_V].sum() - B * probability_V[rarest_V].sum()) < 4 * np.sqrt(
        B * probability_V[rarest_V].sum()
    )


def test_the_token_drawn_is_that_of_the_reference() -> None:
    """The race in float64, entry by entry, with the same times."""
    B, V = 200, 9 * BLOCK - 3
    rng = np.random.default_rng(4)
    logits_BV = rng.standard_normal((B, V)).astype(np.float32) * 3
    keys_B2 = np.stack([completion_key(0, "item", n) for n in range(B)])
    chosen = settings(B, 0.7, top_p=0.9, top_k=40)
    got_B = np.asarray(jitted_choose(jnp.asarray(logits_BV), keys_B2, np.arange(B), chosen))
    for row in range(B):
        scaled_V = logits_BV[row] / np.float32(0.7)
        weights_V = np.where(allowed(scaled_V, 0.9, 40, 0), np.exp(scaled_V.astype(np.float64)), 0)
        times = np.asarray(sampling_page.exponential(jnp.asarray(keys_B2[row]), jnp.asarray(row), 9 + BLOCK))
        blocks = np.pad(weights_V, (0, 3)).reshape(9, BLOCK)
        block = int(np.argmax(blocks.sum(axis=1) / times[:9]))
        assert got_B[row] == block * BLOCK + np.argmax(blocks[block] / times[9:])


def test_penalties_and_log_probabilities_are_those_of_the_reference() -> None:
    rng = np.random.default_rng(6)
    B, V = 5, 40
    logits_BV = rng.standard_normal((B, V)).astype(np.float32)
    counts_BV = rng.integers(0, 4, (B, V)).astype(np.uint16)
    presence, frequency = (0.0, 1.5, -2.0, 0.0, 0.3), (0.0, 0.0, 0.25, -1.0, 2.0)
    given = [
        Sampling(1.0, presence_penalty=a, frequency_penalty=b)
        for a, b in zip(presence, frequency, strict=True)
    ]
    got_BV = penalise(jnp.asarray(logits_BV), jnp.asarray(counts_BV), slot_sampling(given, range(B), B))
    for b, v in np.ndindex(B, V):
        want = logits_BV[b, v] - presence[b] * (counts_BV[b, v] > 0) - frequency[b] * int(counts_BV[b, v])
        assert got_BV[b, v] == pytest.approx(want, abs=1e-6)
    token_B = rng.integers(0, V, B)
    got_B = log_probability(jnp.asarray(logits_BV), jnp.asarray(token_B))
    want_BV = scipy.special.log_softmax(logits_BV.astype(np.float64), axis=-1)
    assert np.allclose(got_B, want_BV[np.arange(B), token_B], atol=1e-6)


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
    one_filtered = free._replace(top_k_B=np.eye(B, dtype=np.int32)[0])
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


def test_of_tokens_as_likely_the_first_is_greedy() -> None:
    logits_BV = np.random.default_rng(0).integers(0, 4, (64, 50)).astype(np.float32)
    assert np.array_equal(jax.jit(likeliest)(logits_BV), np.argmax(logits_BV, axis=1))


def test_what_logits_are_made_of_does_not_confuse_the_greedy_choice() -> None:
    """Products that a compiler might round otherwise in another pass, as of penalties or a head in 8 bits."""
    rng = np.random.default_rng(1)
    a_BV, b_BV = rng.normal(size=(2, 32, 1000)).astype(np.float32)

    @jax.jit
    def greedy(a_BV: jax.Array, b_BV: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BV = a_BV * b_BV - (b_BV * 0.3 + a_BV * 1.7)
        return likeliest(logits_BV), logits_BV

    token_B, logits_BV = greedy(a_BV, b_BV)
    assert np.array_equal(token_B, np.argmax(logits_BV, axis=1))
