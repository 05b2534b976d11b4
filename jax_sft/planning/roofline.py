"""The least time a program can take on a chip, and what that makes of a run's hours and dollars.

Compute, HBM, links and host work at once at best, one after the other at worst: a step takes at least the
longest of their times (the bound) and, where nothing overlaps, their sum. Real steps lie between if their
kernels reach the chip's rates.

MFU bound = model FLOPs (models/size.py) / (bound x chips x peak).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jax_sft.config import ModelConfig
from jax_sft.planning.hlo import Cost, Traffic
from jax_sft.planning.topologies import Topology

PRODUCTS = {"dkv": 4, "dq": 3, "fwd": 2}
"""Matrix products of queries x keys x head size that each attention kernel makes; by a part of its name."""


@dataclass(frozen=True)
class Roofline:
    """Seconds that each part of the machine needs, were it alone; FLOPs and bytes are per device."""

    flops: float
    kernel_flops: float
    hbm_bytes: float
    ici_bytes: float
    """That a device receives over the slice's own links."""
    dcn_bytes: float
    compute_seconds: float
    hbm_seconds: float
    ici_seconds: float
    dcn_seconds: float
    host_bytes: float
    """Between the device and its host."""
    host_seconds: float
    elementwise_seconds: float = 0.0
    """Of the vector units; counted while generating alone."""

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by part of the machine."""
        return {
            "compute": self.compute_seconds,
            "HBM": self.hbm_seconds,
            "interconnect": self.ici_seconds,
            "data centre network": self.dcn_seconds,
            "host": self.host_seconds,
        } | ({"elementwise": self.elementwise_seconds} if self.elementwise_seconds else {})

    @property
    def bound(self) -> float:
        """Seconds when everything overlaps."""
        return max(self.parts.values())

    @property
    def serial(self) -> float:
        """Seconds when nothing overlaps."""
        return sum(self.parts.values())

    @property
    def limit(self) -> str:
        """The part of the machine that the bound comes from."""
        return max(self.parts, key=lambda name: self.parts[name])


def roofline(cost: Cost, topology: Topology, kernel_flops: Mapping[str, float]) -> Roofline:
    """The roofline of an expanded cost (`Cost.total`).

    `kernel_flops` are FLOPs of one call by a part of the kernel's name.
    """
    chip = topology.chip
    kernels = sum(
        calls * next((flops for part, flops in kernel_flops.items() if part in name), 0.0)
        for name, calls in cost.kernels.items()
    )
    ici, ici_seconds, dcn = 0.0, 0.0, 0.0
    for key, (_, size) in cost.collectives.items():
        received = received_bytes(key, size)
        if key.crosses_slices:
            dcn += received
        else:
            ici += received
            hops = topology.hops(key.group) if key.kind == "all-to-all" else 1.0
            ici_seconds += hops * received / topology.ring_bandwidth(key.group)
    return Roofline(
        flops=cost.flops,
        kernel_flops=kernels,
        hbm_bytes=cost.hbm_bytes,
        ici_bytes=ici,
        dcn_bytes=dcn,
        compute_seconds=(cost.flops + kernels) * chip.devices / chip.peak_flops,
        hbm_seconds=cost.hbm_bytes * chip.devices / chip.hbm_bandwidth,
        ici_seconds=ici_seconds,
        dcn_seconds=dcn * chip.devices / chip.dcn_bandwidth,
        host_bytes=cost.host_bytes,
        host_seconds=cost.host_bytes * chip.devices / chip.host_bandwidth,
    )


def received_bytes(key: Traffic, size: float) -> float:
    """Bytes a device receives in a collective over an array of `size` bytes, by the ring algorithms."""
    others = (key.group - 1) / key.group if key.group else 0.0
    if key.kind == "collective-permute":
        return size
    if key.kind == "all-reduce":
        return 2 * others * size
    return others * size


def attention_flops(
    model: ModelConfig, pairs_per_row: float, row_length: int, block: int, ways: int
) -> dict[str, float]:
    """FLOPs of one call of each attention kernel on one packed row, on a device that has 1/ways of the work.

    Blocks are computed whole: half a block more per query than causality asks for.
    """
    computed = pairs_per_row + row_length * block / 2
    product = 2.0 * model.num_heads * model.head_dim * computed / ways
    return {part: products * product for part, products in PRODUCTS.items()}


def mfu(flops: float, seconds: float, topology: Topology) -> float:
    """Share of the peak of all chips that `flops` in `seconds` are."""
    return flops / (seconds * topology.chips * topology.chip.peak_flops)
