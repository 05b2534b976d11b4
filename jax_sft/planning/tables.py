"""A plan in words and numbers: the table in the terminal, its notes, and JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from jax_sft.config import Study
from jax_sft.planning.costing import Prices, RunPlan
from jax_sft.planning.expected import BenchmarkWork, SweepWorkload
from jax_sft.planning.reading import ReadingWork
from jax_sft.planning.topologies import Topology
from jax_sft.statistics.changes import planned_deviation, visible_change

GIB = 2**30
COLUMNS = (
    "run",
    "chips",
    "slice",
    "settings",
    "fits",
    "peak",
    "of HBM",
    "state",
    "step",
    "limited by",
    "MFU",
    "gathered",
    "reduced",
    "hours",
    "chip-hours",
    "cost",
    "storage",
)
TERMINAL = ("run", "chips", "fits", "peak", "of HBM", "step", "MFU", "chip-hours", "cost")
"""The columns that fit a terminal of TERMINAL_WIDTH characters."""
TERMINAL_WIDTH = 110


@dataclass(frozen=True)
class StudyPlan:
    """The plans of a study's runs, run by run, and what they rest on."""

    study: Study
    topologies: tuple[Topology, ...]
    runs: tuple[RunPlan, ...]
    prices: Prices
    sweep: SweepWorkload
    reading: ReadingWork

    def on(self, topology: Topology) -> list[RunPlan]:
        """The plans on one slice."""
        return [plan for plan in self.runs if plan.topology == topology]


def row(plan: RunPlan) -> list[str]:
    """A plan in the words of COLUMNS; `a-b` is from all overlapping to nothing overlapping."""
    train, start = plan.train, [plan.run.name, plan.topology.label, plan.topology.slice_name]
    if train is None:
        return [*start, "", "no plan", *[""] * (len(COLUMNS) - 5)]
    memory, peak = train.widest.memory, train.widest.peak
    told = [
        *start,
        settings_text(plan),
        "yes" if plan.fits else "NO",
        f"{peak / GIB:.1f} GiB",
        f"{peak / plan.topology.hbm_bytes:.0%}",
        f"{(memory['parameters'] + memory['optimizer']) / GIB:.1f} GiB",
    ]
    if not train.rooflines:
        return told + [""] * (len(COLUMNS) - len(told))
    reduced = collective_bytes(plan, "all-reduce") + collective_bytes(plan, "reduce-scatter")
    dollars = plan.dollars()
    return [
        *told,
        f"{span((train.bound, train.serial))} s",
        train.main.limit,
        f"{train.mfu:.0%}",
        f"{collective_bytes(plan, 'all-gather') / GIB:.1f} GiB",
        f"{reduced / GIB:.1f} GiB",
        span(plan.hours()),
        span(plan.chip_hours()),
        f"${span(dollars)}" if dollars else "no price",
        f"{plan.storage() / 1e9:,.1f} GB",
    ]


def collective_bytes(plan: RunPlan, kind: str) -> float:
    """Bytes of arrays that one kind of collective works on in a mean step, per device."""
    train = plan.train
    if train is None:
        return 0.0
    length = max(train.work.steps, key=lambda each: train.work.steps[each])
    cost = train.facts[length].cost
    return cost.total((train.work.micro_batches[length][0], 1)).bytes_of(kind) if cost else 0.0


def settings_text(plan: RunPlan) -> str:
    """Rematerialisation, rows of a micro-batch, mesh and where the moments lie, in a few words."""
    assert plan.train is not None
    run, mesh = plan.run, plan.train.mesh
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.items() if size > 1) or "one device"
    host = ", moments on the host" if run.optimizer_memory == "host" else ""
    return f"remat {run.remat}, {run.data.rows_per_micro_batch} rows, {axes}{host}"


def span(numbers: tuple[float, float]) -> str:
    """`1,230-2,000`: three digits that count."""
    low, high = (f"{float(f'{number:.3g}'):,.10g}" for number in numbers)
    return low if low == high else f"{low}-{high}"


def terminal_table(plan: StudyPlan) -> Table:
    """One line for each run and slice, with the columns of TERMINAL."""
    table = Table(box=None, pad_edge=False)
    for name in TERMINAL:
        table.add_column(name, overflow="fold")
    for each in plan.runs:
        cells = dict(zip(COLUMNS, row(each), strict=True))
        table.add_row(*(cells[name] for name in TERMINAL))
    return table


