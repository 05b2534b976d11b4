"""Search for the fastest settings that fit: rematerialisation x rows of a micro-batch x parallelism.

Every candidate gets a rough time and memory first, in arithmetic alone; the compiler then judges them in the
order of those times. What cannot fit by a wide margin is not compiled, nor what keeps more than something
that did not fit; the more did not fit, the smaller are those that are tried.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jax_sft.config import DataConfig, ModelConfig, ParallelismConfig, Remat, Run, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.models.kernels.splash import block_size
from jax_sft.models.size import model_size
from jax_sft.planning.costing import Settings, TrainPlan, plan_training
from jax_sft.planning.topologies import Topology
from jax_sft.planning.workload import Workload
from jax_sft.training.sizes import state_size

KEEPS: tuple[Remat, ...] = ("offload", "full", "save_attention", "save_qkv", "minimal", "none")
"""Policies in the order of what they leave on the device."""
MOST_TENSOR, MOST_SEQUENCE = 8, 8
MARGIN = 1.1
"""An estimate of memory this many times the limit is believed before anything was compiled."""
SPARE = 0.85
"""Of the limit that is left to an estimate, after each candidate that did not fit."""


@dataclass(frozen=True)
class Candidate:
    """Settings of a run on a slice, with what arithmetic expects of them."""

    remat: Remat
    rows: int
    """Of a micro-batch, over all devices."""
    mesh: ParallelismConfig
    seconds: float
    """Of a step."""
    memory: float
    """Bytes on a device."""

    def applied(self, run: Run) -> Run:
        """The run with this rematerialisation, mesh and rows of a micro-batch."""
        data = replace(run.data, rows_per_micro_batch=self.rows)
        return replace(run, remat=self.remat, parallelism=self.mesh, data=data)

    def __str__(self) -> str:
        axes = " x ".join(f"{axis} {size}" for axis, size in vars(self.mesh).items() if size > 1)
        return f"{self.remat}, {self.rows} rows, {axes or 'one device'}"


WorkOf = Callable[[Run], Workload]


def search(
    run: Run,
    work_of: WorkOf,
    topology: Topology,
    settings: Settings,
    most: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[TrainPlan | None, list[str]]:
    """The plan with the least `middle` time among those that fit, and what was tried, in words.

    At most `most` candidates that fit are compiled, and about twice as many that do not, or fail to compile.
    None when nothing that was tried fits; UsageError when the shapes allow no mesh.
    """
    limit = settings.hbm_share * topology.hbm_bytes
    tries = _Tries(limit)
    best: TrainPlan | None = None
    waiting = candidates(run, work_of, topology)
    if not waiting:
        raise UsageError(
            f"{topology.label}: no mesh of {topology.devices} devices divides rows of {run.data.row_length} "
            f"tokens, hidden_size {run.model.hidden_size} and {run.model.num_kv_heads} kv heads"
        )
    while waiting and tries.fitting < most and len(tries.told) - tries.fitting < 2 * most + 2:
        candidate = waiting[0] if best is not None else tries.likely(waiting)
        waiting.remove(candidate)
        if best is not None and candidate.seconds >= best.middle:
            break
        if tries.hopeless(candidate):
            continue
        try:
            changed = candidate.applied(run)
            plan = plan_training(changed, work_of(changed), topology, settings)
        except JaxSftError as error:
            tries.told.append(f"{candidate}: {error}")
            continue
        tries.note(candidate, plan)
        say(tries.told[-1])
        if plan.fits and (best is None or plan.middle < best.middle):
            best = plan
    return best, tries.told


@dataclass
class _Tries:
    """What was compiled, and what it says of the memory that other candidates need."""

    limit: float
    told: list[str] = field(default_factory=list)
    fitting: int = 0
    too_big: list[Candidate] = field(default_factory=list)
    needs: dict[Remat, float] = field(default_factory=dict)
    """How many times the estimate each policy really needs."""

    def note(self, candidate: Candidate, plan: TrainPlan) -> None:
        """Learn from a compiled candidate, but not from an offloading one's peak: it may be the host's."""
        self.told.append(_outcome(candidate, plan))
        self.fitting += plan.fits
        if candidate.remat == "offload" and not plan.fits:
            return
        self.needs[candidate.remat] = plan.widest.peak / candidate.memory
        if not plan.fits:
            self.too_big.append(candidate)

    def expected(self, candidate: Candidate) -> float:
        """Bytes that a candidate should need, on the low side."""
        least = 0.9 * min(self.needs.values()) if self.needs else 1 / MARGIN
        return candidate.memory * self.needs.get(candidate.remat, least)

    def likely(self, waiting: list[Candidate]) -> Candidate:
        """The fastest that should fit, with more to spare the more that did not; or else the smallest."""
        room = self.limit * SPARE ** len(self.told)
        small = (each for each in waiting if self.expected(each) <= room and not self.hopeless(each))
        return next(small, min(waiting, key=self.expected))

    def hopeless(self, candidate: Candidate) -> bool:
        """Whether it can be told without compiling that a candidate is too big."""
        more = any(_keeps_more(candidate, other) for other in self.too_big)
        return more or self.expected(candidate) > self.limit


def _outcome(candidate: Candidate, plan: TrainPlan) -> str:
    used = f"{plan.widest.peak / 2**30:.1f} GiB"
    if not plan.fits:
        return f"{candidate}: {used}, does not fit"
    return f"{candidate}: {used}, {plan.bound:.2f} s a step, MFU {plan.mfu:.0%}"


def _keeps_more(one: Candidate, other: Candidate) -> bool:
    """Whether `one` needs at least the memory that `other` needs."""
    more_kept = KEEPS.index(one.remat) >= KEEPS.index(other.remat)
    return one.mesh == other.mesh and one.rows >= other.rows and more_kept


def candidates(run: Run, work_of: WorkOf, topology: Topology) -> list[Candidate]:
    """Every setting that the shapes allow, by expected time and then memory."""
    lengths = run.data.row_lengths or (run.data.row_length,)
    found = []
    works: dict[int, Workload] = {}
    for mesh in meshes(run.model, run.data, topology):
        ways = mesh.replica * mesh.fsdp
        for rows in (ways, 2 * ways, 4 * ways):
            if rows > ways and rows > run.data.batch_size:
                continue
            if rows not in works:
                works[rows] = work_of(replace(run, data=replace(run.data, rows_per_micro_batch=rows)))
            for remat in KEEPS:
                if remat == "offload" and rows > ways:
                    continue  # several rows a device are compiled to copies within the host's memory
                seconds = estimate_seconds(run, works[rows], topology, mesh, rows, remat)
                memory = estimate_memory(run, mesh, rows * max(lengths), remat)
                found.append(Candidate(remat, rows, mesh, seconds, memory))
    return sorted(found, key=lambda each: (each.seconds, each.memory))


def meshes(model: ModelConfig, data: DataConfig, topology: Topology) -> Iterator[ParallelismConfig]:
    """The ways to split a slice's devices that model and rows allow; slices hold copies.

    libtpu cannot be told that the ends of several slices are linked: a gather over all of such a slice is
    compiled to an all-reduce. Two copies in each slice keep it a gather, of half the slice. A slice whose
    chips are no power of two may also hold as many copies as their odd part says.
    """
    least = topology.slices * (2 if topology.slices > 1 and any(topology.wrap) else 1)
    devices = topology.devices // least
    for more in sorted({1, devices // (devices & -devices)}):
        yield from _meshes(model, data, least * more, devices // more)


def _meshes(model: ModelConfig, data: DataConfig, copies: int, devices: int) -> Iterator[ParallelismConfig]:
    """The ways to split the devices of each of so many copies of the model."""
    powers = [2**exponent for exponent in range(devices.bit_length())]
    lengths = data.row_lengths or (data.row_length,)
    for tensor, sequence in itertools.product(powers, powers):
        if tensor > MOST_TENSOR or sequence > MOST_SEQUENCE or devices % (tensor * sequence):
            continue
        fsdp = devices // (tensor * sequence)
        splits = math.gcd(model.num_kv_heads, model.mlp_size) % tensor == 0
        splits = splits and model.hidden_size % (fsdp * sequence) == 0
        whole = all(length % sequence == 0 for length in lengths)
        kernel = sequence == 1 or all(block_size(length // sequence) for length in lengths)
        if splits and whole and kernel:
            yield ParallelismConfig(copies, fsdp, sequence, tensor)


def estimate_seconds(
    run: Run, work: Workload, topology: Topology, mesh: ParallelismConfig, rows: int, remat: Remat
) -> float:
    """A rough `middle` time of a step: products (with recomputation and padding), collectives, offloading."""
    model, size = run.model, model_size(run.model)
    length, (micro_batches, _) = next(iter(work.micro_batches.items()))
    positions = micro_batches * rows * length
    again = {"none": 0.0, "minimal": 0.0}.get(remat, 1.8 if remat == "save_qkv" else 2.0)
    per_weight = 4.0 if run.lora.rank else 6.0
    attention = 4.0 * model.num_layers * model.num_heads * model.head_dim * work.pairs
    kernels = attention * (4.5 if remat in ("full", "save_qkv") else 3.5)
    products = (per_weight + again) * size.body * positions + 8.0 * size.head * work.targets + kernels
    compute = products / (topology.chips * topology.chip.peak_flops)
    element = 2.0
    gathered = 3.0 * element * size.total / mesh.tensor * micro_batches
    shards = mesh.fsdp * mesh.sequence
    traffic = gathered / topology.ring_bandwidth(shards) if shards > 1 else 0.0
    local = positions / (mesh.replica * mesh.fsdp * mesh.sequence)
    if mesh.tensor > 1:
        passes = 8.0 if again == 0.0 else 12.0
        moved = passes * model.num_layers * local * model.hidden_size * element
        traffic += moved / topology.ring_bandwidth(mesh.tensor)
    if mesh.sequence > 1:
        heads = 2.0 * model.num_kv_heads * model.head_dim / mesh.tensor
        moved = 3.0 * model.num_layers * local * mesh.sequence * heads * element
        traffic += moved / topology.ring_bandwidth(mesh.sequence)
    layers = model.num_layers * local * (model.hidden_size + model.num_heads * model.head_dim / mesh.tensor)
    # Out and back.
    host = 2.0 * element * layers * topology.chip.devices / topology.chip.host_bandwidth
    parts = (compute, traffic, host if remat == "offload" else 0.0)
    return (max(parts) + sum(parts)) / 2


def estimate_memory(run: Run, mesh: ParallelismConfig, positions: int, remat: Remat) -> float:
    """Rough bytes on a device while `positions` tokens are computed: state, gradients, what layers keep."""
    model, size, held = run.model, model_size(run.model), state_size(run)
    moments = held.moments if run.optimizer_memory == "device" else 0
    state = (held.frozen + 2 * held.learnt + moments) / (mesh.fsdp * mesh.sequence * mesh.tensor)
    tokens = positions / (mesh.replica * mesh.fsdp * mesh.sequence)
    element = 4 if run.compute_dtype == "float32" else 2
    heads = model.num_heads * model.head_dim / mesh.tensor
    keys = 2 * model.num_kv_heads * model.head_dim / mesh.tensor
    mlp = model.mlp_size / mesh.tensor
    attention = heads * element + 4 * model.num_heads / mesh.tensor
    inputs = model.hidden_size * element
    kept = {
        "offload": 0.0,
        "full": inputs,
        "save_attention": inputs + attention,
        "save_qkv": inputs + (heads + keys) * element,
        "minimal": 3 * inputs + attention + (heads + keys + 2 * mlp) * element,
        "none": 12 * inputs + 2 * attention + (4 * heads + 4 * keys + 6 * mlp) * element,
    }[remat]
    # Of the layer that is computed again: what its products take and give.
    again = 0.0 if remat in ("minimal", "none") else 4 * mlp * element
    layer = 2.0 * element * size.body / model.num_layers / mesh.tensor
    return state + tokens * (model.num_layers * kept + again) + 2 * layer
