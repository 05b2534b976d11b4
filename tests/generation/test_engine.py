"""The engine: completions equal the naive loop's and depend on weights, prompt, settings and key alone."""

import random
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import EvaluationConfig, ParallelismConfig, Sampling, replace
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Request
from jax_sft.generation.engine import Engine, make_turn
from jax_sft.generation.schedule import Schedule
from jax_sft.generation.shards import empty_prefill
from jax_sft.generation.slots import Slots
from jax_sft.models.memory import Orders
from jax_sft.sharding import make_mesh
from tests.generation.tiny import (
    CONTEXT,
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


def test_samples_of_an_item_share_its_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, calls = engine(slots=16), list[int]()
    prefill = shared._prefill

    def counted(*args: Any) -> Any:
        calls.append(int(args[2].count_R.sum()))
        return prefill(*args)

    monkeypatch.setattr(shared, "_prefill", counted)
    asked = [r.prompt for r in greedy_requests() if len(r.prompt) > 30][:2]
    requests = [Request(str(n), s, asked[n], 4, Sampling(1.0)) for n in range(2) for s in range(8)]
    generate(shared, requests)
    assert sum(calls) == len(asked[0]) + len(asked[1]) - 2


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_a_common_beginning_is_prefilled_once_and_changes_no_bit(dtype: str) -> None:
    """Few-shot items, each alone and all together, with and without samples beside it."""
    shared, beginning = engine(slots=4, dtype=dtype, chunk=16), tuple(range(34))
    asked = [
        Request(f"{n}/{s}", s, (*beginning, n, *range(n)), 14, Sampling(0.8))
        for n in range(4)
        for s in range(3)
    ]
    together = generate(shared, asked)
    assert shared.schedule is not None
    for request in asked[::5]:
        alone = generate(shared, [request])
        assert alone[request.id, request.sample] == together[request.id, request.sample]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_with_memory_for_a_quarter_every_completion_is_the_same(dtype: str) -> None:
    """Sequences that are taken for short lose their memory on the way, and are drawn again to the same."""
    asked = [replace(request, expected_tokens=1) for request in mixed_requests()]
    want = generate(engine(slots=16, dtype=dtype, stops=()), asked)
    tight = engine(slots=16, dtype=dtype, stops=(), pages=16)
    assert generate(tight, asked) == want
    assert tight.schedule is not None
    assert tight.schedule.preemptions > 2


def test_looking_at_a_chunk_after_the_next_has_begun_changes_nothing() -> None:
    """As on accelerators: the host works while the device does."""
    fresh = engine.__wrapped__(slots=3)
    want = generate(fresh, mixed_requests())
    fresh.ahead = 1
    assert generate(fresh, mixed_requests()) == want


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
    assert compilations(fresh._prefill) == 1, "whatever the lengths of prompts"


@pytest.mark.parametrize("tensor", [1, 2])
def test_eight_devices_give_the_completions_of_one(tensor: int) -> None:
    """Slots over the data axes, their number rounded up to fill all; heads, MLP, vocabulary over tensor."""
    sharded = engine(slots=3, devices=8, tensor=tensor)
    assert (sharded.slots, sharded.shape.prefill_rows) == (8, 8 // tensor)
    assert generate(sharded, mixed_requests()) == generate(engine(), mixed_requests())
    assert compilations(sharded._decode) == sharded.decode_compilations == 1
    part = sharded._empty().layers[0].k_parts[0]
    assert part.sharding.shard_shape(part.shape)[:2] == (
        part.shape[0] // (8 // tensor),
        MODEL.num_kv_heads // tensor,
    )


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
    shared.load(placed(shared))
    weights = shared._params
    with jax.set_mesh(shared.mesh):
        slots = shared._empty()
        before = _addresses(slots)
        orders = jax.device_put(Orders(*empty_prefill(shared.shape)), shared._rows)
        slots = shared._prefill(weights, slots, orders)
        assert _addresses(slots) == before
        turn = make_turn(Schedule((), shared.shape, ()).plan(), shared.slots, 0)
        after, _ = shared._decode(weights, slots, jax.device_put(turn, shared._rows))
    assert _addresses(after) == before
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(slots.layers))
    leaf = shared.abstract_slots().layers[0].v_parts[0]
    part = ",".join(map(str, leaf.sharding.shard_shape(leaf.shape)))
    for lowered in (shared.lower_prefill(), shared.lower_decode()):
        text = lowered.compile().as_text()
        assert f"f32[{part}]" in text
        assert not re.search(rf"f32\[{part}\]\S* copy\(", text), "not even for a moment"


def _addresses(slots: Slots) -> list[int]:
    return [
        shard.data.unsafe_buffer_pointer()
        for leaf in jax.tree.leaves(slots.layers)
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


def test_weights_that_are_not_whole_are_refused() -> None:
    fresh = engine()
    good = placed(fresh)
    without = {name: leaf for name, leaf in good.items() if name != "final_norm"}
    with pytest.raises(UsageError, match=r"weights: \['final_norm'\]\['scale'\] is missing"):
        fresh.load(without)
    with pytest.raises(UsageError, match=r"weights: \['other'\] is not of this model"):
        fresh.load({**good, "other": good["final_norm"]["scale"]})
    short = {"scale": good["final_norm"]["scale"][:8]}
    with pytest.raises(UsageError, match=r"\['final_norm'\]\['scale'\] is float32 \[8\], not float32 \[32\]"):
        fresh.load({**good, "final_norm": short})
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), good)
    with pytest.raises(UsageError, match=r"is bfloat16 .* not float32"):
        fresh.load(half)
    away = {"scale": jax.device_put(good["final_norm"]["scale"], jax.devices()[1])}
    with pytest.raises(UsageError, match=r"lies as .* not as"):
        fresh.load({**good, "final_norm": away})


def test_memory_that_holds_no_context_is_refused() -> None:
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:1])
    with pytest.raises(UsageError, match=r"evaluation.pages 3 of 16 .*; raise it to 4"):
        Engine(MODEL, EvaluationConfig(context=CONTEXT, pages=3), STOPS, mesh)
    with pytest.raises(UsageError, match=r"prefill_chunk 24 is not a multiple of evaluation.page_size 16"):
        Engine(MODEL, EvaluationConfig(context=CONTEXT, prefill_chunk=24), STOPS, mesh)
