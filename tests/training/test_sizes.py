"""What a run keeps, in bytes."""

import jax

from jax_sft.config import LoraConfig, OptimizerConfig, ParallelismConfig, replace
from jax_sft.models.size import model_size
from jax_sft.sharding import make_mesh
from jax_sft.training.sizes import snapshot_bytes, state_size
from jax_sft.training.step import abstract_state
from tests.training.tiny import RUN

N = model_size(RUN.model).total
COUNT = 4
"""Bytes of the optimizer's own step."""


def test_snapshots_are_bfloat16_and_states_hold_weights_and_moments() -> None:
    assert snapshot_bytes(RUN) == 2 * N
    size = state_size(RUN)
    assert (size.frozen, size.learnt, size.moments) == (0, 4 * N, 8 * N + COUNT)
    assert state_size(replace(RUN, param_dtype="bfloat16")).total == 6 * N + COUNT
    assert (
        state_size(replace(RUN, optimizer=OptimizerConfig(first_moment="bfloat16"))).moments == 6 * N + COUNT
    )


def test_with_adapters_only_these_are_learnt() -> None:
    lora = LoraConfig(rank=4, targets=("q", "up"))
    size = state_size(replace(RUN, lora=lora))
    learnt = RUN.model.num_layers * 4 * (2 * RUN.model.hidden_size + 32 + RUN.model.mlp_size)
    assert (size.frozen, size.learnt, size.moments) == (4 * N, 4 * learnt, 8 * learnt + COUNT)
    assert snapshot_bytes(replace(RUN, lora=lora)) == 2 * N, "adapters are folded into the weights"


def test_it_is_what_training_holds() -> None:
    state = abstract_state(RUN, make_mesh(ParallelismConfig(), jax.devices()[:1]))
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state.params, state.opt_state)))
    assert held == state_size(RUN).total
