"""The TPUs that are known, and what a chip of each can do.

Figures are those of Google's pages on system architecture (cloud.google.com/tpu/docs, pages v4, v5e, v5p, v6e
and tpu7x): bf16 peak, HBM bandwidth, bidirectional interconnect (ICI) bandwidth and data centre network (DCN)
bandwidth per chip; the pages v4 and v5e were not at hand, their figures are the usual ones, as are those of
the host's PCIe (jax-ml.github.io/scaling-book).
The clock is the peak over the products of a core's four matrix units, 128 x 128 wide, from v6e on 256 x 256.
What a program may use of the HBM is the compiler's own limit, read off its message when memory runs out
(libtpu 0.0.50.1).
"""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One kind of TPU. Bandwidths are bytes a second, per chip."""

    name: str
    device_kind: str
    """What JAX calls its devices."""
    peak_flops: float
    """bf16 operations a second."""
    hbm_bytes: int
    """What the compiler lets a program use, all devices of the chip together."""
    hbm_bandwidth: float
    ici_bandwidth: float
    """Both directions of all links together."""
    dcn_bandwidth: float
    host_bandwidth: float
    """One way between the chip and its host's memory."""
    clock: float
    """Cycles a second."""
    dimensions: int
    """Of the torus."""
    devices: int = 1
    """JAX devices a chip appears as."""
    cores_in_name: int = 1
    """Google counts these, not chips, in the name of a slice."""
    slice_prefix: str = ""
    """Of that name, where it is not the chip's."""
    topology_prefix: str = ""
    """libtpu's name, where it is not the chip's."""
    config: str = "default"


_V4 = Chip(
    name="v4",
    device_kind="TPU v4",
    peak_flops=275e12,
    hbm_bytes=int(31.75 * GIB),
    hbm_bandwidth=1228e9,
    ici_bandwidth=600e9,
    dcn_bandwidth=3.125e9,
    host_bandwidth=16e9,
    clock=1.05e9,
    dimensions=3,
    cores_in_name=2,
    config="megacore_dense",
)
_V5E = Chip(
    name="v5e",
    device_kind="TPU v5 lite",
    peak_flops=197e12,
    hbm_bytes=int(15.75 * GIB),
    hbm_bandwidth=819e9,
    ici_bandwidth=400e9,
    dcn_bandwidth=3.125e9,
    host_bandwidth=16e9,
    clock=1.5e9,
    dimensions=2,
    slice_prefix="v5litepod",
)
_V5P = Chip(
    name="v5p",
    device_kind="TPU v5",
    peak_flops=459e12,
    hbm_bytes=int(95.73 * GIB),
    hbm_bandwidth=2765e9,
    ici_bandwidth=1200e9,
    dcn_bandwidth=6.25e9,
    host_bandwidth=16e9,
    clock=1.75e9,
    dimensions=3,
    cores_in_name=2,
    topology_prefix="v5",
    config="megacore",
)
_V6E = Chip(
    name="v6e",
    device_kind="TPU v6 lite",
    peak_flops=918e12,
    hbm_bytes=int(31.24 * GIB),
    hbm_bandwidth=1638e9,
    ici_bandwidth=800e9,
    dcn_bandwidth=12.5e9,
    host_bandwidth=32e9,
    clock=1.75e9,
    dimensions=2,
)
_TPU7X = Chip(
    name="tpu7x",
    device_kind="TPU7x",
    peak_flops=2307e12,
    hbm_bytes=int(2 * 94.74 * GIB),
    hbm_bandwidth=7380e9,
    ici_bandwidth=1200e9,
    dcn_bandwidth=12.5e9,
    host_bandwidth=32e9,
    clock=2.2e9,
    dimensions=3,
    devices=2,
    cores_in_name=2,
)
CHIPS = {chip.name: chip for chip in (_V4, _V5E, _V5P, _V6E, _TPU7X)}


def device_peak(device_kind: str) -> float | None:
    """bf16 operations a second of one device that JAX calls so; None for one that is not known."""
    chips = [chip for chip in CHIPS.values() if chip.device_kind == device_kind]
    return chips[0].peak_flops / chips[0].devices if chips else None
