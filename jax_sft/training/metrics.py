"""What training reports: one line a step to metrics.jsonl, the same numbers to TensorBoard, a progress bar."""

import json
from types import TracebackType
from typing import Any, Self

from etils import epath
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from jax_sft.files import read_jsonl, write_jsonl

REWRITE_EVERY = 50
"""Lines between rewrites of metrics.jsonl where files cannot be appended to (gs://)."""


class MetricsLog:
    """Sinks for a run's numbers; a resumed run drops the lines of steps it is about to redo."""

    def __init__(self, folder: epath.Path, start_step: int) -> None:
        self.path = folder / "metrics.jsonl"
        self._remote = "://" in str(folder)
        earlier = read_jsonl(self.path) if self.path.exists() else iter(())
        self._lines = [line for line in earlier if line["step"] <= start_step]
        write_jsonl(self.path, self._lines)
        self._file = None if self._remote else open(self.path, "a", encoding="utf-8")  # noqa: SIM115
        self._board = (
            None if self._remote else SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)
        )

    def write(self, line: dict[str, Any]) -> None:
        """Append one step's numbers."""
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        else:
            self._lines.append(line)
            if len(self._lines) % REWRITE_EVERY == 0:
                self.flush()
        if self._board is not None:
            for name, value in line.items():
                if name != "step":
                    self._board.add_scalar(name, value, line["step"])

    def flush(self) -> None:
        """Make everything written so far durable enough for a state save to rely on."""
        if self._remote:
            write_jsonl(self.path, self._lines)
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Write out and close every sink."""
        self.flush()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


class TrainProgress:
    """A progress bar with loss, tokens per second and time left; plain lines when there is no terminal."""

    def __init__(self, name: str, total: int, done: int, console: Console) -> None:
        self._console, self._name, self._total = console, name, total
        self._every = max(1, total // 10)
        self._bar = Progress(
            TextColumn(f"[bold]{name}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]} tokens/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, completed=done, loss="-", rate="-")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, line: dict[str, Any]) -> None:
        """Show the numbers of one finished step."""
        step, loss, rate = line["step"], f"{line['loss']:.4f}", f"{line['tokens_per_second']:,.0f}"
        self._bar.update(self._task, completed=step, loss=loss, rate=rate)
        if not self._console.is_terminal and (step % self._every == 0 or step == self._total):
            self._console.print(f"{self._name}: step {step}/{self._total}  loss {loss}  {rate} tokens/s")
