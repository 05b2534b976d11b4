"""Reading optimized HLO text: computations, instructions, shapes and where they live, trip counts of loops.

Only what the other files here need is understood. The text is that of `compiled.as_text()`; TPU's says
in a layout where an array lives: `S(1)` is on-chip memory, `S(5)` the host's.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_DTYPE_BITS = {
    "pred": 8,
    "s2": 2,
    "u2": 2,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "s16": 16,
    "u16": 16,
    "f16": 16,
    "bf16": 16,
    "s32": 32,
    "u32": 32,
    "f32": 32,
    "s64": 64,
    "u64": 64,
    "f64": 64,
    "c64": 64,
    "c128": 128,
}
HBM, HOST = 0, 5
"""Memory spaces: the accelerator's main memory (no mark in the text), and the host's."""
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"%([\w.\-]+)")
_TRANSPARENT = ("copy", "bitcast", "copy-start", "copy-done", "convert", "reshape", "optimization-barrier")


@dataclass(frozen=True)
class Array:
    """One array of a shape, with the memory space it lives in."""

    dtype: str
    dims: tuple[int, ...]
    space: int = HBM

    @property
    def bytes(self) -> int:
        """Without padding to tiles."""
        bits = _DTYPE_BITS.get(self.dtype, 8 if self.dtype.startswith("f8") else 0)
        return math.prod(self.dims) * bits // 8


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    op: str
    arrays: tuple[Array, ...]
    """Of its result; several for a tuple."""
    operands: tuple[str, ...]
    inside: str
    """The text between the operands' parentheses: the value of a constant, the number of a parameter."""
    attributes: str

    @property
    def bytes(self) -> int:
        """Of the result, wherever it lives."""
        return sum(array.bytes for array in self.arrays)

    def attribute(self, name: str) -> str:
        """The value of `name=%value` or `name=value`, or an empty string."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""

    def names_in(self, name: str) -> list[str]:
        """The computations of `name={%a, %b}`."""
        found = re.search(rf"\b{name}=\{{([^}}]*)\}}", self.attributes)
        return _NAME.findall(found[1]) if found else []

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


class Computation:
    """A computation's instructions by name, in order, with its root and its parameters by number."""

    def __init__(self, name: str, instructions: dict[str, Instruction], root: str) -> None:
        self.name, self.instructions, self.root_name = name, instructions, root

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    @property
    def root(self) -> Instruction:
        """The instruction whose value is the computation's."""
        return self.instructions[self.root_name]

    @cached_property
    def parameters(self) -> dict[int, str]:
        """Names of the parameters by number."""
        return {int(each.inside): each.name for each in self if each.op == "parameter"}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read each instruction."""
        users: dict[str, list[Instruction]] = {}
        for each in self:
            for operand in dict.fromkeys(each.operands):
                users.setdefault(operand, []).append(each)
        return users

    def source(self, name: str) -> Instruction | None:
        """The instruction that `name` is merely a copy or another view of."""
        found = self.instructions.get(name)
        while found is not None and found.op in _TRANSPARENT and found.operands:
            found = self.instructions.get(found.operands[0])
        return found


@dataclass(frozen=True)
class Module:
    """All computations of a program by name."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """The module in the text of a compiled program; ValueError when there is no entry computation."""
    computations: dict[str, Computation] = {}
    entry = name = root = ""
    body: dict[str, Instruction] = {}
    for line in text.splitlines():
        if not line.startswith(" "):
            if match := _HEADER.match(line):
                name, body, root = match[2], {}, ""
                entry = name if match[1] else entry
            elif line == "}" and name:
                computations[name] = Computation(name, body, root)
        elif name and " = " in line:
            instruction = _instruction(line)
            body[instruction.name] = instruction
            if line.lstrip().startswith("ROOT ") or not root:
                root = instruction.name
    if entry not in computations:
        raise ValueError("the text holds no ENTRY computation")
    return Module(computations, entry)


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a shape such as `(f32[8,128]{1,0:T(8,128)S(1)}, s32[])`."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(size) for size in dims.split(",") if size)
        found.append(Array(dtype, sizes, int(space[1]) if space else HBM))
    return tuple(found)


def _instruction(line: str) -> Instruction:
    left, _, right = line.strip().removeprefix("ROOT ").partition(" = ")
    end = _closing(right, 0) if right.startswith("(") else right.index(" ") - 1
    shape, rest = right[: end + 1], right[end + 1 :].lstrip()
    start = rest.index("(")
    stop = _closing(rest, start)
    inside = rest[start + 1 : stop]
    operands = tuple(_NAME.findall(inside)) if "%" in inside else ()
    return Instruction(left.lstrip("%"), rest[:start], arrays(shape), operands, inside, rest[stop + 1 :])


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] == "(":
            depth += 1
        elif text[at] == ")":
            depth -= 1
            if depth == 0:
                return at
    return len(text) - 1
