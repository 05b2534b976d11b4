"""The train step: packing and sharding change nothing, one program, no big logits, skipped steps."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_sft.config import ParallelismConfig, Study, replace
from jax_sft.data.batches import Batches, iterate
from jax_sft.models.decoder import Params
from jax_sft.models.vocabulary import CHUNK_TOKENS, Options
from jax_sft.sharding import WEIGHT_AXES, make_mesh, shardings_of
from jax_sft.training.loss import weighted_nll
from jax_sft.training.placement import DeviceBatch, abstract_batch, held_rows, place_batch
from jax_sft.training.start import start_state
from jax_sft.training.step import (
    Metrics,
    TrainState,
    abstract_state,
    compile_step,
    loss_and_gradients,
)
from tests.training.batches import DATA, MICRO_BATCHES, RUN, one_example_a_row, packed, random_rows

Step = Callable[[TrainState, DeviceBatch], tuple[TrainState, Metrics]]
STEPS = 20
BATCHES = Batches(random_rows(), DATA, seed=0, epochs=STEPS / 8)


def mesh_of(devices: int, **axes: int) -> jax.sharding.Mesh:
    return make_mesh(ParallelismConfig(**axes), jax.devices()[:devices])


def first_state(mesh: jax.sharding.Mesh) -> TrainState:
    """The state before the first update of RUN, made straight into its shards."""
    with jax.set_mesh(mesh):
        return start_state(Study("study", (RUN,)), RUN, abstract_state(RUN, mesh))


def copy(state: TrainState) -> TrainState:
    """The step donates its state; this keeps ours."""
    return jax.tree.map(jnp.copy, state)


@pytest.fixture(scope="module")
def alone() -> tuple[jax.sharding.Mesh, Step]:
    """One device, and the compiled step of RUN on it."""
    mesh = mesh_of(1)
    return mesh, compile_step(RUN, abstract_state(RUN, mesh), STEPS)


@pytest.fixture(scope="module")
def start() -> TrainState:
    return first_state(mesh_of(1))


@pytest.fixture(scope="module")
def params(start: TrainState) -> Params:
    return start.params


gradients_of = jax.jit(lambda params, batch: loss_and_gradients(params, RUN, batch))


def assert_close(got: Any, want: Any, relative: float) -> None:
    """Every leaf, relative to the largest entry of that leaf."""

    def check(path: Any, a: jax.Array, b: jax.Array) -> None:
        scale = float(np.abs(b).max())
        np.testing.assert_allclose(a, b, atol=relative * scale, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(check, got, want)


def assert_same_bits(got: Any, want: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), got, want)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_packed_equals_one_example_a_row(step: int, params: Params) -> None:
    loss, gradients = gradients_of(params, packed(BATCHES, step))
    want_loss, want_gradients = gradients_of(params, one_example_a_row(BATCHES, step))
    assert float(loss) == pytest.approx(float(want_loss), rel=1e-5)
    assert_close(gradients, want_gradients, relative=1e-5)


def test_perturbing_an_example_changes_no_bit_of_what_its_neighbours_contribute(params: Params) -> None:
    """With the weights of every second example at zero, their tokens are nowhere in loss and gradients."""
    batch = packed(BATCHES, 1)
    rows = batch.rows
    silent = rows.segments % 2 == 0
    quiet = rows._replace(weights=jnp.where(silent, 0, rows.weights))
    other = quiet._replace(
        tokens=jnp.where(silent, (rows.tokens + 1) % RUN.model.vocab_size, rows.tokens),
        targets=jnp.where(silent, 0, rows.targets),
    )
    before = gradients_of(params, dataclasses.replace(batch, rows=quiet))
    after = gradients_of(params, dataclasses.replace(batch, rows=other))
    assert_same_bits(after, before)


def test_micro_batches_beyond_the_count_are_not_computed(params: Params) -> None:
    batch = packed(BATCHES, 1)
    unused = (jnp.arange(MICRO_BATCHES) >= batch.micro_batches)[:, None, None]
    assert unused.any()
    junk = jax.tree.map(lambda x: jnp.where(unused, jnp.asarray(5, x.dtype), x), batch.rows)
    assert_same_bits(
        gradients_of(params, DeviceBatch(junk, batch.micro_batches)), gradients_of(params, batch)
    )


def test_padding_alone_gives_zero(params: Params) -> None:
    batch = packed(BATCHES, 1)
    empty = DeviceBatch(jax.tree.map(jnp.zeros_like, batch.rows), batch.micro_batches)
    loss, gradients = gradients_of(params, empty)
    assert float(loss) == 0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))


def curve(mesh: jax.sharding.Mesh, step: Step, start: TrainState) -> tuple[np.ndarray, TrainState]:
    """Loss and gradient norm [STEPS, 2] of training from `start`, and the state after it."""
    state, found = jax.device_put(copy(start), shardings_of(abstract_state(RUN, mesh))), []
    with jax.set_mesh(mesh):
        for batch in iterate(BATCHES):
            state, metrics = step(state, place_batch(batch, mesh))
            found.append([float(metrics["loss"]), float(metrics["gradient_norm"])])
    return np.asarray(found), state


@pytest.fixture(scope="module")
def curve_alone(alone: tuple[jax.sharding.Mesh, Step], start: TrainState) -> tuple[np.ndarray, TrainState]:
    return curve(*alone, start)


@pytest.mark.parametrize(
    "axes",
    [
        {"fsdp": 8},
        {"fsdp": 4, "tensor": 2},
        {"replica": 2, "fsdp": 4},
        {"replica": 2, "fsdp": 1, "sequence": 2, "tensor": 2},
    ],
    ids=lambda axes: " x ".join(f"{axis} {size}" for axis, size in axes.items()),
)
def test_eight_devices_give_the_losses_of_one(
    axes: dict[str, int], curve_alone: tuple[np.ndarray, TrainState], start: TrainState
) -> None:
    mesh = mesh_of(8, **axes)
    wanted = abstract_state(RUN, mesh)
    step: Any = compile_step(RUN, wanted, STEPS)
    with jax.set_mesh(mesh):
        compiled = step.lower(wanted, place_batch(BATCHES.batch(1), mesh)).compile()
    found, state = curve(mesh, compiled, start)
    assert len(found) == STEPS
    np.testing.assert_allclose(found, curve_alone[0], rtol=1e-5)
    kernel = state.params["layers"]["mlp"]["up"]["kernel"]
    shard = kernel.addressable_shards[0].data
    ways = math.prod(axes.get(axis, 1) for axis in (*WEIGHT_AXES, "tensor"))
    assert shard.size * ways == kernel.size, "not sharded as asked"
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* all-gather", compiled.as_text())
    assert gathered, "parameters are gathered"
    assert not [dims for dims in gathered if dims.startswith("8,64,")], "activations are gathered"


def test_a_process_feeds_the_rows_of_its_own_devices() -> None:
    """Here one process has all eight devices; in tests/multihost two share them."""
    assert held_rows(8, mesh_of(8, fsdp=4, tensor=2)) == list(range(8))
    assert held_rows(4, mesh_of(2)) == [0, 1, 2, 3]


def test_sharded_start_has_the_same_bits(start: TrainState) -> None:
    assert_same_bits(first_state(mesh_of(8, fsdp=4, tensor=2)), start)


def test_one_program_whatever_the_number_of_micro_batches(
    alone: tuple[jax.sharding.Mesh, Step], curve_alone: tuple[np.ndarray, TrainState]
) -> None:
    counts = {BATCHES.batch(step).micro_batches for step in range(1, BATCHES.total_steps + 1)}
    assert len(counts) > 1
    step: Any = alone[1]
    assert step._cache_size() == 1


def test_updates_are_those_of_optax(params: Params, curve_alone: tuple[np.ndarray, TrainState]) -> None:
    """The whole step against loss, gradients and Optax's AdamW put together by hand."""
    o, warmup = RUN.optimizer, round(RUN.optimizer.warmup_fraction * STEPS)
    schedule = optax.warmup_cosine_decay_schedule(0.0, o.learning_rate, warmup, STEPS, 0.0)
    adamw = optax.adamw(schedule, o.beta1, o.beta2, o.epsilon, weight_decay=o.weight_decay)
    optimizer = optax.chain(optax.clip_by_global_norm(o.clip_norm), adamw)
    state = optimizer.init(params)

    @jax.jit
    def update(gradients: Params, state: Any, params: Params) -> tuple[Params, Any]:
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(1, STEPS + 1):
        params, state = update(gradients_of(params, packed(BATCHES, step))[1], state, params)
    assert_close(curve_alone[1].params, params, relative=1e-4)
    assert curve_alone[0][-1, 0] < curve_alone[0][0, 0]


