"""Snapshots (bf16 parameters, kept for good) and state (everything to continue, the last two) on disk.

Both are Orbax checkpoint folders, written in the background and committed by a rename, so that a reader
never sees half a save. Beside each finished save lies a list of its files with sizes and checksums;
a save that no longer matches its list is never loaded.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from jax_sft.errors import JaxSftError
from jax_sft.files import read_json, write_json

STATES_KEPT = 2
_ITEM = "tree"


class Store:
    """Saves of one kind (`snapshots` or `state`) of one run."""

    def __init__(self, folder: epath.PathLike, keep: int | None = None, read_only: bool = False) -> None:
        """Open `folder`, keeping the last `keep` saves (None keeps all)."""
        self.folder = epath.Path(folder)
        policy = ocp.checkpoint_managers.LatestN(keep) if keep else None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            create=not read_only,
            read_only=read_only,
            enable_async_checkpointing=not read_only,
            cleanup_tmp_directories=not read_only,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_names=(_ITEM,))
        if not read_only:
            self._list_unlisted()

    def steps(self) -> list[int]:
        """Steps of the finished saves, in order."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: Any) -> None:
        """Start saving `tree` for `step`; returns when the arrays are copied. Errors of earlier saves surface here."""
        try:
            self._manager.wait_until_finished()
            self._list_unlisted()
            self._manager.save(step, args=ocp.args.Composite(**{_ITEM: ocp.args.PyTreeSave(tree)}), force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise _save_error(self.folder, step, error) from error

    def wait(self) -> None:
        """Wait until the save under way is committed."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            raise _save_error(self.folder, None, error) from error

    def drop(self, step: int) -> None:
        """Delete the save at `step`."""
        self._manager.delete(step)

    def check(self) -> None:
        """Raise the error of a background save, if one failed."""
        try:
            self._manager.check_for_errors()
        except Exception as error:
            raise _save_error(self.folder, None, error) from error

    def finish(self) -> None:
        """Wait for the saves under way and close."""
        try:
            self._manager.wait_until_finished()
            self._list_unlisted()
            self._manager.close()
        except (OSError, ValueError, RuntimeError) as error:
            raise _save_error(self.folder, None, error) from error

    def load(self, step: int, target: Any) -> Any:
        """The tree saved at `step`, in the shapes, types and shardings of the abstract `target`."""
        fault = self.fault(step)
        if fault:
            raise JaxSftError(f"{self.folder / str(step)}: {fault}; it is not loaded")
        restore = ocp.args.PyTreeRestore(
            item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)
        )
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{_ITEM: restore}))[_ITEM]
        except Exception as error:
            first = str(error).strip().split("\n")[0]
            raise JaxSftError(f"{self.folder / str(step)}: cannot be read: {first}") from error

    def fault(self, step: int) -> str:
        """Why the save at `step` must not be used, or an empty string."""
        listing = self._listing(step)
        if not listing.exists():
            return "its list of files is missing, so it may be incomplete"
        for name, (size, checksum) in read_json(listing).items():
            path = self.folder / str(step) / name
            if not path.exists():
                return f"file {name} is missing"
            data = path.read_bytes()
            if len(data) != size or zlib.crc32(data) != checksum:
                return f"file {name} has changed since it was saved (size or checksum differs)"
        return ""

    def _listing(self, step: int) -> epath.Path:
        return self.folder / f"{step}.files.json"

    def _list_unlisted(self) -> None:
        """Write the lists of committed saves, and drop those of saves that were retired."""
        if jax.process_index() != 0:
            return
        steps = set(self.steps())
        for step in steps:
            if not self._listing(step).exists():
                write_json(self._listing(step), _checksums(self.folder / str(step)))
        for listing in self.folder.glob("*.files.json"):
            if int(listing.name.split(".")[0]) not in steps:
                listing.unlink(missing_ok=True)


def _checksums(folder: epath.Path) -> dict[str, tuple[int, int]]:
    files = {}
    for path in _files(folder):
        data = path.read_bytes()
        files[path.as_posix().removeprefix(folder.as_posix() + "/")] = (len(data), zlib.crc32(data))
    return files


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _save_error(folder: epath.Path, step: int | None, error: Exception) -> JaxSftError:
    which = f"step {step} of {folder}" if step is not None else str(folder)
    first = str(error).strip().split("\n")[0]
    return JaxSftError(
        f"saving {which} failed: {first}; earlier saves are intact: mend the cause (free space?) "
        "and run the same command to go on from the last state"
    )


def snapshot_store(run_folder: epath.PathLike, read_only: bool = False) -> Store:
    """The store of a run's snapshots."""
    return Store(epath.Path(run_folder) / "snapshots", read_only=read_only)


def state_store(run_folder: epath.PathLike) -> Store:
    """The store of a run's resumable state."""
    return Store(epath.Path(run_folder) / "state", keep=STATES_KEPT)


@jax.jit
def to_snapshot(params: Any) -> Any:
    """The parameters as a snapshot keeps them: bfloat16, rounded to nearest even."""
    return jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)


def load_snapshot(run_folder: epath.PathLike, step: int, abstract_params: Any) -> Any:
    """Parameters of one snapshot in the types and shardings of `abstract_params`; JaxSftError if it is unsound."""
    folder = epath.Path(run_folder)
    if not (folder / "snapshots").exists():
        raise JaxSftError(f"{folder}: has no snapshots; train the run first")
    store = snapshot_store(folder, read_only=True)
    steps = store.steps()
    if step not in steps:
        raise JaxSftError(f"{folder}: has no snapshot at step {step}; there are {steps}")
    return store.load(step, abstract_params)
