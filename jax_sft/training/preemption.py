"""Notice of the machine being taken away (SIGTERM): the state is saved before the process ends."""

import itertools
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

from jax_sft.data.batches import Batch

_ASKED = itertools.count(1)
"""How often this process has asked JAX: it agrees on such a number to stop at, and never on one that is past.
Steps would not do: a resumed run begins with a higher one, the next run of a study at one again."""


class Preemption:
    """While entered, SIGTERM no longer kills the process but is asked for between steps.

    With several processes JAX passes the notice that one of them got to all, and they agree on the step after
    which to stop, so that all of them save the same one.
    """

    def __init__(self) -> None:
        self._noticed = False
        self._before: Any = None
        self.stopped_at: int | None = None
        """The step with which training ended, if it was told to end."""

    def __enter__(self) -> Self:
        if jax.process_count() == 1:
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    @property
    def noticed(self) -> bool:
        """Whether this process was told to end; known at once only to a process that is alone."""
        return self._noticed

    def until_told(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, up to that of the step during which the job is told to end."""
        for batch in batches:
            yield batch
            if self.stop_now():
                self.stopped_at = batch.step
                return

    def stop_now(self) -> bool:
        """Whether training ends with the step just started; every process asks after every step."""
        if jax.process_count() == 1:
            return self._noticed
        return multihost_utils.reached_preemption_sync_point(next(_ASKED))

    def _notice(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._noticed = True
