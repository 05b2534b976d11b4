"""Whether a run's snapshots and states can be written and will fit on the disk, asked before training."""

import os
import shutil

import jax
from etils import epath

from jax_sft.config import Run, Study
from jax_sft.errors import UsageError
from jax_sft.files import in_bucket
from jax_sft.layout import run_folder
from jax_sft.training.sizes import snapshot_bytes, state_size

STATES = 3
"""States on disk while one is saved."""


def check_room(study: Study, run: Run, snapshots: list[int], exports: list[int]) -> None:
    """UsageError when the folder cannot be written, or its disk has no room for what is still to be saved.

    Object stores (gs://) are taken to have room.
    """
    folder = run_folder(study, run.name)
    if in_bucket(folder) or jax.process_index():
        return
    missing = [step for step in snapshots if not (folder / "snapshots" / str(step)).exists()]
    missing += [step for step in exports if not (folder / "exports" / str(step)).exists()]
    states = max(0, STATES - _count(folder / "state"))
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
