"""What an optimized program does: FLOPs, HBM traffic, bytes of collectives and kernels, per device.

Counted are the products of dots and convolutions (TPU's compiler writes dots as convolutions), wherever
fusions hide them; of elementwise work and sorts the clock cycles. HBM traffic is what each scheduled
instruction reads and writes there: a slice of a larger array counts as the slice, an update in place as the
update. Kernels (custom calls) are counted but not looked into. Of a conditional the branch with most work
counts. Loops stay loops until `total` expands them, because some depend on data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jax_sft.planning.hlo.cycles import estimated_cycles
from jax_sft.planning.hlo.flops import convolution_flops, dot_flops
from jax_sft.planning.hlo.groups import only_slices, replica_groups
from jax_sft.planning.hlo.loops import trip_count
from jax_sft.planning.hlo.parse import HBM, HOST, Array, Computation, Instruction, Module

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
KERNEL = "tpu_custom_call"
_MEGASCALE = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
"""Marks what leaves a slice: a message to the host, which does the rest of the collective."""
_NOTHING_MOVES = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "optimization-barrier",
)
_UPDATES = {"dynamic-update-slice": 1, "scatter": 2}
"""Operations that change their first operand in place, and which operand holds the changes."""
PAGED = ("ragged_paged_attention", "write_pages")
"""Kernels whose traffic is data, as much as is alive of the pages they are given: it is not counted."""
_MARKERS = ("AsyncCollectiveStart", "AsyncCollectiveDone", "ConcatBitcast", "AllocateBuffer", "SliceId")
"""Custom calls that are no work."""


@dataclass(frozen=True)
class Traffic:
    """Collectives of one kind over groups of one size."""

    kind: str
    group: int
    crosses_slices: bool


@dataclass
class Cost:
    """Work of a piece of program outside of its loops, per device; and its loops."""

    flops: float = 0.0
    hbm_bytes: float = 0.0
    host_bytes: float = 0.0
    """Moved between the device and its host."""
    collectives: dict[Traffic, tuple[float, float]] = field(default_factory=dict)
    """(how many, bytes). Bytes of the whole array that is gathered, reduced, exchanged or sent."""
    kernels: dict[str, float] = field(default_factory=dict)
    """Calls by name."""
    cycles: float = 0.0
    """Clock cycles of everything that is no product and no kernel, as the compiler estimates them."""
    loops: "list[Loop]" = field(default_factory=list)

    def add(self, other: "Cost", times: float = 1.0) -> None:
        """Add `other`, done that many times; its loops are added as they are when it is done once."""
        self.flops += times * other.flops
        self.hbm_bytes += times * other.hbm_bytes
        self.host_bytes += times * other.host_bytes
        self.cycles += times * other.cycles
        for key, (count, size) in other.collectives.items():
            had = self.collectives.get(key, (0.0, 0.0))
            self.collectives[key] = (had[0] + times * count, had[1] + times * size)
        for name, calls in other.kernels.items():
            self.kernels[name] = self.kernels.get(name, 0.0) + times * calls
        self.loops += other.loops

    def total(self, assumed: Sequence[float] = ()) -> "Cost":
        """Everything, loops expanded. A loop of unknown count runs as often as `assumed` says for its depth.

        Depth counts unknown loops only: the outermost of them run assumed[0] times, those in them assumed[1]
        times, …; beyond the end once.
        """
        made = Cost()
        made.add(self)
        made.loops = []
        for loop in self.loops:
            times = loop.trips if loop.trips is not None else next(iter(assumed), 1.0)
            made.add(loop.body.total(assumed if loop.trips is not None else assumed[1:]), times)
        return made

    def bytes_of(self, kind: str) -> float:
        """Bytes of all collectives of that kind, outside of loops."""
        return sum(size for key, (_, size) in self.collectives.items() if key.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        return {
            "flops": self.flops,
            "hbm_bytes": self.hbm_bytes,
            "host_bytes": self.host_bytes,
            "collectives": [[asdict(key), *numbers] for key, numbers in self.collectives.items()],
            "kernels": self.kernels,
            "cycles": self.cycles,
            "loops": [
                {"name": loop.name, "trips": loop.trips, "body": loop.body.to_json()} for loop in self.loops
            ],
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Cost":
        """The cost that `to_json` wrote."""
        return Cost(
            flops=value["flops"],
            hbm_bytes=value["hbm_bytes"],
            host_bytes=value["host_bytes"],
            collectives={Traffic(**key): (count, size) for key, count, size in value["collectives"]},
            kernels=dict(value["kernels"]),
            cycles=value["cycles"],
            loops=[
                Loop(each["name"], each["trips"], Cost.from_json(each["body"])) for each in value["loops"]
            ],
        )


@dataclass(frozen=True)
class Loop:
    """A `while`: where it comes from, how often it runs (None: depends on data), and one run of its body."""

    name: str
    trips: int | None
    body: Cost


def cost_of(module: Module, devices_per_slice: int = 1 << 30, slices: int = 1) -> Cost:
    """The cost of a whole program."""
    return _Counter(module, devices_per_slice, slices).scheduled(module.computations[module.entry])


class _Counter:
    """Walks a module from its entry, and counts each computation once however often it is called."""

    def __init__(self, module: Module, devices_per_slice: int, slices: int) -> None:
        self.module, self.devices_per_slice, self.slices = module, devices_per_slice, slices
        self._done: dict[str, Cost] = {}

    def scheduled(self, computation: Computation) -> Cost:
        """Of a computation whose instructions run one by one."""
        if computation.name not in self._done:
            cost, seen = Cost(), set[str]()
            for each in computation:
                self._instruction(each, computation, cost, seen)
            self._done[computation.name] = cost
        return self._done[computation.name]

    def _instruction(self, each: Instruction, within: Computation, cost: Cost, seen: set[str]) -> None:
        if each.op == "while":
            body = self.scheduled(self.module.computations[each.attribute("body")])
            cost.loops.append(Loop(each.op_name, trip_count(self.module, each, within), body))
        elif each.op == "conditional":
            branches = each.names_in("branch_computations") or [
                each.attribute("true_computation"),
                each.attribute("false_computation"),
            ]
            costs = [self.scheduled(self.module.computations[name]) for name in branches]
            cost.add(max(costs, key=lambda branch: _weight(branch.total())))
        elif each.op in ("call", "async-start"):
            called = each.attribute("to_apply") or each.attribute("calls")
            cost.add(self.scheduled(self.module.computations[called]))
        else:
            products = cost.flops
            self._work(each, within, cost, seen)
            if cost.flops == products:
                cost.cycles += estimated_cycles(each)
            if each.op == "fusion":
                self._traffic_of_fusion(each, within, cost)
            else:
                _traffic(each, within, cost)

    def _work(self, each: Instruction, within: Computation, cost: Cost, seen: set[str]) -> None:
        """FLOPs, collectives and kernels of one instruction, and of what a fusion holds."""
        kind = each.op.removesuffix("-start")
        if each.op == "fusion":
            for inner in self.module.computations[each.attribute("calls")]:
                self._work(inner, self.module.computations[each.attribute("calls")], cost, seen)
        elif kind in COLLECTIVES:
            self._collective(kind, each, within, cost, seen)
        elif each.op == "send" and (found := _MEGASCALE.search(each.attributes)):
            size = within.instructions[each.operands[0]].bytes
            _count(cost, Traffic(found[1].lower().replace("_", "-"), self.slices, True), size)
        elif each.op == "dot":
            cost.flops += dot_flops(each, within)
        elif each.op == "convolution":
            cost.flops += convolution_flops(each, within)
        elif each.op == "custom-call" and KERNEL in each.attributes:
            name = each.name.partition(".")[0]
            cost.kernels[name] = cost.kernels.get(name, 0.0) + 1

    def _collective(
        self, kind: str, each: Instruction, within: Computation, cost: Cost, seen: set[str]
    ) -> None:
        # A collective that runs beside other work is written several times, as a chain of fusions.
        if chain := re.search(r'chain_id="(\d+)"', each.attributes):
            if f"{kind} {chain[1]}" in seen:
                return
            seen.add(f"{kind} {chain[1]}")
        operands = sum(within.instructions[name].bytes for name in each.operands)
        size = float(each.bytes)
        if kind == "reduce-scatter":
            size = operands
        elif each.op in ("all-gather-start", "collective-permute-start"):
            size -= operands  # the tuple of a start holds its operands too
        elif kind == "all-reduce" and only_slices(each, within):
            kind = "reduce-scatter"
        group, crossing = replica_groups(each, self.devices_per_slice)
        _count(cost, Traffic(kind, group, crossing), size)

    def _traffic_of_fusion(self, each: Instruction, within: Computation, cost: Cost) -> None:
        called = self.module.computations[each.attribute("calls")]
        for number, name in enumerate(each.operands):
            source = within.instructions[name]
            read = self._read(called, called.parameters[number])
            _move(cost, source.arrays, source.bytes if read is None else min(read, source.bytes))
        roots = called.root.operands if called.root.op == "tuple" else (called.root_name,)
        for name, array in zip(roots, each.arrays, strict=False):
            _move(cost, (array,), _written(called, name, array))

    def _read(self, called: Computation, name: str) -> int | None:
        """Bytes of a fusion's parameter that the fusion reads; None for all of them."""
        read = 0
        for user in called.users.get(name, []):
            if user.op == "tuple" or (user.op in _UPDATES and user.operands[0] == name):
                continue
            part: int | None = None
            if user.op in ("dynamic-slice", "gather", "slice") and user.operands[0] == name:
                part = user.bytes
            elif user.op == "bitcast":
                part = self._read(called, user.name)
            elif user.op == "fusion":
                part = self._read_inside(called, user, name)
            elif user.op in COLLECTIVES or "AsyncCollective" in user.attributes:
                continue
            if part is None:
                return None
            read += part
        return read

    def _read_inside(self, called: Computation, user: Instruction, name: str) -> int | None:
        """Bytes of `name` that a fusion in a fusion reads, or that are read of the view it makes of it."""
        inner = self.module.computations[user.attribute("calls")]
        numbers = [number for number, operand in enumerate(user.operands) if operand == name]
        views = [inner.parameters[number] for number in numbers]
        if inner.root.op == "bitcast" and inner.root.operands[0] in views:
            return self._read(called, user.name)
        parts = [self._read(inner, view) for view in views]
        return None if None in parts else sum(part for part in parts if part is not None)


