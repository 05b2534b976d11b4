"""Weights at work: the devices hold one set, before, while and after another one is loaded."""

import gc
from typing import Any

import jax
import numpy as np
import pytest

from jax_sft.config import EvaluationConfig, ParallelismConfig
from jax_sft.generation.engine import Engine
from jax_sft.models import Params
from jax_sft.planning.programs import held
from jax_sft.sharding import make_mesh
from tests.generation.tiny import CONTEXT, MODEL, STOPS, engine, generate, greedy_requests, params, placed


def on_devices() -> int:
    """Bytes of all arrays that are alive on devices."""
    gc.collect()
    return sum(array.nbytes for array in jax.live_arrays())


def of_host(made: Engine, seed: int) -> Params:
    """The tiny weights as a snapshot is read."""
    return jax.tree.map(lambda x, leaf: x.astype(leaf.dtype), params(seed), made.abstract_params())


@pytest.mark.parametrize("weight_dtype", ["same", pytest.param("int8", marks=pytest.mark.slow)])
def test_devices_hold_one_set_of_weights_as_the_plan_counts(
    weight_dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = EvaluationConfig(slots=2, context=CONTEXT, chunk=5, weight_dtype=weight_dtype)
    made = Engine(MODEL, evaluation, STOPS, make_mesh(ParallelismConfig(), jax.devices()[:1]))
    weights, before = held(made.abstract_ready()), on_devices()
    made.load(of_host(made, 0))
    assert on_devices() - before == weights
    answers = made.generate(greedy_requests())
    next(answers)
    slots = held(made.abstract_slots())
    assert weights + slots <= on_devices() - before < weights + slots + 1024, "a chunk's tokens come to it"
    del answers
    raw = made.abstract_params()
    piece = max(
        held(raw["layers"]) // MODEL.num_layers, *(held(raw[name]) for name in raw if name != "layers")
    )
    seen, layer = list[int](), made._ready._layer

    def watched(*args: Any) -> Any:
        seen.append(on_devices() - before)
        return layer(*args)

    monkeypatch.setattr(made._ready, "_layer", watched)
    made.load(of_host(made, 1))
    assert len(seen) == MODEL.num_layers
    assert max(seen) <= weights + piece, "the old ones are gone before the new ones come"
    assert on_devices() - before == weights
    made.unload()
    assert on_devices() == before


@pytest.mark.parametrize(("devices", "tensor"), [(1, 1), (8, 2)])
def test_weights_of_the_host_and_of_devices_are_loaded_to_the_same(devices: int, tensor: int) -> None:
    shared = engine(slots=3, devices=devices, tensor=tensor)
    want = generate(shared, greedy_requests())
    from_devices = jax.device_get(shared._params)
    shared.load(of_host(shared, 0))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(shared._params), from_devices)
    assert {(r.id, r.sample): one for r, one in shared.generate(greedy_requests())} == want


def test_weights_that_are_refused_leave_those_that_were_loaded() -> None:
    shared = engine()
    want = generate(shared, greedy_requests()[:2])
    short = {name: leaf for name, leaf in placed(shared).items() if name != "final_norm"}
    with pytest.raises(Exception, match="is missing"):
        shared.load(short)
    assert {(r.id, r.sample): one for r, one in shared.generate(greedy_requests()[:2])} == want
