"""The snapshots of a run as a sweep reads them: the next one ahead, and none that is not what was saved."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
from etils import epath

from jax_sft.checkpoints.listing import is_old
from jax_sft.checkpoints.store import Store, snapshot_store
from jax_sft.config import Run, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import in_bucket, list_files
from jax_sft.models import Params
from jax_sft.study.folder import run_folder

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
    """Reads the snapshots of a run in the shapes, types and shardings of `wanted`."""

    def __init__(self, study: Study, run: str, wanted: Params, give_up: Callable[[str], None]) -> None:
        """`give_up` is told of each snapshot that cannot be used, and why."""
        self._folder, self._wanted, self._give_up = run_folder(study, run), wanted, give_up

    def read(self, steps: Sequence[int]) -> Iterator[tuple[int, Params]]:
        """The weights of each snapshot, the next being read meanwhile; an unsound one is passed over."""
        with (
            snapshot_store(self._folder, read_only=True, alone=True) as store,
            ThreadPoolExecutor(max_workers=1) as reader,
        ):
            ahead = reader.submit(self._load, store, steps[0]) if steps else None
            for index, step in enumerate(steps):
                assert ahead is not None
                params = ahead.result()
                if index + 1 < len(steps):
                    ahead = reader.submit(self._load, store, steps[index + 1])
                if not isinstance(params, str) and not _finite(params):
                    params = "holds weights that are not finite numbers"
                if isinstance(params, str):
                    self._give_up(f"{store.folder / str(step)}: {params}; passed over")
                else:
                    yield step, params

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
            return store.load(step, self._wanted, checked=True)
        except JaxSftError as error:
            return str(error).removeprefix(f"{store.folder / str(step)}: ").removesuffix("; it is not loaded")


def _size(save: epath.Path) -> int:
    return sum(entry.size for entry in list_files(save).values())


@jax.jit
def _all_finite(params: Params) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()


def _finite(params: Params) -> bool:
    return bool(jax.device_get(_all_finite(params)))
