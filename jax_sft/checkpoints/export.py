"""Snapshots as Hugging Face folders: one when asked for, or named ones while training goes on."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from rich.console import Console

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import ParallelismConfig, Run, Study
from jax_sft.errors import JaxSftError
from jax_sft.machine import Apart
from jax_sft.models.params import abstract_params
from jax_sft.models.weights.write import is_exported, write_huggingface
from jax_sft.sharding import make_mesh
from jax_sft.study.folder import export_folder, run_folder
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template


def export_snapshot(study: Study, run: Run, step: int, target: epath.PathLike) -> None:
    """Write the parameters after `step` updates, bit for bit as stored, with tokenizer and template.

    Raises:
        JaxSftError: no such snapshot, or one that is not sound.
    """
    mesh = make_mesh(ParallelismConfig(), jax.local_devices(backend="cpu")[:1])
    wanted = abstract_params(run.model, jnp.bfloat16, mesh)
    params = load_snapshot(run_folder(study, run.name), step, wanted)
    tokenizer = load_tokenizer(run.tokens)
    write_huggingface(target, run.model, params, tokenizer, load_template(run.tokens, tokenizer))


_LONGEST = 7 * 24 * 3600
"""Seconds that the other processes wait for process 0 to export; JAX ends a job whose processes do not end
within minutes of one another."""


class Exports(AbstractContextManager["Exports"]):
    """Writes `exports/STEP` below a run's folder for each of `steps`, one after the other, on process 0.

    A folder that is there is left alone, so that a resumed run makes those that are missing. Leaving the
    context ends the export under way.
    """

    def __init__(self, folder: epath.Path, steps: Sequence[int], console: Console) -> None:
        self._folder, self._console, self._any = folder, console, bool(steps)
        chosen = steps if jax.process_index() == 0 else ()
        self._waiting = sorted(step for step in chosen if not is_exported(self._target(step)))
        self._running: tuple[int, Apart] | None = None
        self._failed: list[str] = []

    def __exit__(self, *_: object) -> None:
        if self._running:
            self._running[1].stop()

    def next(self, before: int) -> None:
        """Start the next export, unless one is under way; snapshots of steps below `before` are committed."""
        if self._running and self._running[1].running:
            return
        self._collect()
        if self._waiting and self._waiting[0] < before:
            step = self._waiting.pop(0)
            words = ["export", str(self._folder), str(step), str(self._target(step))]
            self._running = step, Apart("jax_sft", words, {"JAX_PLATFORMS": "cpu"})

    def finish(self, last: int) -> None:
        """Make all that are left, up to step `last`; JaxSftError naming each that failed.

        Every process calls it, and all return when process 0 has made them.
        """
        try:
            while self._running or self._waiting:
                self._collect()
                self.next(last + 1)
        finally:
            if self._any and jax.process_count() > 1:
                everyone = set(range(jax.process_count()))
                ocp.multihost.sync_global_processes("exports", timeout=_LONGEST, processes=everyone)
        if self._failed:
            raise JaxSftError("; ".join(self._failed))

    def _collect(self) -> None:
        """Wait for the export under way, if there is one."""
        if not self._running:
            return
        (step, process), self._running = self._running, None
        ended, target = process.wait(), self._target(step)
        if ended.code:
            again = f"jax-sft export {self._folder} {step} {target}"
            self._failed.append(f"{target}: the export failed ({ended.last_words}); try `{again}`")
        else:
            self._console.print(f"exported step {step}: {target}")

    def _target(self, step: int) -> epath.Path:
        return export_folder(self._folder, step)
