"""All-bfloat16 training, as the original trains, and a bfloat16 first moment."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import OptimizerConfig, ParallelismConfig, Remat, replace
from jax_sft.data.batches import Batches
from jax_sft.sharding import make_mesh
from jax_sft.training.step import TrainState, abstract_state
from tests.training.batches import DATA, RUN, random_rows, train_steps

BATCHES = Batches(random_rows(), DATA, seed=0, epochs=1)


def types(tree: Any) -> set[Any]:
    return {leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


def train(**changes: Any) -> tuple[TrainState, list[float]]:
    run = replace(RUN, **changes)
    mesh = make_mesh(ParallelismConfig(), jax.devices()[:2])
    state, losses = train_steps(run, BATCHES, mesh)
    assert types(abstract_state(run, mesh)) == types(state)
    return state, losses


@pytest.fixture(scope="module")
def exact() -> list[float]:
    return train()[1]


def test_weights_and_moments_stay_bfloat16_and_learn_nearly_as_well(exact: list[float]) -> None:
    state, losses = train(param_dtype="bfloat16")
    assert types(state) == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(losses, exact, rtol=2e-2)
    assert losses[-1] < losses[0]
    assert losses != exact


def test_the_first_moment_alone_can_be_bfloat16(exact: list[float]) -> None:
    optimizer: OptimizerConfig = replace(RUN.optimizer, first_moment="bfloat16")
    state, losses = train(optimizer=optimizer)
    assert types(state.params) == {jnp.dtype(jnp.float32)}
    assert types(state.opt_state) == {jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(losses, exact, rtol=2e-3)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_computing_in_bfloat16_learns_nearly_the_same(exact: list[float], remat: Remat) -> None:
    state, losses = train(compute_dtype="bfloat16", remat=remat)
    assert types(state) == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(losses, exact, rtol=5e-3)
    assert losses != exact
