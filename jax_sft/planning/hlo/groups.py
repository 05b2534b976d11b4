"""Collectives: the groups of devices they join, in every notation of HLO text, and hidden reduce-scatters."""

import itertools
import math
import re

from jax_sft.planning.hlo.parse import Computation, Instruction


def replica_groups(instruction: Instruction, devices_per_slice: int) -> tuple[int, bool]:
    """(devices of a group, whether a group reaches across slices) of a collective."""
    groups = _groups(instruction.attributes)
    size = max(map(len, groups), default=1)
    crossing = any(len({device // devices_per_slice for device in group}) > 1 for group in groups)
    return size, crossing


def _groups(attributes: str) -> list[list[int]]:
    """The groups, in any of their notations; one that holds every device is enough for what is asked."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", attributes):
        return [[int(a), int(b)] for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs[1])]
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", attributes):
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])]
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        shape, dims, order = ([int(n) for n in (part or "").split(",") if n] for part in iota.groups())
        flat = _transposed(dims, order or list(range(len(dims))))
        return [flat[at : at + shape[-1]] for at in range(0, len(flat), shape[-1])]
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        together = re.findall(r"'([^']+)'", mesh[2])
        apart = [name for name in sizes if name not in together]
        names = list(sizes)
        order = [names.index(name) for name in (*apart, *together)]
        flat, size = _transposed(list(sizes.values()), order), math.prod(sizes[name] for name in together)
        return [flat[at : at + size] for at in range(0, len(flat), size)]
    return []


def _transposed(dims: list[int], order: list[int]) -> list[int]:
    """The numbers 0, 1, … of an array of those sizes, read with its axes in another order."""
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    places = itertools.product(*(range(dims[axis]) for axis in order))
    return [sum(at * strides[axis] for at, axis in zip(place, order, strict=True)) for place in places]


def only_slices(each: Instruction, within: Computation) -> bool:
    """Whether only slices of an all-reduce are used: a reduce-scatter as TPU's compiler writes it."""
    users = list(within.users.get(each.name, []))
    leaves = [user for user in users if user.op != "get-tuple-element"]
    for user in users:
        if user.op == "get-tuple-element":
            leaves += within.users.get(user.name, [])
    return bool(leaves) and all(leaf.op == "dynamic-slice" for leaf in leaves)
