"""Trip counts of loops, read off the condition, the start and the step of the loop's counter."""

import math
import re

from jax_sft.planning.hlo.parse import Computation, Instruction, Module


def trip_count(module: Module, loop: Instruction, caller: Computation) -> int | None:
    """How often a `while` runs its body, or None when that depends on data."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
        return int(known[1])
    condition = module.computations[loop.attribute("condition")]
    body = module.computations[loop.attribute("body")]
    compared = _comparison(module, condition)
    if compared is None:
        return None
    counter, bound, direction = compared
    start = _initial(loop, caller, _index(condition, counter))
    index, limit = _index(condition, counter), _constant(condition, bound)
    if limit is None and _unchanged(body, _index(condition, bound)):
        limit = _initial(loop, caller, _index(condition, bound))
    if index is None or limit is None or direction not in ("LT", "LE", "NE"):
        return None
    limit += direction == "LE"
    return max(0, math.ceil((limit - (start or 0)) / _step(body, index)))


def _comparison(module: Module, condition: Computation) -> tuple[str, str, str] | None:
    """(counter, bound, direction) of a condition that is one comparison, in names of the condition."""
    root = condition.source(condition.root_name)
    if root is None:
        return None
    if root.op == "fusion":
        called = module.computations[root.attribute("calls")]
        inner = called.source(called.root_name)
        if inner is None or inner.op != "compare":
            return None
        outer = {called.parameters[number]: name for number, name in enumerate(root.operands)}
        left, right = (_outer(called, name, outer) for name in inner.operands)
        if left not in condition.instructions:
            return None
        return left, right, inner.attribute("direction")
    if root.op != "compare":
        return None
    return root.operands[0], root.operands[1], root.attribute("direction")


def _outer(called: Computation, name: str, outer: dict[str, str]) -> str:
    """The caller's name of what the called computation reads, or `=5` for a constant of its own."""
    source = called.source(name)
    if source is None:
        return name
    return f"={source.inside}" if source.op == "constant" else outer.get(source.name, name)


def _constant(computation: Computation, name: str) -> int | None:
    if name.startswith("="):
        return int(name[1:])
    source = computation.source(name)
    if source is None or source.op != "constant" or not re.fullmatch(r"-?\d+", source.inside):
        return None
    return int(source.inside)


def _index(computation: Computation, name: str) -> int | None:
    """Which element of the loop's tuple this is."""
    source = computation.source(name)
    if source is None or source.op != "get-tuple-element":
        return None
    return int(source.attribute("index"))


def _initial(loop: Instruction, caller: Computation, index: int | None) -> int | None:
    """The constant that an element of the loop's tuple starts with."""
    start = caller.source(loop.operands[0])
    if index is None or start is None or start.op != "tuple":
        return None
    return _constant(caller, start.operands[index])


def _unchanged(body: Computation, index: int | None) -> bool:
    root = body.source(body.root_name)
    if index is None or root is None or root.op != "tuple":
        return False
    return _index(body, root.operands[index]) == index


def _step(body: Computation, index: int) -> int:
    """What the body adds to the loop's counter; 1 when that cannot be read."""
    root = body.source(body.root_name)
    if root is None or root.op != "tuple":
        return 1
    added = body.source(root.operands[index])
    if added is None or added.op != "add":
        return 1
    steps = (_constant(body, name) for name in added.operands)
    return next((step for step in steps if step), 1)
