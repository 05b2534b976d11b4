"""The engine: completions equal the naive loop's and depend on weights, prompt, settings and key alone."""

import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import EvaluationConfig, ParallelismConfig, Sampling
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Request
from jax_sft.generation.engine import Engine
from jax_sft.generation.schedule import bucket
from jax_sft.generation.slots import Slots
from jax_sft.models.attention import Cached
from jax_sft.models.decoder import forward_cached
from jax_sft.models.kv_cache import LayerCache, append, insert
from jax_sft.sharding import make_mesh
from tests.generation.tiny import (
    CONTEXT,
    LENGTHS,
    MODEL,
    STOPS,
    engine,
    generate,
    greedy_requests,
    mixed_requests,
    naive_greedy,
    placed,
)


def loaded() -> Engine:
    """The shared engine, its weights in place."""
    made = engine()
    made.load(placed(made))
    return made


@pytest.mark.short
def test_greedy_completions_equal_a_whole_forward_pass_for_every_token() -> None:
    """Twelve requests through three slots: prompts of 1 to 63 tokens in two buckets, stop ids, limits."""
    got, want = generate(engine(), greedy_requests()), naive_greedy(greedy_requests())
    assert got == want
    ends = [one.finish for one in want.values()]
    assert ends.count("stop") >= 3
    assert ends.count("length") >= 3
    assert len({one.tokens for one in want.values()}) > 6, "the model is too dull to show a mistake"


def test_without_stop_ids_every_completion_reaches_its_limit() -> None:
    got = generate(engine(stops=()), greedy_requests())
    assert got == naive_greedy(greedy_requests(), stops=())
    assert {one.finish for one in got.values()} == {"length"}
    for request in greedy_requests():
        assert got[request.id, 0].token_count == request.max_new_tokens
    assert any(len(r.prompt) + r.max_new_tokens == CONTEXT for r in greedy_requests())


def test_a_stop_token_at_the_limit_is_a_stop() -> None:
    ends = naive_greedy(greedy_requests()).items()
    (name, _), stopped = next((key, one) for key, one in ends if one.finish == "stop")
    [request] = [r for r in greedy_requests() if r.id == name]
    exact = Request(name, 0, request.prompt, stopped.token_count)
    assert generate(engine(), [exact]) == {(name, 0): stopped}


@pytest.mark.parametrize("slots", [1, 16])
def test_completions_are_the_same_for_any_number_of_slots(slots: int) -> None:
    want = generate(engine(slots=3), mixed_requests())
    assert generate(engine(slots=slots), mixed_requests()) == want
    greedy = naive_greedy(greedy_requests())
    assert {key: one for key, one in want.items() if key in greedy} == greedy


def test_completions_are_the_same_in_any_order() -> None:
    requests = mixed_requests()
    want = generate(engine(), requests)
    for seed in range(3):
        random.Random(seed).shuffle(requests)
        assert generate(engine(), requests) == want


def test_samples_drawn_together_or_one_by_one_are_the_same() -> None:
    requests = [r for r in mixed_requests() if r.sampling.temperature]
    together = generate(engine(), requests)
    for sample in range(3):
        alone = generate(engine(), [r for r in requests if r.sample == sample])
        assert alone == {key: one for key, one in together.items() if key[1] == sample}
    missing = random.Random(0).sample(requests, 5)
    assert generate(engine(), missing) == {(r.id, r.sample): together[r.id, r.sample] for r in missing}


def test_samples_items_and_seeds_differ() -> None:
    prompt = mixed_requests()[2].prompt
    requests = [
        Request(item, sample, prompt, 20, Sampling(1.0)) for item in ("a", "b") for sample in range(3)
    ]
    first, again, other = (generate(engine(stops=()), requests, seed) for seed in (0, 0, 1))
    assert first == again
    drawn = [one.tokens for seed in (first, other) for one in seed.values()]
    assert len(set(drawn)) == len(drawn) == 12