def _count(cost: Cost, key: Traffic, size: float) -> None:
    """Count one collective over an array of `size` bytes."""
    count, before = cost.collectives.get(key, (0.0, 0.0))
    cost.collectives[key] = (count + 1, before + size)


def _weight(cost: Cost) -> float:
    """One number to compare branches by: about 100 FLOPs take as long as a byte."""
    return cost.flops / 100 + cost.hbm_bytes


def _move(cost: Cost, arrays: Sequence[Array], size: int | None = None) -> None:
    """Count `size` bytes (by default all) of arrays that live in HBM or in the host's memory."""
    spaces = {array.space for array in arrays}
    moved = sum(array.bytes for array in arrays if array.space == HBM) if len(spaces) > 1 else size
    if moved is None:
        moved = sum(array.bytes for array in arrays)
    if HBM in spaces:
        cost.hbm_bytes += moved
    elif HOST in spaces:
        cost.host_bytes += moved


def _traffic(each: Instruction, within: Computation, cost: Cost) -> None:
    """What one instruction outside of fusions reads and writes."""
    if each.op in _NOTHING_MOVES or each.op.endswith(("-done", "-update")):
        return
    if each.op == "custom-call" and any(marker in each.attributes for marker in _MARKERS):
        return
    if each.op == "custom-call" and each.name.startswith(PAGED):
        return
    operands = [within.instructions[name] for name in each.operands if name in within.instructions]
    kind = each.op.removesuffix("-start")
    if kind in ("dynamic-slice", "gather", "slice"):
        # A start's tuple holds its operands, its result and what it waits for.
        result = each.arrays[:1] if kind == each.op else each.arrays[len(operands) :][:1]
        _move(cost, operands[0].arrays, sum(array.bytes for array in result))
        _move(cost, result)
    elif kind in _UPDATES:
        changes = operands[_UPDATES[kind]]
        _move(cost, changes.arrays)
        _move(cost, operands[0].arrays, changes.bytes)
    else:
        for operand in operands:
            _move(cost, operand.arrays)
        _move(cost, each.arrays[: 1 if each.op == "copy-start" else None])


def _written(called: Computation, name: str, array: Array) -> int:
    """Bytes that a fusion writes of one of its results: nothing when it hands on a parameter."""
    while (source := called.instructions[name]).op == "bitcast":
        name = source.operands[0]
    if source.op == "parameter" or "AsyncCollective" in source.attributes or source.op in COLLECTIVES:
        return 0
    if source.op in _UPDATES:
        return called.instructions[source.operands[_UPDATES[source.op]]].bytes
    return array.bytes
