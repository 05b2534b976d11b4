"""A profiler's trace of chosen steps, for XProf or Perfetto."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import jax
from etils import epath

from jax_sft.config import Run
from jax_sft.data.batches import Batch
from jax_sft.errors import UsageError
from jax_sft.study.folder import trace_folder
from jax_sft.training.step import Metrics, TrainState

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
"""An update with a batch as the loader makes it."""


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

    def around(self, step: Step) -> Step:
        """The same step, with the trace started before the first of those chosen, one trace a run.

        It ends when the last of them is done, which is waited for.
        """

        def traced(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            if batch.step == self._first:
                jax.profiler.start_trace(str(self._folder))
                self._running = True
            state, metrics = step(state, batch)
            if self._running and batch.step == self._last:
                jax.block_until_ready(metrics)
                jax.profiler.stop_trace()
                self._running = False
            return state, metrics

        return traced
