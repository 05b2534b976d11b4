"""What training reports: each step's numbers, MFU and goodput among them.

With WANDB_PROJECT in the environment, Weights & Biases gets the same numbers.
"""

import hashlib
import json
import math
import os
import time
from typing import IO, Any, Self

import jax
from etils import epath
from rich.console import Console
from tensorboardX import SummaryWriter

from jax_sft.chips import device_peak
from jax_sft.config import Run
from jax_sft.data.batches import Batch
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import in_bucket, read_json, write_json
from jax_sft.models.size import model_flops
from jax_sft.study.folder import metrics_file, started_file, tensorboard_folder
from jax_sft.study.metrics import read_metrics, write_metrics, write_part
from jax_sft.terminal import bar
from jax_sft.training.step import Metrics

LINES_A_PART = 50
"""Lines that wait at most where files cannot be appended to (gs://) and are written in parts."""
SKIPS_IN_A_ROW = 10
"""Steps without a finite gradient after which training stops."""


class GradientsNotFinite(JaxSftError):
    """Too many steps in a row were skipped."""


class Reporter:
    """Reads the numbers of each step, one step late so that the device never waits, and passes them on.

    Every process reads them, so that all stop together when too many steps were skipped; process 0 writes.
    """

    def __init__(
        self, run: Run, folder: epath.Path, start_step: int, total_steps: int, skipped: int, console: Console
    ) -> None:
        self._name, self._console = run.name, console
        self._log: MetricsLog | None = None
        if jax.process_index() == 0:
            self._log = MetricsLog(folder, start_step)
            self._throughput = Throughput(run, folder, self._log.productive_seconds)
        self._progress = TrainProgress(run.name, total_steps, start_step, console)
        self._pending: tuple[Batch, Metrics] | None = None
        self._skipped, self._skips_in_a_row = skipped, 0
        self._clock = time.perf_counter()

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.__exit__()
        if self._log is not None:
            self._log.close()

    def started(self, batch: Batch, metrics: Metrics) -> None:
        """Take note of a step that was just started, and report the one before it.

        GradientsNotFinite when too many steps were skipped.
        """
        before, self._pending = self._pending, (batch, metrics)
        self._report(before)

    def catch_up(self) -> None:
        """Report the last step that was started, once it is done; GradientsNotFinite as in `started`."""
        before, self._pending = self._pending, None
        self._report(before)

    def _report(self, pending: tuple[Batch, Metrics] | None) -> None:
        if pending is None:
            return
        batch, metrics = pending
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        line = {
            "step": batch.step,
            "loss": _finite(values["loss"]),
            "learning_rate": values["learning_rate"],
            "gradient_norm": _finite(values["gradient_norm"]),
            "tokens": batch.token_count,
            "target_tokens": batch.target_count,
            "packed_rows": batch.packed_row_count,
            "tokens_per_second": round(batch.token_count / seconds, 1),
            "seconds": round(seconds, 4),
            "skipped": values["skipped"],
        }
        if self._log is not None:
            line |= self._throughput.of(batch, seconds)
            self._log.write(line)
        self._progress.update(line)
        self._watch_skips(line)

    def flush(self) -> None:
        """Report everything up to the last step and make it as durable as the state about to be saved."""
        self.catch_up()
        if self._log is not None:
            self._log.flush()

    def _watch_skips(self, line: dict[str, Any]) -> None:
        if line["skipped"] == self._skipped:
            self._skips_in_a_row = 0
            return
        self._skipped = line["skipped"]
        self._skips_in_a_row += 1
        told = f"{self._name}: step {line['step']} skipped: its gradient is not finite"
        self._console.print(told, style="yellow")
        if self._skips_in_a_row == SKIPS_IN_A_ROW:
            raise GradientsNotFinite(
                f"{self._name}: {SKIPS_IN_A_ROW} steps in a row had no finite gradient, the last is step "
                f"{line['step']}; the state is saved; look at the rows of these steps, or train again under "
                "another name with a lower optimizer.learning_rate"
            )


def _finite(value: float) -> float | None:
    """The value as JSON can hold it."""
    return value if math.isfinite(value) else None


