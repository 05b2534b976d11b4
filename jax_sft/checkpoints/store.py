"""Snapshots (bf16 parameters, kept for good) and state (everything to continue, the last two) on disk.

Each save is a folder that Orbax writes in the background. It counts once it holds its list of files, which
is written last: locally the folder then gets its name, in a bucket it has it from the start. The list knows
names, sizes and what of checksums costs no reading; each chunk of an array carries its own checksum, which is
compared as it is loaded. A save that does not match is never loaded.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from threading import Event
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from jax_sft.checkpoints.arrays import Arrays
from jax_sft.checkpoints.listing import CHANGED, LISTING, fault_of, is_old, seal
from jax_sft.errors import JaxSftError
from jax_sft.files import absolute, in_bucket, list_files, read_bytes, remove_folder
from jax_sft.machine import from_first, most_of_all
from jax_sft.study.folder import snapshots_folder, state_folder
from jax_sft.study.records import short_hash

STATES_KEPT = 2
REMEDY = "earlier saves are intact; mend the cause, then the same command goes on from the last state"
_SCRATCH = ".unfinished"
"""What the local folder of a save under way, or of one being deleted, has after its step."""
_UNFINISHED = re.compile(rf"\d+({_SCRATCH}$|\.orbax-checkpoint-tmp)")
"""Names of such folders; the second kind is that of older versions."""
_ITEM = "tree"
"""Folder of the arrays in saves of older versions."""
_LONGEST = 24 * 3600
"""Seconds that processes wait for each other's part of a save."""
_DAMAGE = re.compile(r"DATA_LOSS|OUT_OF_RANGE|NOT_FOUND|No such file")
"""How TensorStore and Orbax say that what they read is not what was written."""


class DamagedSave(JaxSftError):
    """A save that is not what was written, and in what."""

    def __init__(self, save: epath.Path, fault: str) -> None:
        super().__init__(f"{save}: {fault}; it is not loaded")
        self.save, self.fault = save, fault


