"""Two programs that take turns: steps of each in a process of its own, neighbours compared as pairs.

What runs beside them on the machine then slows both, and what is compared is neighbouring in time.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

PAUSE = 0.3
"""Seconds before a step, after which the threads of the other process have gone to sleep."""
Step = Callable[[], None]
Pairs = list[tuple[float, float]]
"""(our, their) seconds of neighbouring steps."""


class Stepper:
    """A process that takes a step of one kind whenever it is told to."""

    def __init__(self, python: str, script: str, who: str, kind: str) -> None:
        """`python script --worker who kind`, warmed up by a first step, for which programs are compiled."""
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "TRANSFORMERS_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [python, script, "--worker", who, kind],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.notes: list[str] = []
        """What it says of itself."""
        self.step()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def step(self) -> float:
        """Seconds of one step, as the process itself measures them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("seconds "):  # libraries may print too
                return float(line.split()[1])
            if line.startswith("note "):
                self.notes.append(line.removeprefix("note ").strip())
        raise SystemExit("a process ended early; its error is above")


def serve(step: Step) -> None:
    """Take a step for every line of standard input, and print its seconds."""
    for _ in sys.stdin:
        time.sleep(PAUSE)
        start = time.perf_counter()
        step()
        print("seconds", time.perf_counter() - start, flush=True)


def paired(
    script: str, kind: str, sides: tuple[tuple[str, str], ...], most: int, seconds: float
) -> tuple[Pairs, list[str]]:
    """As many pairs as there is time for, at most `most`, and what the programs said.

    `sides` are ours and theirs, each a Python and the worker's name.
    """
    end, pairs, longest = time.monotonic() + seconds, Pairs(), 0.0
    with ExitStack() as stack:
        us, them = (stack.enter_context(Stepper(python, script, who, kind)) for python, who in sides)
        while len(pairs) < most and (not pairs or time.monotonic() + longest < end):
            started = time.monotonic()
            if len(pairs) % 2:
                theirs, ours = them.step(), us.step()
            else:
                ours, theirs = us.step(), them.step()
            pairs.append((ours, theirs))
            longest = max(longest, time.monotonic() - started)
        return pairs, us.notes + them.notes


def summary(kind: str, tokens: int, pairs: Pairs) -> str:
    """A line of the table: rates of both, and the pairs' ratio with its spread."""
    us, them = (tokens / statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = [theirs / ours for ours, theirs in pairs]
    spread = f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"{kind:10}{us:10,.0f}{them:10,.0f}   {spread:24}{len(pairs):5}"
