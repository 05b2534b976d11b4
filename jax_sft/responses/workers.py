"""Calls in other processes, within limits of time and memory: one that hangs or dies costs itself only."""

import multiprocessing
import resource
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as Timeout
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Literal

from pebble import ProcessExpired, ProcessPool

from jax_sft.responses import sandbox

Outcome = tuple[Literal["done", "timeout", "crashed", "error"], Any]
_CALLS_PER_PROCESS = (
    2000  # a process is replaced after so many, so that a leaking library cannot eat the memory
)
_SCHEDULED = 512


@dataclass(frozen=True)
class Limits:
    """What calls may use."""

    processes: int = 2
    seconds: float = 10.0
    """For one call; its process is then killed and replaced."""
    memory: float = 4.0
    """GB of address space of a process; a call that asks for more fails."""
    allow_unsandboxed_code: bool = False
    """Programs that calls run may do without a sandbox where there is none."""


class Workers:
    """A context within which functions are called in other processes, which start when first needed."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._pools: dict[Callable[[], Any] | None, ProcessPool] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools.values():
            if kind is None:
                pool.close()
            else:
                pool.stop()
            pool.join()

    def run(
        self,
        function: Callable[..., Any],
        calls: Iterable[tuple[Any, ...]],
        warm: Callable[[], Any] | None = None,
        seconds: float | None = None,
    ) -> Iterator[Outcome]:
        """`function(*call)` for each call, in order: ("done", its value), or how it failed.

        Args:
            function: importable by name; processes are spawned, as this one may hold JAX and its threads.
            calls: arguments that pickle.
            warm: called once in every new process, untimed: imports that would eat up the first call's limit.
            seconds: for one call, where it is not `limits.seconds`.
        """
        pool, waiting = self._pool(warm), iter(calls)
        while batch := list(islice(waiting, _SCHEDULED)):
            limit = self.limits.seconds if seconds is None else seconds
            for future in [pool.schedule(function, args=call, timeout=limit) for call in batch]:
                yield _outcome(future)

    def _pool(self, warm: Callable[[], Any] | None) -> ProcessPool:
        if warm not in self._pools:
            self._pools[warm] = ProcessPool(
                self.limits.processes,
                max_tasks=_CALLS_PER_PROCESS,
                initializer=_start,
                initargs=[self.limits, warm],
                context=multiprocessing.get_context("spawn"),
            )
        return self._pools[warm]


def run_here(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Outcome]:
    """The same in this process and without limits, for functions that can neither hang nor crash."""
    for call in calls:
        try:
            yield "done", function(*call)
        except Exception as error:
            yield "error", error


def _start(limits: Limits, warm: Callable[[], Any] | None) -> None:
    memory = round(limits.memory * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if limits.allow_unsandboxed_code:
        sandbox.allow_unsandboxed()
    if warm:
        warm()


def _outcome(future: Any) -> Outcome:
    try:
        return "done", future.result()
    except Timeout:
        return "timeout", None
    except ProcessExpired:
        return "crashed", None
    except Exception as error:  # whatever the function raised, MemoryError and RecursionError included
        return "error", error
