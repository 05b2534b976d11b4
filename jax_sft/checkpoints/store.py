"""Snapshots (bf16 parameters, kept for good) and state (everything to continue, the last two) on disk.

Both are Orbax checkpoint folders, written in the background and committed by a rename, so that a reader
never sees half a save. Each holds a list of its files with sizes and checksums, written just before the
commit; a save that does not match its list is never loaded.
"""

import logging
import os
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import PurePath
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import absolute, read_json, write_json
from jax_sft.study.folder import snapshots_folder, state_folder
from jax_sft.study.records import short_hash

STATES_KEPT = 2
REMEDY = "earlier saves are intact; mend the cause, then the same command goes on from the last state"
_ITEM = "tree"
_LISTING = "files.json"
_PIECE = 1 << 24

# Orbax logs the traceback of every error that it also raises; the person at the terminal gets one line.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Store:
    """Saves of one kind (`snapshots` or `state`) of one run.

    With several processes, every one makes the same calls in the same order.
    """

    def __init__(self, folder: epath.PathLike, keep: int | None = None, read_only: bool = False) -> None:
        """Open `folder`, keeping the last `keep` saves (None keeps all)."""
        # Orbax refuses relative paths, such as the default root.
        self.folder = absolute(folder)
        self._saving = -1
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._later: Future[None] | None = None
        """The save that `save_later` was asked for, until its arrays are copied."""
        # Processes then meet by messages; by collectives, saves could not start while training runs some.
        processes = ocp.options.MultiprocessingOptions(
            active_processes=set(range(jax.process_count())), barrier_sync_key_prefix=self.folder.name
        )
        seal = ocp.options.AsyncOptions(post_finalization_callback=self._seal)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep) if keep else None,
            create=False,
            read_only=read_only,
            enable_async_checkpointing=not read_only,
            async_options=None if read_only else seal,
            cleanup_tmp_directories=not read_only,
            multiprocessing_options=processes,
        )
        # Compressed, bfloat16 weights are a fifth smaller and take three times the processor to write.
        handler = ocp.PyTreeCheckpointHandler(use_compression=False, multiprocessing_options=processes)
        with _named_errors(self.folder, "opening"):
            if not read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            handlers = {_ITEM: handler}
            self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the save under way and close; after an error, one of saving does not hide it."""
        try:
            with _named_errors(self.folder, "saving"):
                try:
                    self._join()
                finally:
                    self._thread.shutdown()
                    self._manager.close()
        except JaxSftError:
            if error is None:
                raise

    def steps(self) -> list[int]:
        """Steps of the committed saves at opening and of those saved since, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: Any) -> None:
        """Start saving `tree` for `step`; returns when the arrays are copied.

        Waits for the save before, whose error surfaces here if it failed.
        """
        self.wait()
        self._start(step, tree)

    def save_later(self, step: int, tree: Any) -> None:
        """As `save`, but returns at once: until the save is done, nobody may donate the arrays of `tree`."""
        self.wait()
        self._later = self._thread.submit(self._start_later, step, tree)

    def _start_later(self, step: int, tree: Any) -> None:
        # Orbax tells every thread once of a save that failed; the caller of `save_later` has been told.
        with suppress(Exception):
            self._manager.wait_until_finished()
        self._start(step, tree)

    def _start(self, step: int, tree: Any) -> None:
        self._saving = step
        with _named_errors(self.folder / str(step), "saving"):
            self._manager.save(
                step, args=ocp.args.Composite(**{_ITEM: ocp.args.PyTreeSave(tree)}), force=True
            )

    def wait(self) -> None:
        """Wait until the save under way is committed."""
        with _named_errors(self.folder, "saving"):
            self._join()
            self._manager.wait_until_finished()

    def _join(self) -> None:
        """Wait until arrays are copied, and raise what went wrong."""
        later, self._later = self._later, None
        if later is not None:
            later.result()

    def check(self) -> None:
        """Raise the error of a background save, if one failed."""
        if self._later is not None and not self._later.done():
            return
        self._join()
        # Orbax's own check_for_errors misses an error that its finalizing thread has taken already.
        if not self._manager.is_saving_in_progress():
            self.wait()

    def drop(self, step: int) -> None:
        """Delete the save at `step`."""
        self.wait()
        with _named_errors(self.folder / str(step), "deleting"):
            self._manager.delete(step)

    def load(self, step: int, target: Any, checked: bool = False) -> Any:
        """The tree saved at `step`, in the shapes, types and shardings of the abstract `target`.

        JaxSftError for a save that does not fit `target`, or is damaged, which is not looked for again in
        one that is `checked`.
        """
        fault = "" if checked else self.fault(step)
        if fault:
            raise JaxSftError(f"{self.folder / str(step)}: {fault}; it is not loaded")
        restore = ocp.args.PyTreeRestore(
            item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)
        )
        with _named_errors(self.folder / str(step), "loading"):
            return self._manager.restore(step, args=ocp.args.Composite(**{_ITEM: restore}))[_ITEM]

    def fault(self, step: int) -> str:
        """Why the save at `step` must not be used, or an empty string."""
        save = self.folder / str(step)
        if not (save / _LISTING).exists():
            return f"{_LISTING} is missing, so the save is incomplete"
        try:
            listing = read_json(save / _LISTING).items()
        except UsageError:
            return f"{_LISTING} has changed since it was saved (it is not JSON)"
        for name, (size, checksum) in listing:
            if not (save / name).exists():
                return f"{name} is missing"
            if _checksum(save / name) != (size, checksum):
                return f"{name} has changed since it was saved (its size or checksum differs)"
        return ""

    def _seal(self) -> None:
        """List the files of the save that is about to be committed; runs in Orbax's thread of process 0."""
        unfinished = list(self.folder.glob(f"{self._saving}.orbax-checkpoint-tmp*"))
        # Where folders cannot be renamed (gs://), a save has its own name from the start.
        save = unfinished[0] if unfinished else self.folder / str(self._saving)
        write_json(save / _LISTING, {_relative(path, save): _checksum(path) for path in _files(save / _ITEM)})


