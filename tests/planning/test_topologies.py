"""Slices of TPUs: names, descriptions for the compiler, and what a device receives over their links."""

import pytest

from jax_sft.errors import UsageError
from jax_sft.planning.topologies import CHIPS, GIB, SHAPES, parse_topology


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


def test_links_of_all_dimensions_a_group_spans_work_for_it() -> None:
    torus = parse_topology("v5p:64")
    link = 100e9
    assert torus.ring_bandwidth(64) == 6 * link
    assert torus.ring_bandwidth(16) == 4 * link
    assert torus.ring_bandwidth(4) == 2 * link
    assert torus.ring_bandwidth(2) == link, "half a ring is a line"
    mesh = parse_topology("v6e:32")
    assert mesh.ring_bandwidth(32) == 2 * link, "no ring is closed"
    assert mesh.ring_bandwidth(8) == link
    assert parse_topology("tpu7x:64").ring_bandwidth(128) == 6 * link / 2, "two devices share a chip's links"


def test_mesh_axes_take_whole_dimensions_of_a_slice() -> None:
    torus, mesh = parse_topology("v5p:64"), parse_topology("v6e:32")
    assert all(torus.holds(sizes) for sizes in ((64, 1), (16, 4), (4, 4, 4)))
    assert not torus.holds((32, 2))
    assert mesh.holds((8, 1, 4))
    assert not mesh.holds((16, 2))
    assert parse_topology("tpu7x:64").holds((64, 2))