class Store(AbstractContextManager["Store"]):
    """Saves of one kind (`snapshots` or `state`) of one run.

    With several processes, every one makes the same calls in the same order; process 0 looks after the
    folder. One that reads `alone` asks nothing of the others, and loads onto its own devices.
    """

    def __init__(
        self, folder: epath.PathLike, keep: int | None = None, read_only: bool = False, alone: bool = False
    ) -> None:
        """Open `folder`, keeping the last `keep` saves (None keeps all)."""
        self._alone = alone
        self._first = alone or jax.process_index() == 0
        # Orbax refuses relative paths, such as the default root.
        self.folder = absolute(folder)
        self._keep, self._arrays = keep, Arrays()
        self._writer = ThreadPoolExecutor(max_workers=1)
        self._job: Future[None] | None = None
        with _named_errors(self.folder, "opening"):
            self._steps = self._open(read_only)

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        """Wait for the save under way; after an error, one of saving does not hide it."""
        try:
            self.wait()
        except JaxSftError:
            if error is None:
                raise
        finally:
            self._writer.shutdown()

    def _open(self, read_only: bool) -> list[int]:
        """Steps of the saves that are there, on all processes those that process 0 finds."""
        found: list[int] = []
        unfinished: list[str] = []
        if self._first:
            found, unfinished = _saves(self.folder, make=not read_only)
        for name in () if read_only else unfinished:
            remove_folder(self.folder / name)
        return [int(step) for step in self._agreed(" ".join(map(str, sorted(found)))).split()]

    def _agreed(self, text: str) -> str:
        """What process 0 gives, or this one when it reads alone."""
        return text if self._alone else from_first(text)

    def steps(self) -> list[int]:
        """Steps of the saves at opening and of those saved since, in order."""
        return sorted(self._steps)

    def save(self, step: int, tree: Any) -> None:
        """Start saving `tree` for `step`; returns when the arrays are copied.

        Waits for the save before, whose error surfaces here if it failed.
        """
        copied = self._start(step, tree)
        copied.wait()
        self.check()

    def save_later(self, step: int, tree: Any) -> None:
        """As `save`, but returns at once: until the save is done, nobody may donate the arrays of `tree`."""
        self._start(step, tree)

    def _start(self, step: int, tree: Any) -> Event:
        self.wait()
        copied, held = Event(), [tree]
        self._job = self._writer.submit(self._save, step, held, copied)
        return copied

    def _save(self, step: int, held: list[Any], copied: Event) -> None:
        """The whole of a save; what is `held` is let go of once it is copied."""
        with _named_errors(self.folder / str(step), "saving"):
            try:
                place = self._place(step)
                write = self._arrays.start(place, held.pop())
            finally:
                copied.set()
            write()
            self._meet(step, "written")
            if jax.process_index() == 0:
                self._arrays.finish(place)
                seal(place, step)
                if place.name != str(step):
                    os.rename(place, self.folder / str(step))
            self._meet(step, "committed")
            self._steps.append(step)
            for old in self.steps()[: -self._keep] if self._keep else ():
                self._remove(old)

    def _place(self, step: int) -> epath.Path:
        """The empty folder to write a save into."""
        place = self.folder / (str(step) if in_bucket(self.folder) else f"{step}{_SCRATCH}")
        if jax.process_index() == 0:
            remove_folder(place)
            if not in_bucket(place):
                place.mkdir(parents=True)
        self._meet(step, "begun")
        return place

    def _meet(self, step: int, at: str) -> None:
        """Wait for all processes, by messages: with collectives, no save could go on while others run."""
        everyone = set(range(jax.process_count()))
        name = f"{self.folder.name} {step} {at}"
        ocp.multihost.sync_global_processes(name, timeout=_LONGEST, processes=everyone)

    def wait(self) -> None:
        """Wait until the save under way is committed; its error if it failed."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def check(self) -> None:
        """Raise the error of a background save, if one failed."""
        if self._job is not None and self._job.done():
            self.wait()

    def drop(self, step: int) -> None:
        """Delete the save at `step`."""
        self.wait()
        with _named_errors(self.folder / str(step), "deleting"):
            self._remove(step)

    def _remove(self, step: int) -> None:
        """Delete a save so that what an interruption leaves of it does not count."""
        save = self.folder / str(step)
        if jax.process_index() == 0 and in_bucket(save):
            (save / LISTING).unlink(missing_ok=True)
            remove_folder(save)
        elif jax.process_index() == 0 and save.exists():
            gone = self.folder / f"{step}{_SCRATCH}"
            remove_folder(gone)
            os.rename(save, gone)
            remove_folder(gone)
        self._steps.remove(step)

    def load(self, step: int, target: Any, checked: bool = False) -> Any:
        """The tree saved at `step`, in the shapes, types and shardings of the abstract `target`.

        Each process reads what it needs, once, and compares the checksums of that. DamagedSave, on all
        processes, for a save that is not what was written; one that is `checked` is not looked at before it
        is read. JaxSftError when it does not fit `target`.
        """
        save = self.folder / str(step)
        if not checked and (fault := self.fault(step)):
            raise DamagedSave(save, fault)
        tree, error = None, None
        try:
            with _named_errors(save, "loading"):
                tree = self._arrays.read(save / _ITEM if is_old(save) else save, target)
        except JaxSftError as caught:
            error = caught
        found = 0 if error is None else 2 if isinstance(error, DamagedSave) else 1
        worst = found if self._alone else most_of_all(found)
        if worst == 2 and not isinstance(error, DamagedSave):
            error = DamagedSave(save, f"{CHANGED}, by what another process reads of it")
        elif worst == 1 and error is None:
            error = JaxSftError(f"{save}: loading failed on another process")
        if error is not None:
            raise error
        return tree

    def fault(self, step: int) -> str:
        """Why the save at `step` must not be used, or an empty string; the same on all processes.

        Compares names, sizes and the checksums of what is small, or known to the bucket. What it cannot see
        is found when the chunks are loaded.
        """
        return self._agreed(fault_of(self.folder / str(step), step) if self._first else "")


def _saves(folder: epath.Path, make: bool) -> tuple[list[int], list[str]]:
    """Steps of the saves in a folder, and names of what interrupted saves left."""
    if in_bucket(folder):
        names = list_files(folder)
        steps = {name.split("/")[0] for name in names if name.split("/")[0].isdecimal()}
        unfinished = {step for step in steps if f"{step}/{LISTING}" not in names}
        return [int(step) for step in steps - unfinished], sorted(unfinished)
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    there = [path.name for path in folder.iterdir()] if folder.exists() else []
    return [int(name) for name in there if name.isdecimal()], sorted(filter(_UNFINISHED.match, there))


@contextmanager
def _named_errors(folder: epath.Path, doing: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line that says what was done to which folder."""
    try:
        yield
    except JaxSftError:
        raise
    except Exception as error:
        causes = _causes(error)
        if doing == "loading" and (damage := next(filter(_DAMAGE.search, causes), "")):
            raise DamagedSave(folder, f"{CHANGED} ({damage})") from error
        # TensorStore wraps the system's error in a long line; its number is enough.
        number = re.search(r"os_error_code='(\d+)'", str(error))
        cause = os.strerror(int(number[1])) if number else causes[0]
        remedy = f"; {REMEDY}" if doing == "saving" else ""
        raise JaxSftError(f"{folder}: {doing} failed: {cause}{remedy}") from error


def _causes(error: BaseException | None) -> list[str]:
    """First line of an error and of those that it came from."""
    lines = []
    while error is not None:
        lines.append(str(error).strip().split("\n")[0] or type(error).__name__)
        error = error.__cause__ or error.__context__
    return lines


def snapshot_store(run_folder: epath.PathLike, read_only: bool = False, alone: bool = False) -> Store:
    """The store of a run's snapshots."""
    return Store(snapshots_folder(run_folder), read_only=read_only, alone=alone)


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
    with snapshot_store(folder, read_only=True) as store:
        steps = store.steps()
        if not steps:
            raise JaxSftError(f"{folder}: has no snapshots; train the run first")
        if step not in steps:
            raise JaxSftError(f"{folder}: has no snapshot at step {step}; there are {steps}")
        return store.load(step, abstract_params)


def snapshot_checksum(run_folder: epath.PathLike, step: int) -> str:
    """Short hash of what a snapshot holds, by its list of files; empty when there is none to be read.

    That of a copied snapshot is the same; no two that were saved have the same one.
    """
    try:
        return short_hash(read_bytes(snapshots_folder(run_folder) / str(step) / LISTING))
    except FileNotFoundError:
        return ""