@contextmanager
def _named_errors(folder: epath.Path, doing: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line that says what was done to which folder."""
    try:
        yield
    except JaxSftError:
        raise
    except Exception as error:
        # TensorStore wraps the system's error in a long line; its number is enough.
        number = re.search(r"os_error_code='(\d+)'", str(error))
        lines = str(error).strip().split("\n")
        cause = os.strerror(int(number[1])) if number else lines[0] or type(error).__name__
        remedy = f"; {REMEDY}" if doing == "saving" else ""
        raise JaxSftError(f"{folder}: {doing} failed: {cause}{remedy}") from error


def _relative(path: epath.Path, folder: epath.Path) -> str:
    return PurePath(path.as_posix()).relative_to(folder.as_posix()).as_posix()


def _checksum(path: epath.Path) -> tuple[int, int]:
    """Size and CRC-32 of a file, read in pieces."""
    size = checksum = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            size, checksum = size + len(piece), zlib.crc32(piece, checksum)
    return size, checksum


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def snapshot_store(run_folder: epath.PathLike, read_only: bool = False) -> Store:
    """The store of a run's snapshots."""
    return Store(snapshots_folder(run_folder), read_only=read_only)


def state_store(run_folder: epath.PathLike) -> Store:
    """The store of a run's resumable state."""
    return Store(state_folder(run_folder), keep=STATES_KEPT)


@jax.jit
def to_snapshot(params: Any) -> Any:
    """The parameters as a snapshot keeps them: bfloat16, rounded to nearest even."""
    return jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)


def load_snapshot(run_folder: epath.PathLike, step: int, abstract_params: Any) -> Any:
    """Parameters of one snapshot, typed and sharded as `abstract_params`; JaxSftError if it is unsound."""
    folder = epath.Path(run_folder)
    if not snapshots_folder(folder).exists():
        raise JaxSftError(f"{folder}: has no snapshots; train the run first")
    with snapshot_store(folder, read_only=True) as store:
        steps = store.steps()
        if step not in steps:
            raise JaxSftError(f"{folder}: has no snapshot at step {step}; there are {steps}")
        return store.load(step, abstract_params)


def snapshot_checksum(run_folder: epath.PathLike, step: int) -> str:
    """Short hash of what a snapshot holds, by its list of files; empty when there is none to be read."""
    listing = snapshots_folder(run_folder) / str(step) / _LISTING
    return short_hash(listing.read_bytes()) if listing.exists() else ""
