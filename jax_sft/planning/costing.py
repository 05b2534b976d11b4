"""One run on one slice: compiled, put under the roofline, and turned into hours, dollars and bytes."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from jax_sft.checkpoints.store import STATES_KEPT
from jax_sft.config import Run
from jax_sft.errors import UsageError
from jax_sft.files import home
from jax_sft.models.kernels.splash import block_size
from jax_sft.models.size import model_flops
from jax_sft.models.vocabulary import chunk_length
from jax_sft.options import HBM_SHARE, TIMEOUT
from jax_sft.planning.compiling import Facts, compile_facts
from jax_sft.planning.programs import train_program
from jax_sft.planning.roofline import (
    Roofline,
    attention_flops,
    mfu,
    roofline,
)
from jax_sft.planning.sweeping import SweepPlan
from jax_sft.planning.topologies import Topology
from jax_sft.planning.workload import Workload
from jax_sft.sharding import axis_sizes
from jax_sft.training.sizes import snapshot_bytes, state_size


@dataclass(frozen=True)
class Prices:
    """Dollars per chip-hour by TPU type, and where and when they were found."""

    chip_hour: Mapping[str, float]
    source: str
    date: str


def load_prices(path: str = "") -> Prices:
    """The price table of a TOML file, by default the package's; UsageError naming what is wrong with it."""
    place = home(path) if path else resources.files("jax_sft.planning") / "prices.toml"
    try:
        table = tomllib.loads(place.read_text())
    except FileNotFoundError:
        raise UsageError(f"--prices {path}: no such file") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--prices {path}: not TOML: {error}") from None
    prices = table.get("chip_hour")
    if not isinstance(prices, dict) or not all(isinstance(price, int | float) for price in prices.values()):
        raise UsageError(
            f"--prices {path}: needs a table [chip_hour] with a number of dollars for each TPU type"
        )
    return Prices(prices, str(table.get("source", path)), str(table.get("date", "undated")))


@dataclass(frozen=True)
class Settings:
    """How to compile and what to call a fit."""

    cache: Path | None = None
    timeout: float = TIMEOUT
    hbm_share: float = HBM_SHARE


@dataclass(frozen=True)
class TrainPlan:
    """A run's training on a slice. Times are of a mean step, in seconds; memory is per device, in bytes."""

    run: Run
    topology: Topology
    mesh: dict[str, int]
    work: Workload
    facts: dict[int, Facts]
    """By row length."""
    rooflines: dict[int, Roofline]
    """By row length; empty unless all were compiled."""
    fits: bool
    model_flops: float

    @property
    def widest(self) -> Facts:
        """The facts of the row length that takes most memory."""
        return max(self.facts.values(), key=lambda facts: facts.peak)

    @property
    def bound(self) -> float:
        """Seconds when everything overlaps, mean over the steps' row lengths."""
        return sum(share * self.rooflines[length].bound for length, share in self.work.steps.items())

    @property
    def serial(self) -> float:
        """Seconds when nothing overlaps, mean over the steps' row lengths."""
        return sum(share * self.rooflines[length].serial for length, share in self.work.steps.items())

    @property
    def middle(self) -> float:
        """Seconds halfway between: what a search compares, as it rewards what little has to overlap."""
        return (self.bound + self.serial) / 2

    @property
    def main(self) -> Roofline:
        """The roofline of the row length that most steps have."""
        return self.rooflines[max(self.work.steps, key=lambda length: self.work.steps[length])]

    @property
    def mfu(self) -> float:
        """Model FLOPs of a step over what all chips could do in `bound` seconds."""
        return mfu(self.model_flops, self.bound, self.topology)


