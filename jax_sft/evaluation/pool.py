"""Scoring of many completions: in this process, or in others with a time limit for each completion."""

import multiprocessing
from collections.abc import Iterable
from types import TracebackType

from pebble import ProcessPool

from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import get_task

Task = tuple[Item, str, str]  # an item, a completion, its finish reason
_TASKS_PER_WORKER = 2000  # a worker is replaced after so many, so that a leaking scorer cannot eat the memory


class ScoringPool:
    """A context within which completions are scored; worker processes start when a kind first needs them.

    Args:
        workers: processes for kinds that are scored apart.
        seconds: limit for one completion there; a scorer that hangs or crashes costs that completion only.
    """

    def __init__(self, workers: int = 2, seconds: float = 20.0) -> None:
        self.workers, self.seconds = workers, seconds
        self._pool: ProcessPool | None = None

    def __enter__(self) -> "ScoringPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            if kind is None:
                self._pool.close()
            else:
                self._pool.stop()
            self._pool.join()

    def score(self, kind: str, tasks: Iterable[Task]) -> list[Verdict | None]:
        """A verdict for each task in order; None where the scorer timed out, raised or died."""
        benchmark = get_task(kind)
        if not benchmark.isolated:
            return [benchmark.score(*task) for task in tasks]
        if self._pool is None:
            # Spawned, not forked: this process may hold JAX and its threads.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPool(self.workers, max_tasks=_TASKS_PER_WORKER, context=context)
        pool = self._pool
        futures = [pool.schedule(_score, args=(kind, *task), timeout=self.seconds) for task in tasks]
        verdicts: list[Verdict | None] = []
        for future in futures:
            try:
                verdicts.append(future.result())
            except Exception:  # its time ran out, its process died, or the scorer raised
                verdicts.append(None)
        return verdicts


def _score(kind: str, item: Item, completion: str, finish: str) -> Verdict:
    return get_task(kind).score(item, completion, finish)
