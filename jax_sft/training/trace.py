"""A profiler's trace of chosen steps, for XProf or Perfetto."""

from types import TracebackType
from typing import Self

import jax
from etils import epath

from jax_sft.config import Run
from jax_sft.errors import UsageError
from jax_sft.study.folder import trace_folder
from jax_sft.training.step import Metrics


def check_trace(run: Run) -> None:
    """UsageError unless `trace` is empty or a first and a last step."""
    if run.trace and (len(run.trace) != 2 or not 1 <= run.trace[0] <= run.trace[1]):
        raise UsageError(f"run {run.name}: trace is a first and a last step, from 1; found {run.trace}")


class Trace:
    """Traces the steps from `steps[0]` to `steps[1]` into the folder `trace`; leaving it ends the trace."""

    def __init__(self, steps: tuple[int, ...], folder: epath.Path) -> None:
        self._first, self._last = steps or (0, 0)
        self._folder, self._running = trace_folder(folder), False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running:
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        """Start with the first of the steps; one trace a run."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, metrics: Metrics) -> None:
        """End when the last of the steps is done, which is waited for."""
        if self._running and step == self._last:
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()
            self._running = False
