"""Which units are whose, when several workers sweep one study: told from the study alone, no coordinator.

Every worker works out the same shares, whenever it starts, so that a job that hands out indices is all that
is needed. A run's snapshots are dealt whole, round after round; those of a last round that would not reach
all workers are dealt benchmark by benchmark, the longest first, to whoever has least to do. Each run is
shared by itself: a run that is trained later changes nothing for the others.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jax_sft.config import Study
from jax_sft.errors import UsageError
from jax_sft.evaluation.prompts import Asked
from jax_sft.tasks.task import get_task

INDICES = ("JOB_COMPLETION_INDEX", "CLOUD_RUN_TASK_INDEX", "BATCH_TASK_INDEX", "SLURM_ARRAY_TASK_ID")
"""Where Kubernetes (indexed jobs), Cloud Run, Google Batch and Slurm (arrays from 0 on) say an index."""
_WORKER = re.compile(r"(\d+|auto)/(\d+)")
Share = Collection[tuple[int, str]]
"""(step, benchmark) of a run's units."""


@dataclass(frozen=True)
class Worker:
    """One of `count` workers, counted from 0."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def host(self, index: int, count: int) -> "Worker":
        """The share of one of `count` hosts that are this worker together."""
        return Worker(self.index * count + index, self.count * count)

    @staticmethod
    def parse(text: str, environment: Mapping[str, str] = os.environ) -> "Worker":
        """What `--worker` says: `0/3`, or `auto/3` for the index that a job sets in the environment.

        Empty is the only worker. UsageError for what is not understood or out of range.
        """
        if not text:
            return Worker()
        match = _WORKER.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"--worker {text}: write INDEX/COUNT such as 0/3, or auto/3")
        index, count = match[1], int(match[2])
        if index == "auto":
            index = next((environment[name] for name in INDICES if environment.get(name)), "")
            if not index.isdecimal():
                raise UsageError(f"--worker {text}: none of {', '.join(INDICES)} says an index; write it out")
        if int(index) >= count:
            last = f"the last of {count} is {count - 1}/{count}" if count else "there is at least one"
            raise UsageError(f"--worker {text}: {index} of {count} is none; indices count from 0, and {last}")
        return Worker(int(index), count)


ALONE = Worker()


def expected_tokens(asked: Asked) -> dict[str, int]:
    """Of each benchmark the most tokens that a snapshot can be asked to draw.

    A likelihood takes about as long as one token.
    """
    return {
        b.name: len(items) * (1 if get_task(b.task).ask == "likelihood" else b.samples * b.max_new_tokens)
        for b, items in asked
    }


def share_of_run(
    worker: Worker, steps: Sequence[int], tokens: Mapping[str, int], place: int
) -> set[tuple[int, str]]:
    """The worker's units of one run.

    Args:
        worker: whose.
        steps: of all snapshots that the run will have.
        tokens: expected of each benchmark.
        place: of the run in its study; where the dealing begins.
    """
    count, ordered = worker.count, sorted(steps)
    whole = len(ordered) // count * count
    mine = {
        (step, benchmark)
        for index, step in enumerate(ordered[:whole])
        if (place + index) % count == worker.index
        for benchmark in tokens
    }
    load, reads = [0] * count, [set[int]() for _ in range(count)]
    rest = [(step, benchmark) for step in ordered[whole:] for benchmark in tokens]
    for step, benchmark in sorted(rest, key=lambda unit: -tokens[unit[1]]):
        taker = min(range(count), key=lambda w: (load[w], step not in reads[w], (w - place) % count))
        load[taker] += tokens[benchmark]
        reads[taker].add(step)
        if taker == worker.index:
            mine.add((step, benchmark))
    return mine


def place_of(study: Study, run: str) -> int:
    """Where a run stands in its study."""
    return next(place for place, known in enumerate(study.runs) if known.name == run)