def test_bfloat16_completions_do_not_depend_on_order_or_neighbours() -> None:
    """Within one compiled program this holds in any type; only across slot counts does it need float32."""
    shared, requests = engine(slots=4, dtype="bfloat16"), mixed_requests()
    want = generate(shared, requests)
    assert generate(shared, requests[::-1]) == want
    assert generate(shared, requests[20:23]) == {
        (r.id, r.sample): want[r.id, r.sample] for r in requests[20:23]
    }


def test_a_slot_is_computed_bit_for_bit_the_same_wherever_it_lies() -> None:
    B, rng, weights = 8, np.random.default_rng(0), placed(engine())
    shape = (B, MODEL.num_kv_heads, CONTEXT, MODEL.head_dim)
    pairs = rng.standard_normal((MODEL.num_layers, 2, *shape)).astype(np.float32)
    cache = tuple(LayerCache(k_BKSd, v_BKSd) for k_BKSd, v_BKSd in pairs)
    token_B = rng.integers(0, MODEL.vocab_size, B).astype(np.int32)
    position_B = rng.integers(0, CONTEXT, B).astype(np.int32)
    step = jax.jit(
        lambda token_B, position_B, cache: forward_cached(
            weights,
            MODEL,
            token_B[:, None],
            position_B[:, None],
            [Cached(x, position_B) for x in cache],
            jnp.float32,
        )
    )
    hidden_BD, after = step(token_B, position_B, cache)
    # Rotated by three slots, and with the neighbours of one slot replaced by others.
    turned = jax.tree.map(lambda x: np.roll(x, 3, axis=0), (token_B, position_B, cache))
    assert np.array_equal(step(*turned)[0], np.roll(hidden_BD, 3, axis=0))
    others = jax.tree.map(lambda x: np.concatenate([x[:1], x[:0:-1]]), (token_B, position_B, cache))
    hidden_others_BD, after_others = step(*others)
    assert np.array_equal(hidden_others_BD[0], hidden_BD[0])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), after, after_others)


def test_samples_of_an_item_share_its_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, calls = engine(slots=16), []
    refill = shared._refill

    def counted(*args: Any) -> Any:
        calls.append(args[2].tokens_RT.shape)
        return refill(*args)

    monkeypatch.setattr(shared, "_refill", counted)
    prompts = [r.prompt for r in greedy_requests() if len(r.prompt) < 30]
    requests = [Request(str(n), s, prompts[n], 4, Sampling(1.0)) for n in range(2) for s in range(8)]
    generate(shared, requests)
    assert calls == [(2, 32)]


def compilations(program: Any) -> int:
    """Entries of a jitted function's cache; another shape, type, layout or device makes another."""
    return int(program._cache_size())


def test_one_compilation_for_all_weights_settings_and_seeds() -> None:
    fresh = engine.__wrapped__(slots=3)  # not the shared one, which other tests have used
    for model_seed in range(3):
        for requests in (greedy_requests(), mixed_requests()[15:25], mixed_requests()[::7]):
            generate(fresh, requests, seed=model_seed, model_seed=model_seed)
    assert fresh.decode_compilations == 1
    assert compilations(fresh._decode) == 1
    assert compilations(fresh._refill) == 2, "one for each bucket"


@pytest.mark.parametrize("tensor", [1, 2])
def test_eight_devices_give_the_completions_of_one(tensor: int) -> None:
    """Slots over the data axes, their number rounded up to fill them; heads, MLP, vocabulary over tensor."""
    sharded = engine(slots=3, devices=8, tensor=tensor)
    assert sharded.slots == sharded.prefill_rows == 8 // tensor
    assert generate(sharded, mixed_requests()) == generate(engine(), mixed_requests())
    assert compilations(sharded._decode) == sharded.decode_compilations == 1
    layout = sharded._empty().cache[0].k_BKSd.sharding
    shape = (sharded.slots, MODEL.num_kv_heads, CONTEXT, MODEL.head_dim)
    assert layout.shard_shape(shape) == (1, MODEL.num_kv_heads // tensor, CONTEXT, MODEL.head_dim)


def test_decoding_moves_nothing_between_host_and_device_unasked() -> None:
    shared = loaded()
    with jax.transfer_guard("disallow"):
        made = list(shared.generate(mixed_requests()))
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jnp.zeros(3) + np.ones(3, np.float32)
    assert len(made) == len(mixed_requests())


@pytest.mark.parametrize(("devices", "tensor"), [(1, 1), (8, 2)])
def test_slots_are_updated_in_place(devices: int, tensor: int) -> None:
    """Decode gives back the buffers that it was given, so that there is never a second cache."""
    shared = engine(slots=3, devices=devices, tensor=tensor)
    weights = placed(shared)
    with jax.set_mesh(shared.mesh):
        slots = shared._empty()
        before = _addresses(slots)
        after, _ = shared._decode(weights, slots)
    assert _addresses(after) == before
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(slots.cache))


