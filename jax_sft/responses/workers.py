"""Calls in other processes, within a time limit: one that hangs, crashes or eats memory costs itself only."""

import multiprocessing
import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as Timeout
from itertools import islice
from typing import Any, Literal

from pebble import ProcessExpired, ProcessPool

Outcome = tuple[Literal["done", "timeout", "crashed", "error"], Any]
_TASKS_PER_WORKER = (
    2000  # a worker is replaced after so many, so that a leaking library cannot eat the memory
)
_SCHEDULED = 512


def isolated(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    workers: int = 2,
    seconds: float = 10.0,
    memory: int = 4 << 30,
    warm: Callable[[], Any] | None = None,
) -> Iterator[Outcome]:
    """`function(*task)` for each task, in order: ("done", its value), or how it failed and None.

    Args:
        function: importable by name; processes are spawned, as this one may hold JAX and its threads.
        tasks: arguments that pickle.
        workers: processes.
        seconds: limit for one call; its process is then killed and replaced.
        memory: bytes of address space of a process; a call that asks for more fails.
        warm: called once in every new process, untimed: imports that would eat up the first call's limit.
    """
    context = multiprocessing.get_context("spawn")
    waiting = iter(tasks)
    pool = ProcessPool(
        workers, _TASKS_PER_WORKER, initializer=_start, initargs=[memory, warm], context=context
    )
    try:
        while batch := list(islice(waiting, _SCHEDULED)):
            for future in [pool.schedule(function, args=task, timeout=seconds) for task in batch]:
                yield _outcome(future)
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _start(memory: int, warm: Callable[[], Any] | None) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if warm:
        warm()


def _outcome(future: Any) -> Outcome:
    try:
        return "done", future.result()
    except Timeout:
        return "timeout", None
    except ProcessExpired:
        return "crashed", None
    except Exception:  # whatever the function raised, MemoryError and RecursionError included
        return "error", None
