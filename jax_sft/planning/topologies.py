"""Slices of TPUs that a plan knows, and how libtpu's compiler wants them described.

Slice shapes, wrap-around links and `megacore` follow MaxText's accelerator_to_spec_map.py: without `wrap` a
4x4x4 slice is compiled as if its rings were open.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

from jax_sft.chips import CHIPS, Chip
from jax_sft.errors import UsageError

_SHAPES_2D = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SHAPES_3D = (
    (2, 2, 1),
    (2, 2, 2),
    (2, 2, 4),
    (2, 4, 4),
    (4, 4, 4),
    (4, 4, 8),
    (4, 4, 12),
    (4, 8, 8),
    (4, 8, 12),
    (8, 8, 8),
    (8, 8, 12),
    (8, 8, 16),
    (8, 16, 16),
)
SHAPES: dict[int, dict[int, tuple[int, ...]]] = {
    2: {math.prod(shape): shape for shape in _SHAPES_2D},
    3: {math.prod(shape): shape for shape in _SHAPES_3D},
}
"""The usual slice of each number of chips, for tori of two and of three dimensions."""


@dataclass(frozen=True)
class Topology:
    """`slices` equal slices of one kind of chip; several are joined by the data centre network."""

    chip: Chip
    shape: tuple[int, ...]
    """Chips along each dimension of one slice."""
    slices: int = 1

    @property
    def chips(self) -> int:
        """Chips in all slices together."""
        return math.prod(self.shape) * self.slices

    @property
    def devices(self) -> int:
        """JAX devices in all slices together."""
        return self.chips * self.chip.devices

    @property
    def hbm_bytes(self) -> float:
        """Usable HBM of one device."""
        return self.chip.hbm_bytes / self.chip.devices

    @property
    def label(self) -> str:
        """As it is asked for: `v5p:64`, `v5p:2x64` for two slices."""
        chips = math.prod(self.shape)
        return f"{self.chip.name}:{self.slices}x{chips}" if self.slices > 1 else f"{self.chip.name}:{chips}"

    @property
    def slice_name(self) -> str:
        """Google's name: `v5p-128` is 64 chips of two cores; `2 x v5p-128` for two slices."""
        prefix = self.chip.slice_prefix or self.chip.name
        name = f"{prefix}-{math.prod(self.shape) * self.chip.cores_in_name}"
        return f"{self.slices} x {name}" if self.slices > 1 else name

    @property
    def wrap(self) -> tuple[bool, bool, bool]:
        """Dimensions whose ends are linked: all of whole 4x4x4 cubes, those of 16 chips in two dimensions."""
        if self.chip.dimensions == 3:
            closed = all(size % 4 == 0 for size in self.shape)
            return (closed, closed, closed)
        return (self.shape[0] == 16, self.shape[1] == 16, False)

    @property
    def description(self) -> dict[str, Any]:
        """Arguments of `jax.experimental.topologies.get_topology_desc`."""
        prefix = self.chip.topology_prefix or self.chip.name
        alone = math.prod(self.shape) == 1
        described: dict[str, Any] = {
            "platform": "tpu",
            "topology_name": f"{prefix}:{'x'.join(map(str, self.shape))}",
            "chip_config_name": self.chip.config,
            "chips_per_host_bounds": (1, 1, 1) if alone else (2, 2, 1),
            "wrap": self.wrap,
        }
        return described | ({"num_slices": self.slices} if self.slices > 1 else {})

    def ring_bandwidth(self, group: int) -> float:
        """Bytes a second a device can receive in a collective over `group` devices of one slice.

        A group that fills closed dimensions of the torus has both directions of each of them. Any other that
        reaches over several is strung up to one ring, part of one dimension is a line: so the compiler names
        its algorithms. The optimistic side of what a real placement gives.
        """
        per_link = self.chip.ici_bandwidth / (4 * self.chip.dimensions)
        chips = group / self.chip.devices
        if chips <= 1:
            return self.chip.ici_bandwidth / self.chip.devices
        longest = max(self.shape)
        filled = self._filled(chips)
        if filled is None:
            links = 1 if chips < longest and longest % chips == 0 else 2
        else:
            closed = all(self.wrap[dimension] for dimension in filled)
            links = 2 * len(filled) if closed else min(len(filled), 2)
        return links * per_link / self.chip.devices

    def hops(self, group: int) -> float:
        """Links that a byte takes on the mean from one of `group` devices to another, along their rings."""
        filled = self._filled(group / self.chip.devices)
        if filled is None:
            return max(1.0, group / 4)
        lengths = ((self.shape[dimension], self.wrap[dimension]) for dimension in filled)
        return max(1.0, sum(size / (4 if closed else 3) for size, closed in lengths))

    def _filled(self, chips: float) -> tuple[int, ...] | None:
        """The fewest dimensions that `chips` chips fill, or None if they fill none."""
        long = [dimension for dimension, size in enumerate(self.shape) if size > 1]
        sets = (each for n in range(1, len(long) + 1) for each in itertools.combinations(long, n))
        return next((each for each in sets if math.prod(self.shape[d] for d in each) == chips), None)


def parse_topology(text: str) -> Topology:
    """The topology of `v5p:64`, or `v5p:2x64` for two slices of 64; UsageError listing what is known."""
    name, _, count = text.strip().partition(":")
    chip = CHIPS.get(name)
    if chip is None:
        raise UsageError(f"--chips {text}: no TPU type {name!r}; known are {', '.join(CHIPS)}")
    slices, _, chips = count.rpartition("x")
    if not chips.isdecimal() or not (slices or "1").isdecimal() or int(slices or 1) < 1:
        raise UsageError(f"--chips {text}: write TYPE:CHIPS, such as v5p:64, or v5p:2x64 for two slices")
    shape = SHAPES[chip.dimensions].get(int(chips))
    if shape is None:
        known = ", ".join(map(str, SHAPES[chip.dimensions]))
        raise UsageError(f"--chips {text}: no slice of {chips} {name} chips is known; there are {known}")
    return Topology(chip, shape, int(slices or 1))