@dataclass(frozen=True)
class RunPlan:
    """All of a run on a slice, or why there is no plan of it."""

    run: Run
    topology: Topology
    train: TrainPlan | None = None
    sweep: SweepPlan | None = None
    price: float | None = None
    reading: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Seconds of a snapshot's likelihoods and judges, by name."""
    problem: str = ""
    tried: tuple[str, ...] = field(default=())
    """What a search compiled, in words."""

    @property
    def fits(self) -> bool:
        """Whether training, and the sweep if there is one, fit the memory."""
        return (
            not self.problem
            and self.train is not None
            and self.train.fits
            and (self.sweep is None or self.sweep.fits)
        )

    def sweep_seconds(self) -> tuple[float, float]:
        """Of a snapshot's sweep, likelihoods and judges included, when all overlaps and when nothing does."""
        parts = [*self.reading.values(), *([self.sweep.seconds()] if self.sweep else [])]
        return sum(low for low, _ in parts), sum(high for _, high in parts)

    def hours(self) -> tuple[float, float]:
        """Wall-clock hours of training and sweep, when all overlaps and when nothing does."""
        low = high = 0.0
        if self.train is not None:
            low, high = (self.train.work.total_steps * each for each in (self.train.bound, self.train.serial))
            sweep_low, sweep_high = self.sweep_seconds()
            low += self.train.work.snapshots * sweep_low
            high += self.train.work.snapshots * sweep_high
        return low / 3600, high / 3600

    def chip_hours(self) -> tuple[float, float]:
        """`hours` times the chips of the slice, which is what is paid for."""
        low, high = self.hours()
        return low * self.topology.chips, high * self.topology.chips

    def dollars(self) -> tuple[float, float] | None:
        """Chip-hours times the price; None when the table has no price of this TPU."""
        if self.price is None:
            return None
        low, high = self.chip_hours()
        return low * self.price, high * self.price

    def storage(self) -> float:
        """Bytes on disk: of all snapshots, and of the states that are kept at once."""
        if self.train is None:
            return 0.0
        return snapshot_bytes(self.run) * self.train.work.snapshots + STATES_KEPT * state_size(self.run).total


def plan_training(run: Run, work: Workload, topology: Topology, settings: Settings) -> TrainPlan:
    """Compile the run's train step for every row length and put it under the roofline.

    UsageError when mesh, model and batch do not fit one another; JaxSftError when the compiler fails.
    """
    mesh = axis_sizes(run.parallelism, topology.devices)
    facts = {
        length: compile_facts(
            train_program(run, topology, length, shared_count(most)), settings.cache, settings.timeout
        )
        for length, (_, most) in work.micro_batches.items()
    }
    rooflines = {}
    if all(each.cost is not None for each in facts.values()):
        rooflines = {
            length: _train_roofline(run, work, topology, mesh, length, each) for length, each in facts.items()
        }
    limit = settings.hbm_share * topology.hbm_bytes
    fits = bool(rooflines) and all(each.peak <= limit for each in facts.values())
    flops = model_flops(run.model, work.tokens, work.targets, work.pairs, frozen=run.lora.rank > 0)
    return TrainPlan(run, topology, mesh, work, facts, rooflines, fits, flops)


def shared_count(micro_batches: int) -> int:
    """The next power of two from 8 on: their number changes no more than the room for their tokens, and runs
    that are compiled for as many are compiled once. How many are computed is counted apart.
    """
    return max(8, 1 << (micro_batches - 1).bit_length())


def _train_roofline(
    run: Run, work: Workload, topology: Topology, mesh: dict[str, int], length: int, facts: Facts
) -> Roofline:
    assert facts.cost is not None
    mean, _ = work.micro_batches[length]
    rows = mean * run.data.rows_per_micro_batch
    local_rows = run.data.rows_per_micro_batch // (mesh["replica"] * mesh["fsdp"])
    local_length = length // mesh["sequence"]
    targets = work.targets / rows / mesh["sequence"]
    chunks = max(1, math.ceil(targets / chunk_length(local_rows, local_length)))
    block = block_size(local_length) or local_length
    kernels = attention_flops(run.model, work.pairs / rows, length, block, mesh["tensor"] * mesh["sequence"])
    return roofline(facts.cost.total((mean, chunks)), topology, kernels)