class MetricsLog:
    """Sinks for a run's numbers; a resumed run drops the lines of steps it is about to redo."""

    def __init__(self, folder: epath.Path, start_step: int) -> None:
        self._folder = folder
        self._lines = [line for line in read_metrics(folder) if line["step"] <= start_step]
        self._written = len(self._lines)
        self.productive_seconds = sum(line.get("productive_seconds", 0.0) for line in self._lines)
        """Of the steps that are there already."""
        write_metrics(folder, self._lines)
        self._file: IO[Any] | None = None
        self._board: SummaryWriter | None = None
        if not in_bucket(folder):
            self._file = metrics_file(folder).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(tensorboard_folder(folder)), purge_step=start_step + 1)
        self._wandb = _wandb_run(folder) if os.environ.get("WANDB_PROJECT") else None

    def write(self, line: dict[str, Any]) -> None:
        """Append one step's numbers; None (JSON's null) stands for one that is not finite."""
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        else:
            self._lines.append(line)
            if len(self._lines) - self._written >= LINES_A_PART:
                self.flush()
        if self._board is not None:
            for name, value in line.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(name, value, line["step"])
        if self._wandb is not None:
            self._wandb.log(line, step=line["step"])

    def flush(self) -> None:
        """Make everything written so far durable enough for a state save to rely on."""
        if self._file is None and len(self._lines) > self._written:
            write_part(self._folder, self._lines[self._written :])
            self._written = len(self._lines)
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Write out and close every sink."""
        if self._file is not None:
            self._file.close()
        else:
            write_metrics(self._folder, self._lines)
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _wandb_run(folder: epath.Path) -> Any:
    """The Weights & Biases run of this folder, named <study>-<run>; a resumed run goes on in the same one.

    Its id says when the run was first started too: the same study under another root is another run.
    """
    try:
        import wandb
    except ImportError:
        raise UsageError(
            "WANDB_PROJECT is set, but wandb is not installed: pip install wandb, or unset it"
        ) from None
    name = f"{folder.parent.name}-{folder.name}"
    digest = hashlib.sha256(repr(first_started(folder)).encode()).hexdigest()[:10]
    # Of an id 128 characters count.
    chosen = f"{name[:100]}-{digest}"
    return wandb.init(project=os.environ["WANDB_PROJECT"], id=chosen, name=name, resume="allow")


def first_started(folder: epath.Path) -> float:
    """When the run in this folder was first started (Unix time); from now on, when it is new."""
    path = started_file(folder)
    value = read_json(path, missing=None)
    if value is None:
        value = {"time": time.time()}
        write_json(path, value)
    started = value.get("time") if isinstance(value, dict) else None
    if not isinstance(started, int | float):
        raise UsageError(f"{path}: says no time; remove the file, and goodput counts from now on")
    return started


class TrainProgress:
    """A progress bar with loss, tokens per second and time left; plain lines when there is no terminal."""

    def __init__(self, name: str, total: int, done: int, console: Console) -> None:
        self._console, self._name, self._total = console, name, total
        self._every = max(1, total // 10)
        columns = "loss {task.fields[loss]}  {task.fields[rate]} tokens/s"
        self._bar = bar(console, f"[bold]{name}", columns)
        self._task = self._bar.add_task(name, total=total, completed=done, loss="-", rate="-")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, line: dict[str, Any]) -> None:
        """Show the numbers of one finished step."""
        step, rate = line["step"], f"{line['tokens_per_second']:,.0f}"
        loss = "-" if line["loss"] is None else f"{line['loss']:.4f}"
        self._bar.update(self._task, completed=step, loss=loss, rate=rate)
        if not self._console.is_terminal and (step % self._every == 0 or step == self._total):
            self._console.print(f"{self._name}: step {step}/{self._total}  loss {loss}  {rate} tokens/s")


class Throughput:
    """Numbers for a step's line of metrics.

    - `tflops_per_second`: model FLOPs (models/size.py) per second and device.
    - `mfu`: that over the device's peak; only where the peak is known.
    - `productive_seconds`: the step's seconds; 0 for the first step of a process and of a row length, whose
      time is mostly that of compiling.
    - `goodput`: productive seconds of all steps so far over seconds since the run was first started.
      Compilation, what is redone after an interruption, and the time from an end to the next start are what
      it lacks.
    """

    def __init__(self, run: Run, folder: epath.Path, spent: float) -> None:
        """`spent` are the productive seconds of the steps before those that this process makes."""
        self._run, self._spent = run, spent
        self._devices, self._peak = jax.device_count(), device_peak(jax.devices()[0].device_kind)
        self._started = first_started(folder)
        self._lengths: set[int] = set()

    def of(self, batch: Batch, seconds: float) -> dict[str, float]:
        """The numbers of a step that took so long."""
        length = batch.rows.tokens.shape[-1]
        productive = seconds if length in self._lengths else 0.0
        self._lengths.add(length)
        self._spent += productive
        frozen = self._run.lora.rank > 0
        flops = model_flops(self._run.model, batch.token_count, batch.target_count, batch.pairs, frozen)
        rate = flops / seconds / self._devices
        line = {"productive_seconds": round(productive, 4), "tflops_per_second": round(rate / 1e12, 4)}
        if self._peak:
            line["mfu"] = round(rate / self._peak, 4)
        return line | {"goodput": round(self._spent / max(time.time() - self._started, 1e-9), 4)}
