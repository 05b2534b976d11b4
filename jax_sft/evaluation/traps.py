"""What the paper's protocol is worth on stored completions: by both protocols, and by each trap alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from jax_sft.checkpoints.presence import Presence
from jax_sft.config import Study
from jax_sft.errors import UsageError
from jax_sft.evaluation.items import find_benchmark
from jax_sft.evaluation.judging import Asked, judge, scorers
from jax_sft.evaluation.score import Unit, asked_of_unit, units_with_completions
from jax_sft.responses.workers import Workers
from jax_sft.study.records import Verdict
from jax_sft.tasks.protocols import TRAPS, reading_traps
from jax_sft.tasks.task import get_task

ALL = "paper: all of them"


@dataclass(frozen=True)
class TrapSize:
    """What one trap, or all together (`ALL`), change in the same completions."""

    name: str
    compared: int
    """Completions that both ways gave a verdict on, with the task's headline metric."""
    standard: float
    """Mean of the headline metric by the standard protocol."""
    gained: int
    """Verdicts that became better."""
    lost: int
    score: float
    """The mean with the trap on."""

    @property
    def points(self) -> float:
        """What the trap adds to the score, in points of a hundred."""
        return 100 * (self.score - self.standard)


def trap_sizes(task_name: str, asked: Sequence[Asked], workers: Workers) -> list[TrapSize]:
    """The size of all traps together, then of each alone; UsageError for a task that the paper lacks."""
    traps = reading_traps(task_name)
    if not traps:
        known = ", ".join(sorted({task for trap in TRAPS for task in trap.tasks if reading_traps(task)}))
        raise UsageError(f"task {task_name}: the paper's protocol reads it as the standard one; not {known}")
    standard = judge(task_name, asked, workers)
    ways = {ALL: traps, **{trap: (trap,) for trap in traps}}
    metric = get_task(task_name).headline
    return [_size(name, standard, judge(task_name, asked, workers, on), metric) for name, on in ways.items()]


def _size(
    name: str, standard: Sequence[Verdict | None], other: Sequence[Verdict | None], metric: str
) -> TrapSize:
    pairs = [
        (before.metrics[metric], after.metrics[metric])
        for before, after in zip(standard, other, strict=True)
        if before and after and metric in before.metrics and metric in after.metrics
    ]
    count = max(len(pairs), 1)
    return TrapSize(
        name,
        len(pairs),
        sum(before for before, _ in pairs) / count,
        sum(after > before for before, after in pairs),
        sum(after < before for before, after in pairs),
        sum(after for _, after in pairs) / count,
    )


def measured_traps(
    study: Study,
    runs: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
) -> Table:
    """A table of the sizes of traps in every unit that has completions; nothing is written.

    UsageError when there is no unit of a task that the paper's protocol reads in another way.
    """
    table = traps_table("run", "step", "benchmark")
    with scorers(study.evaluation) as workers:
        for run, step, name in _measurable(study, runs, steps, benchmarks):
            present = Presence(study, run).of(step, name)
            asked, _, _ = asked_of_unit(study, present)
            for size in trap_sizes(find_benchmark(study, name).task, asked, workers):
                add_trap(table, size, run, str(step), name)
    if not table.row_count:
        raise UsageError(
            f"study {study.name}: no completions under {study.root} of a task with traps to measure"
        )
    return table


def traps_table(*about: str) -> Table:
    """An empty table with columns of what is measured, and of the sizes."""
    return Table(*about, "trap", "completions", "standard", "with it", "points", "gained", "lost")


def add_trap(table: Table, size: TrapSize, *about: str) -> None:
    """A row of the table."""
    table.add_row(
        *about,
        size.name,
        str(size.compared),
        f"{100 * size.standard:.1f}",
        f"{100 * size.score:.1f}",
        f"{size.points:+.1f}",
        str(size.gained),
        str(size.lost),
    )


def _measurable(
    study: Study,
    runs: Sequence[str] | None,
    steps: Sequence[int] | None,
    benchmarks: Sequence[str] | None,
) -> Iterator[Unit]:
    for run, step, name in units_with_completions(study, runs, steps, benchmarks):
        if reading_traps(find_benchmark(study, name).task):
            yield run, step, name
