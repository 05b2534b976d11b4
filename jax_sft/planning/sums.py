"""What the study's tables cost: the runs of each, training and sweep apart, summed over a slice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from jax_sft.planning.costing import RunPlan
from jax_sft.planning.tables import StudyPlan, span
from jax_sft.planning.topologies import Topology
from jax_sft.study.patterns import matching

ALL = "all planned runs"
COLUMNS = ("table", "chips", "runs", "training, chip-hours", "sweep, chip-hours", "storage", "cost")


@dataclass(frozen=True)
class Sum:
    """The runs of one table on one slice; pairs are from all overlapping to nothing overlapping."""

    table: str
    topology: Topology
    runs: tuple[str, ...]
    missing: tuple[str, ...]
    """Runs of the table that do not fit or have no plan: they are in no sum."""
    training: tuple[float, float]
    """Chip-hours."""
    sweep: tuple[float, float]
    storage: float
    """Bytes."""
    price: float | None
    """Dollars of a chip-hour."""

    @property
    def dollars(self) -> tuple[float, float] | None:
        """Training and sweep together; None without a price."""
        if self.price is None:
            return None
        low, high = (
            (train + sweep) * self.price for train, sweep in zip(self.training, self.sweep, strict=True)
        )
        return low, high


def table_sums(plan: StudyPlan) -> list[Sum]:
    """The sums of every table, and of all runs that were planned; none for a study without tables."""
    return list(_sums(plan)) if plan.study.tables else []


def sums_table(sums: Sequence[Sum]) -> Table:
    """A line for each sum."""
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for each in sums:
        table.add_row(*cells(each))
    return table


def cells(each: Sum) -> tuple[str, ...]:
    """A sum in the words of COLUMNS."""
    less = f" without {', '.join(each.missing)}" if each.missing else ""
    return (
        each.table,
        each.topology.label,
        f"{len(each.runs)}{less}",
        span(each.training),
        span(each.sweep),
        f"{each.storage / 1e12:,.2f} TB",
        f"${span(each.dollars)}" if each.dollars else "no price",
    )


def sums_json(sums: Sequence[Sum]) -> list[dict[str, Any]]:
    """The sums as plain values."""
    return [
        {
            "table": each.table,
            "chips": each.topology.label,
            "runs": list(each.runs),
            "missing": list(each.missing),
            "training_chip_hours": each.training,
            "sweep_chip_hours": each.sweep,
            "storage_bytes": each.storage,
            "dollars": each.dollars,
        }
        for each in sums
    ]


def _sums(plan: StudyPlan) -> Iterator[Sum]:
    names = [run.name for run in plan.study.runs]
    asked = {each.run.name for each in plan.runs}
    tables = {name: matching(runs, names, name) for name, runs in plan.study.tables.items()}
    for topology in plan.topologies:
        planned = {each.run.name: each for each in plan.on(topology)}
        for table, runs in {**tables, ALL: names}.items():
            if wanted := [name for name in runs if name in asked]:
                yield _sum(table, topology, [planned[name] for name in wanted])


def _sum(table: str, topology: Topology, plans: Sequence[RunPlan]) -> Sum:
    good = [each for each in plans if each.fits]
    training = [_training(each) for each in good]
    sweep = [_sweep(each) for each in good]
    return Sum(
        table,
        topology,
        tuple(each.run.name for each in good),
        tuple(each.run.name for each in plans if not each.fits),
        _total(training),
        _total(sweep),
        sum(each.storage() for each in good),
        plans[0].price,
    )


def _training(plan: RunPlan) -> tuple[float, float]:
    """Chip-hours of training alone."""
    assert plan.train is not None
    hours = plan.train.work.total_steps * plan.topology.chips / 3600
    return hours * plan.train.bound, hours * plan.train.serial


def _sweep(plan: RunPlan) -> tuple[float, float]:
    """Chip-hours of all snapshots' sweeps."""
    assert plan.train is not None
    hours = plan.train.work.snapshots * plan.topology.chips / 3600
    low, high = plan.sweep_seconds()
    return hours * low, hours * high


def _total(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(low for low, _ in pairs), sum(high for _, high in pairs)