def test_a_step_without_finite_gradient_changes_nothing(
    alone: tuple[jax.sharding.Mesh, Step], curve_alone: tuple[np.ndarray, TrainState]
) -> None:
    mesh, step = alone
    before = curve_alone[1]
    batch = place_batch(BATCHES.batch(1), mesh)
    for factor in (np.nan, np.inf):
        broken = batch.rows._replace(weights=batch.rows.weights.at[0, 0, 3].set(factor))
        with jax.set_mesh(mesh):
            after, metrics = step(copy(before), dataclasses.replace(batch, rows=broken))
        assert not np.isfinite(float(metrics["gradient_norm"]))
        assert int(after.skipped) == int(metrics["skipped"]) == 1
        assert int(after.step) == int(before.step) + 1
        assert_same_bits((after.params, after.opt_state), (before.params, before.opt_state))


def vocabulary_arrays(text: str, vocab: int) -> set[int]:
    """Sizes of the arrays in compiled text that have a vocabulary axis."""
    shapes = {tuple(map(int, dims.split(","))) for dims in re.findall(r"\b(?:f32|bf16)\[([\d,]+)\]", text)}
    return {math.prod(shape) for shape in shapes if vocab in shape}


def test_logits_never_exist_whole() -> None:
    vocab, R, T = 97, 8, 512
    data = replace(DATA, row_length=T, rows_per_micro_batch=R)
    run = replace(RUN, model=replace(RUN.model, vocab_size=vocab, num_layers=1), data=data)
    mesh = mesh_of(1)
    assert R * T > CHUNK_TOKENS
    wanted = abstract_state(run, mesh)
    step: Any = compile_step(run, wanted, STEPS)
    with jax.set_mesh(mesh):
        text = step.lower(wanted, abstract_batch((2, R, T), mesh)).compile().as_text()
    assert max(vocabulary_arrays(text, vocab)) == CHUNK_TOKENS * vocab

    # The same check does see the logits of a loss in one chunk.
    arrays = (jnp.ones((R, T, 32)), jnp.ones((32, vocab)), jnp.ones((R, T), jnp.int32), jnp.ones((R, T)))
    gradient = jax.jit(jax.grad(weighted_nll), static_argnums=4)
    whole = gradient.lower(*arrays, Options(chunk_tokens=R * T)).compile().as_text()
    assert max(vocabulary_arrays(whole, vocab)) == R * T * vocab
