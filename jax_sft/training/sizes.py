"""Bytes of what a run trains and saves, counted from the very state that is trained; is there room?"""

import functools
import os
import shutil
from dataclasses import dataclass
from typing import Any

import jax
from etils import epath

from jax_sft.config import LoraConfig, ModelConfig, OptimizerConfig, ParamDtype, Run, Study
from jax_sft.errors import UsageError
from jax_sft.files import in_bucket
from jax_sft.models.lora import split
from jax_sft.models.params import abstract_params
from jax_sft.models.size import model_size
from jax_sft.study.folder import export_folder, run_folder, snapshots_folder, state_folder
from jax_sft.training.step import init_state

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
    params = abstract_params(model, param_dtype, lora=lora)
    state = jax.eval_shape(lambda params: init_state(run, params), params)
    learnt, frozen = split(state.params)
    return StateSize(_bytes(frozen), _bytes(learnt), _bytes(state.opt_state))


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def snapshot_bytes(run: Run) -> int:
    """Of one snapshot, or one export."""
    return SNAPSHOT_BYTES * model_size(run.model).total


STATES = 3
"""States on disk while one is saved."""


def check_room(study: Study, run: Run, snapshots: list[int], exports: list[int]) -> None:
    """UsageError when the folder cannot be written, or its disk has no room for what is still to be saved.

    Object stores (gs://) are taken to have room.
    """
    folder = run_folder(study, run.name)
    if in_bucket(folder) or jax.process_index():
        return
    missing = [step for step in snapshots if not (snapshots_folder(folder) / str(step)).exists()]
    missing += [step for step in exports if not export_folder(folder, step).exists()]
    states = max(0, STATES - _count(state_folder(folder)))
    needed = snapshot_bytes(run) * len(missing) + state_size(run).total * states
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UsageError(f"{place}: is not a folder that can be written to; choose another --root")
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UsageError(
            f"{folder}: {len(missing)} snapshots and exports and {states} states need about "
            f"{needed / 1e9:.3g} GB, {free / 1e9:.3g} GB are free; name fewer in snapshots.schedule, or "
            "another --root"
        )


def _count(folder: epath.Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0