def _addresses(slots: Slots) -> list[int]:
    return [
        shard.data.unsafe_buffer_pointer()
        for leaf in jax.tree.leaves(slots.cache)
        for shard in leaf.addressable_shards
    ]


def test_nothing_of_the_mesh_is_left_between_completions() -> None:
    for _ in zip(range(3), loaded().generate(greedy_requests()), strict=False):
        assert jax.sharding.get_abstract_mesh().empty


def test_no_requests_no_completions() -> None:
    assert generate(engine(), []) == {}


def test_a_request_that_cannot_be_answered_is_refused_at_once() -> None:
    """Before anything is generated, and before the first completion is asked for."""
    good = greedy_requests()[0]
    with pytest.raises(UsageError, match=r"item long: .* 50 tokens and max_new_tokens 15 .* raise it to 65"):
        loaded().generate([good, Request("long", 0, tuple(range(50)), 15)])
    with pytest.raises(
        UsageError, match="item foreign: its prompt holds token 96, the model knows those below"
    ):
        loaded().generate([good, Request("foreign", 0, (5, 96), 5)])
    for bad in (Request("empty", 0, (), 5), Request("none", 0, (1, 2), 0)):
        with pytest.raises(UsageError, match=f"item {bad.id}: .* at least 1"):
            loaded().generate([good, bad])


def test_heads_that_do_not_divide_among_the_devices_are_refused() -> None:
    mesh = make_mesh(ParallelismConfig(tensor=8))
    with pytest.raises(UsageError, match="which tensor=8 does not divide"):
        Engine(MODEL, EvaluationConfig(tensor=8), STOPS, mesh)


def test_cache_append_and_insert() -> None:
    cache = LayerCache(*(jnp.full((3, 1, 4, 2), fill) for fill in (1.0, 2.0)))
    k_BKd, v_BKd = jnp.arange(6.0).reshape(3, 1, 2), -jnp.arange(6.0).reshape(3, 1, 2)
    made = append(cache, k_BKd, v_BKd, jnp.array([0, 3, 4]))  # the last is past the end
    want = np.full((3, 1, 4, 2), 1.0)
    want[0, 0, 0], want[1, 0, 3] = k_BKd[0, 0], k_BKd[1, 0]
    assert np.array_equal(made.k_BKSd, want)
    assert np.array_equal(made.v_BKSd[1, 0, 3], v_BKd[1, 0])
    prefilled_PKTd = jnp.arange(8.0).reshape(2, 1, 2, 2)
    placed_there = insert(
        cache, prefilled_PKTd, -prefilled_PKTd, jnp.array([1, 0, 0]), jnp.array([True, False, True])
    )
    assert np.array_equal(placed_there.k_BKSd[0, 0, :2], prefilled_PKTd[1, 0])
    assert np.array_equal(placed_there.v_BKSd[2, 0, :2], -prefilled_PKTd[0, 0])
    assert np.array_equal(placed_there.k_BKSd[1], cache.k_BKSd[1])
    assert np.array_equal(placed_there.k_BKSd[:, :, 2:], cache.k_BKSd[:, :, 2:])


def test_lengths_cover_both_buckets_and_their_edges() -> None:
    """A prompt of n tokens prefills n - 1; buckets are 32 and 64."""
    assert {1, 32, 33, 34, 63} <= set(LENGTHS)
    assert [bucket(range(length), CONTEXT) for length in (1, 33, 34, 64)] == [32, 32, 64, 64]
