"""Bytes of what a run trains and saves, counted from the very state that is trained."""

import functools
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

from jax_sft.config import LoraConfig, ModelConfig, OptimizerConfig, ParamDtype, Run
from jax_sft.models.decoder import init_params
from jax_sft.models.flops import model_size
from jax_sft.models.lora import split
from jax_sft.training.step import cast_params, init_state

SNAPSHOT_BYTES = 2
"""Of a parameter in a snapshot or an export."""


@dataclass(frozen=True)
class StateSize:
    """Bytes of the parts of a training state."""

    frozen: int
    """Of weights that are not learnt (see LoRA)."""
    learnt: int
    """Of weights that are; the sum of their gradients takes as much."""
    moments: int

    @property
    def total(self) -> int:
        """Of the whole state: what a save of it takes."""
        return self.frozen + self.learnt + self.moments


def state_size(run: Run) -> StateSize:
    """Sizes of the run's training state."""
    return _state_size(run.model, run.lora, run.optimizer, run.param_dtype)


@functools.cache
def _state_size(
    model: ModelConfig, lora: LoraConfig, optimizer: OptimizerConfig, param_dtype: ParamDtype
) -> StateSize:
    run = Run(model=model, lora=lora, optimizer=optimizer, param_dtype=param_dtype)
    state = jax.eval_shape(
        lambda: init_state(run, cast_params(nn.unbox(init_params(model, jax.random.key(0), lora)), run))
    )
    learnt, frozen = split(state.params)
    return StateSize(_bytes(frozen), _bytes(learnt), _bytes(state.opt_state))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def snapshot_bytes(run: Run) -> int:
    """Of one snapshot, or one export."""
    return SNAPSHOT_BYTES * model_size(run.model).total
