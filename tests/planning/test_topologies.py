"""Slices of TPUs: names, descriptions for the compiler, and what a device receives over their links."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jax_sft.chips import CHIPS, GIB
from jax_sft.config import ParallelismConfig
from jax_sft.errors import UsageError
from jax_sft.planning.topologies import SHAPES, parse_topology
from jax_sft.sharding import make_generation_mesh, make_mesh
from tests.planning.compiler import compile_lowered


@pytest.mark.parametrize(
    ("text", "slice_name", "topology_name", "devices", "wrap"),
    [
        ("v5p:64", "v5p-128", "v5:4x4x4", 64, (True, True, True)),
        ("v5p:32", "v5p-64", "v5:2x4x4", 32, (False, False, False)),
        ("v4:4", "v4-8", "v4:2x2x1", 4, (False, False, False)),
        ("v5e:128", "v5litepod-128", "v5e:8x16", 128, (False, True, False)),
        ("v6e:256", "v6e-256", "v6e:16x16", 256, (True, True, False)),
        ("v6e:1", "v6e-1", "v6e:1x1", 1, (False, False, False)),
        ("tpu7x:64", "tpu7x-128", "tpu7x:4x4x4", 128, (True, True, True)),
        ("v5p:2x64", "2 x v5p-128", "v5:4x4x4", 128, (True, True, True)),
    ],
)
def test_a_slice_has_googles_name_and_the_compilers_description(
    text: str, slice_name: str, topology_name: str, devices: int, wrap: tuple[bool, bool, bool]
) -> None:
    topology = parse_topology(text)
    assert topology.label == text
    assert topology.slice_name == slice_name
    assert topology.devices == devices
    assert topology.description["topology_name"] == topology_name
    assert topology.description["wrap"] == wrap
    assert topology.description.get("num_slices", 1) == topology.slices


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h100:8", "known are v4, v5e, v5p, v6e, tpu7x"),
        ("v5p:5", "no slice of 5 v5p chips is known; there are 4, 8, 16"),
        ("v6e:512", "there are 1, 4, 8, 16, 32, 64, 128, 256"),
        ("v5p", "write TYPE:CHIPS"),
        ("v5p:four", "write TYPE:CHIPS"),
        ("v5p:0x64", "write TYPE:CHIPS"),
        ("", "no TPU type ''"),
    ],
)
def test_what_is_not_known_is_refused_with_what_is(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_topology(text)


def test_every_known_slice_is_described() -> None:
    for chip in CHIPS.values():
        for chips in SHAPES[chip.dimensions]:
            topology = parse_topology(f"{chip.name}:{chips}")
            assert topology.chips == chips
            assert 14 * GIB < topology.hbm_bytes < 100 * GIB


def test_a_group_has_the_links_of_the_dimensions_it_fills() -> None:
    torus = parse_topology("v5p:64")
    link = 100e9
    assert torus.ring_bandwidth(64) == 6 * link
    assert torus.ring_bandwidth(16) == 4 * link
    assert torus.ring_bandwidth(4) == 2 * link
    assert torus.ring_bandwidth(2) == link, "half a ring is a line"
    assert torus.ring_bandwidth(32) == torus.ring_bandwidth(8) == 2 * link, "one ring through half the torus"
    mesh = parse_topology("v6e:32")
    assert mesh.ring_bandwidth(32) == mesh.ring_bandwidth(16) == 2 * link
    assert mesh.ring_bandwidth(8) == mesh.ring_bandwidth(4) == link
    assert parse_topology("v5p:16").ring_bandwidth(16) == 2 * link, "no dimension is closed"
    assert parse_topology("tpu7x:64").ring_bandwidth(128) == 6 * link / 2, "two devices share a chip's links"
    assert parse_topology("tpu7x:64").ring_bandwidth(2) == 1200e9 / 2, "within a chip"


def test_hops_are_a_quarter_of_each_ring() -> None:
    torus = parse_topology("v5p:64")
    assert [torus.hops(group) for group in (2, 4, 16, 32, 64)] == [1, 1, 2, 8, 3]
    assert parse_topology("v6e:64").hops(64) == pytest.approx(16 / 3), "a third of a line"


@pytest.mark.parametrize("group", [4, 16, 32, 64])
def test_the_compiler_gathers_over_as_many_dimensions(libtpu: Any, group: int) -> None:
    """Its gather is named by them: over two for 16 of 4x4x4 chips, over one for the ring through 32."""
    torus = parse_topology("v5p:64")
    mesh = make_mesh(ParallelismConfig(replica=64 // group, fsdp=group), libtpu(torus))
    gather = jax.shard_map(
        lambda x: jax.lax.all_gather(x, "fsdp", tiled=True),
        mesh=mesh,
        in_specs=P("fsdp"),
        out_specs=P(),
        check_vma=False,
    )
    x = jax.ShapeDtypeStruct((4096, 1024), jnp.float32, sharding=NamedSharding(mesh, P("fsdp")))
    named = re.findall(r'"emitter":"(\d)DAllGather', compile_lowered(jax.jit(gather).lower(x)).as_text())
    assert named == [str(round(torus.ring_bandwidth(group) / torus.ring_bandwidth(4)))]


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("v6e:32", ParallelismConfig(fsdp=16, tensor=2)),
        ("v5p:64", ParallelismConfig(fsdp=32, tensor=2)),
        ("v5p:2x64", ParallelismConfig(replica=2, tensor=4)),
        ("v5e:2x16", ParallelismConfig(replica=4, tensor=2)),
    ],
)
def test_any_split_is_laid_out_along_the_links(libtpu: Any, text: str, axes: ParallelismConfig) -> None:
    topology = parse_topology(text)
    mesh = make_mesh(axes, libtpu(topology))
    assert mesh.size == topology.devices
    per_slice = mesh.devices.reshape(topology.slices, -1)
    assert all(len({getattr(device, "slice_index", 0) for device in row}) == 1 for row in per_slice)
    for pair in mesh.devices.reshape(-1, axes.tensor)[:, :2]:
        steps = np.abs(np.subtract(pair[0].coords, pair[1].coords))
        assert steps.sum() == 1, "devices of the last axis are neighbours"


def test_slices_hold_copies(libtpu: Any) -> None:
    devices = libtpu(parse_topology("v5e:2x16"))
    with pytest.raises(UsageError, match=r"parallelism.replica 1: 2 slices hold copies of the parameters"):
        make_mesh(ParallelismConfig(), devices)
    assert dict(make_generation_mesh(4, devices).shape) == {
        "replica": 2,
        "fsdp": 4,
        "sequence": 1,
        "tensor": 4,
    }