def notes(plan: StudyPlan) -> list[str]:
    """What a reader of the numbers must know, a line each."""
    lines = [
        f"{each.run.name} on {each.topology.label}: "
        f"{each.problem or settings_text(each)}{_sweep_that_does_not_fit(each)}"
        for each in plan.runs
    ]
    for topology in plan.topologies:
        planned = [each for each in plan.on(topology) if each.fits]
        left_out = [each.run.name for each in plan.on(topology) if not each.fits]
        if planned:
            low, high = (sum(each.chip_hours()[end] for each in planned) for end in (0, 1))
            price = planned[0].price
            cost = f", ${span((low * price, high * price))}" if price else ""
            runs = "1 run takes" if len(planned) == 1 else f"{len(planned)} runs take"
            rest = f"; without what does not fit or has no plan: {', '.join(left_out)}" if left_out else ""
            lines.append(f"{topology.label}: {runs} {span((low, high))} chip-hours{cost}{rest}")
    if any(each.train is not None and each.train.work.assumed for each in plan.runs):
        lines.append("data not at hand: rows and their lengths are assumed (--rows, --row-tokens)")
    lines += sweep_notes(plan.sweep)
    if plan.reading.of:
        lines.append(f"likelihoods and judges, by arithmetic: {', '.join(plan.reading.of)}")
    if plan.reading.unpriced:
        why = "they answer from an endpoint, or their models are not at hand"
        lines.append(f"judges that are not priced, {why}: {', '.join(plan.reading.unpriced)}")
    lines += visible_changes(plan)
    lines.append("a-b: a is the roofline, where all overlaps at the chip's peak rates; b if nothing overlaps")
    lines.append(f"prices: {plan.prices.source} ({plan.prices.date})")
    return lines


def _sweep_that_does_not_fit(plan: RunPlan) -> str:
    """What its sweep needs and what to do about it; nothing where it fits or there is none."""
    if plan.sweep is None or plan.sweep.fits:
        return ""
    needed, there = plan.sweep.facts.peak / GIB, plan.topology.hbm_bytes / GIB
    return (
        f"; its sweep needs {needed:.1f} of {there:.1f} GiB, too much to be safe: lower "
        "evaluation.pages or evaluation.slots, or raise evaluation.tensor"
    )


def sweep_notes(sweep: SweepWorkload) -> list[str]:
    """Where the numbers of items and the lengths of completions are from."""

    def named(works: list[BenchmarkWork], number: Callable[[BenchmarkWork], str]) -> str:
        return ", ".join(f"{work.benchmark.name} {number(work)}" for work in works)

    lines = []
    if sweep.unknown:
        lines.append(f"not in the sweep, their items are not at hand: {', '.join(sweep.unknown)}")
    if public := [work for work in sweep.works if work.assumed_items]:
        counts = named(public, lambda work: f"{work.items:,}")
        lines.append(f"items not at hand, counted as many as the public sets (or limits) have: {counts}")
    if drawn := [work for work in sweep.works if work.units]:
        means = named(drawn, lambda work: f"{work.new_tokens:,.0f} ({work.units} units)")
        lines.append(f"tokens of a completion, from what this study has drawn: {means}")
    if assumed := [work for work in sweep.works if work.completions and not work.units]:
        means = named(assumed, lambda work: f"{work.new_tokens:,.0f}")
        lines.append(f"tokens of a completion, assumed (--completion-share, completion_tokens): {means}")
    return lines


def visible_changes(plan: StudyPlan) -> list[str]:
    """The smallest change of each benchmark's score that a sweep would find, in a line if there are items."""
    samples = {benchmark.name: benchmark.samples for benchmark in plan.study.benchmarks}
    seen = []
    for name, items in plan.sweep.items.items():
        if items > 1:
            points = 100 * visible_change(planned_deviation(samples[name]), items)
            seen.append(f"{name} {points:.1f} ({items:,} x {samples[name]})")
    if not seen:
        return []
    return [
        "a change between two snapshots that 80% of sweeps would find (points; items x samples; paired, 5% "
        "two-sided, before correction for many; at a score of 50%, samples of an item and items' rates in "
        f"both snapshots correlated by 0.5): {', '.join(seen)}"
    ]


def as_json(plan: RunPlan) -> dict[str, Any]:
    """The numbers of a plan as plain values."""
    value: dict[str, Any] = {
        "run": plan.run.name,
        "chips": plan.topology.label,
        "slice": plan.topology.slice_name,
        "fits": plan.fits,
        "problem": plan.problem,
        "tried": list(plan.tried),
    }
    if (train := plan.train) is not None:
        value["train"] = {
            "remat": plan.run.remat,
            "rows_per_micro_batch": plan.run.data.rows_per_micro_batch,
            "mesh": train.mesh,
            "total_steps": train.work.total_steps,
            "memory": {str(length): dict(facts.memory) for length, facts in train.facts.items()},
            "roofline": {str(length): vars(each) for length, each in train.rooflines.items()},
            "model_flops": train.model_flops,
        }
        if train.rooflines:
            value["train"] |= {"bound": train.bound, "serial": train.serial, "mfu": train.mfu}
            value |= {"hours": plan.hours(), "chip_hours": plan.chip_hours(), "dollars": plan.dollars()}
            value["storage_bytes"] = plan.storage()
    if plan.reading:
        value["reading_seconds_of_a_snapshot"] = dict(plan.reading)
    if plan.sweep is not None:
        value["decode"] = {
            "sequences": plan.sweep.sequences,
            "live_positions": plan.sweep.live,
            "memory": dict(plan.sweep.facts.memory),
            "roofline_of_a_token": vars(plan.sweep.decode),
            "roofline_of_a_prefill": vars(plan.sweep.prefill),
            "share_of_weights_and_living_positions": plan.sweep.useful,
            "tokens_per_second": plan.sweep.tokens_per_second,
            "seconds_of_a_snapshot": plan.sweep.seconds(),
            "completions": plan.sweep.work.completions,
            "tokens": plan.sweep.work.tokens,
        }
    return value
