"""Adam's moments in the host's memory between updates: the same training, and states that fit both."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_sft.checkpoints.store import state_store
from jax_sft.config import ParallelismConfig, replace
from jax_sft.data.batches import Batches
from jax_sft.sharding import make_mesh
from jax_sft.training.step import abstract_state
from tests.training.batches import DATA, RUN, random_rows, train_steps

ON_HOST = replace(RUN, optimizer_memory="host")
MESH = make_mesh(ParallelismConfig(), jax.devices()[:2])


def kinds(tree: Any) -> set[str | None]:
    """Memories of the arrays of a tree, scalars left out."""
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree) if leaf.ndim}


def test_moments_on_the_host_learn_the_same_and_are_restored_into_either_memory(tmp_path: Path) -> None:
    batches = Batches(random_rows(), DATA, seed=0, epochs=1)
    state, losses = train_steps(ON_HOST, batches, MESH)
    expected, expected_losses = train_steps(RUN, batches, MESH)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state, expected)
    assert (kinds(state.opt_state), kinds(state.params)) == ({"pinned_host"}, {"device"})
    with state_store(tmp_path) as store:
        store.save(1, state)
        store.wait()
        for run, kind in ((ON_HOST, "pinned_host"), (RUN, "device")):
            restored = store.load(1, abstract_state(run, MESH))
            assert kinds(restored.opt_state) == {kind}
            jax.tree.map(np.testing.assert_array_equal, restored, state)
