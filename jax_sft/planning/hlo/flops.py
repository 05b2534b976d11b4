"""FLOPs of dots and convolutions from their shapes."""

import math
import re
from dataclasses import dataclass

from jax_sft.planning.hlo.parse import Computation, Instruction


def _sizes(each: Instruction, attribute: str) -> list[int]:
    """The numbers of `attribute={1,2}`."""
    found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", each.attributes)
    return [int(n) for n in found[1].split(",") if n] if found else []


def dot_flops(each: Instruction, within: Computation) -> float:
    """2 x elements of the result x elements that each is a sum over."""
    left = within.instructions[each.operands[0]].arrays[0].dims
    contracted = math.prod(left[axis] for axis in _sizes(each, "lhs_contracting_dims"))
    return 2.0 * math.prod(each.arrays[0].dims) * contracted


def convolution_flops(each: Instruction, within: Computation) -> float:
    """2 x batch x features in and out x pairs of places that meet, along each spatial dimension."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.attributes)
    assert labels is not None, f"{each.name}: a convolution without dim_labels"
    left, right = (within.instructions[name].arrays[0].dims for name in each.operands[:2])
    out = each.arrays[0].dims
    flops = 2.0 * out[labels[3].index("b")] * out[labels[3].index("f")] * right[labels[2].index("i")]
    spatial = sorted(label for label in labels[1] if label.isdigit())
    for number, label in enumerate(spatial):
        sizes = left[labels[1].index(label)], right[labels[2].index(label)], out[labels[3].index(label)]
        flops *= _window(each, number).meetings(*sizes)
    return flops


@dataclass(frozen=True)
class _Window:
    """How the right side of a convolution moves over the left, along one spatial dimension."""

    stride: int
    padding: int
    """Places before the first element."""
    left_dilation: int
    """Every so many places there is an element, the others are holes; likewise on the right."""
    right_dilation: int

    def meetings(self, left: int, right: int, out: int) -> int:
        """Pairs (output place, window place) at which the window lies on an element, of arrays so long."""
        pairs, end = 0, (left - 1) * self.left_dilation
        for place in range(out):
            for within in range(right):
                at = place * self.stride + within * self.right_dilation - self.padding
                pairs += 0 <= at <= end and at % self.left_dilation == 0
        return pairs


def _window(each: Instruction, number: int) -> _Window:
    """The window of a convolution along one of its spatial dimensions."""
    found = re.search(r"window=\{([^}]*)\}", each.attributes)
    fields = dict(part.split("=") for part in found[1].split()) if found else {}

    def pick(name: str, default: int) -> int:
        return int(fields[name].split("x")[number].split("_")[0]) if name in fields else default

    return _Window(pick("stride", 1), pick("pad", 0), pick("lhs_dilate", 1), pick("rhs_dilate", 1))
