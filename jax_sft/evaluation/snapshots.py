"""The snapshots of a run as a sweep reads them: the next one ahead, and none that is not what was saved.

They are read into the host's memory: the devices have room for one snapshot, which is answering meanwhile.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import ml_dtypes
import numpy as np
from etils import epath

from jax_sft.checkpoints.listing import is_old
from jax_sft.checkpoints.store import Store, snapshot_store
from jax_sft.config import Run, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import in_bucket, list_files
from jax_sft.models import Params
from jax_sft.models.params import on_host
from jax_sft.study.folder import run_folder

_EXPONENT = np.uint16(0x7F80)
"""Of bfloat16: all its bits are set in what is infinite or no number."""
READ_ANYWAY = 256 << 20
"""Bytes up to which a local snapshot that is not needed is read all the same, to see that it is sound."""


def snapshots_to_sweep(study: Study, run: Run, steps: Sequence[int] | None) -> list[int]:
    """Steps of the run's finished snapshots, or those asked for; an error names what is absent."""
    folder = run_folder(study, run.name)
    with snapshot_store(folder, read_only=True, alone=True) as store:
        present = store.steps()
    if not present:
        raise JaxSftError(f"{folder}: has no snapshots; train run {run.name} first")
    absent = sorted(set(steps or []) - set(present))
    if absent:
        there = ", ".join(map(str, present))
        raise UsageError(f"run {run.name}: has no snapshot at step {absent[0]}; there are {there}")
    return sorted(set(steps or present))


class Snapshots:
    """Reads the snapshots of a run as numpy arrays, in the shapes and types of `wanted`."""

    def __init__(self, study: Study, run: str, wanted: Params, give_up: Callable[[str], None]) -> None:
        """`give_up` is told of each snapshot that cannot be used, and why."""
        self._folder, self._wanted, self._give_up = run_folder(study, run), on_host(wanted), give_up

    def read(self, steps: Sequence[int]) -> Iterator[tuple[int, Params]]:
        """The weights of each snapshot, the next being read meanwhile; an unsound one is passed over.

        Nothing is kept here of what was given.
        """
        with (
            snapshot_store(self._folder, read_only=True, alone=True) as store,
            ThreadPoolExecutor(max_workers=1) as reader,
        ):
            ahead = deque(reader.submit(self._load, store, step) for step in steps[:1])
            for index, step in enumerate(steps):
                found = ahead.popleft().result()
                ahead.extend(reader.submit(self._load, store, step) for step in steps[index + 1 : index + 2])
                if isinstance(found, str):
                    self._give_up(f"{store.folder / str(step)}: {found}; passed over")
                    continue
                held = [found]
                del found
                yield step, held.pop()

    def examine(self, steps: Sequence[int]) -> None:
        """Look at snapshots that nothing has to be drawn from; small ones are read, so that all is seen."""
        with snapshot_store(self._folder, read_only=True, alone=True) as store:
            for step in steps:
                save = store.folder / str(step)
                if not in_bucket(save) and _size(save) <= READ_ANYWAY:
                    found = self._load(store, step)
                else:  # an older version's list would have all of it read
                    found = "" if is_old(save) else store.fault(step)
                if isinstance(found, str) and found:
                    self._give_up(f"{save}: {found}; what was drawn from it is kept")

    def _load(self, store: Store, step: int) -> Params | str:
        """The weights, or what is wrong with them."""
        if fault := store.fault(step):
            return fault
        try:
            params: Params = store.load(step, self._wanted, checked=True)
            return params if _finite(params) else "holds weights that are not finite numbers"
        except JaxSftError as error:
            return str(error).removeprefix(f"{store.folder / str(step)}: ").removesuffix("; it is not loaded")


def _size(save: epath.Path) -> int:
    return sum(entry.size for entry in list_files(save).values())


def _finite(params: Params) -> bool:
    return all(map(_all_finite, jax.tree.leaves(params)))


def _all_finite(array: np.ndarray) -> bool:
    """Row by row, so that little more memory is taken; other threads go on meanwhile."""
    rows = array if array.ndim > 1 else array[None]
    if array.dtype == ml_dtypes.bfloat16:  # numpy's own functions know the bits alone, and hold no lock
        return all(bool(((row.view(np.uint16) & _EXPONENT) != _EXPONENT).all()) for row in rows)
    return all(bool(np.isfinite(row).all()) for row in rows)
