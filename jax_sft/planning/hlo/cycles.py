"""Clock cycles of what is neither a matrix product nor a kernel: elementwise work, reductions, copies, sorts.

The TPU's compiler writes its own estimate beside each fusion and copy, which covers arithmetic and memory.
Beside a sort it writes none: `sort_cycles` counts the exchanges of a bitonic network, which is how it sorts.
"""

import math
import re

from jax_sft.planning.hlo.parse import Instruction

_ESTIMATE = re.compile(r'"estimated_cycles":"(\d+)"')
_DIMENSION = re.compile(r"\bdimensions=\{(\d+)\}")
VECTOR_LANES = 8 * 128 * 4
"""Operations on 32-bit values that one core does in a cycle: four units of 8 x 128."""
EXCHANGE_OPERATIONS = 4
"""To find partner and order of two entries in an exchange; picking the new value takes one more an array."""


def estimated_cycles(each: Instruction) -> float:
    """Of one scheduled instruction on one device; 0 where nothing is known."""
    if each.op == "sort":
        return sort_cycles(each)
    found = _ESTIMATE.search(each.attributes)
    return float(found[1]) if found else 0.0


def sort_cycles(each: Instruction) -> float:
    """Of a bitonic sort of all operands along one dimension, filled up to a power of two.

    That takes log2(n) (log2(n) + 1) / 2 passes over all entries (K. Batcher, 1968).
    """
    found = _DIMENSION.search(each.attributes)
    dims = each.arrays[0].dims
    length = dims[int(found[1])] if found else math.prod(dims)
    if length < 2:
        return 0.0
    stages = math.ceil(math.log2(length))
    entries = math.prod(dims) // length * 2**stages
    operations = EXCHANGE_OPERATIONS + len(each.arrays)
    return entries * stages * (stages + 1) / 2 * operations / VECTOR_LANES
