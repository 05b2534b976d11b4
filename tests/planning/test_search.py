"""The search for the fastest settings that fit."""

from types import SimpleNamespace
from typing import Any

import pytest

from jax_sft.config import DataConfig, ModelConfig, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.planning import search as searching
from jax_sft.planning.costing import Settings
from jax_sft.planning.search import candidates, meshes, search
from jax_sft.planning.topologies import parse_topology
from jax_sft.planning.workload import workload
from tests.planning.fakes import MODEL, RUN, FakeCompiler

V5E = parse_topology("v5e:4")


def work_of(run: Any) -> Any:
    return workload(run, None)


def find(monkeypatch: pytest.MonkeyPatch, compiler: Any, most: int = 100) -> Any:
    for module in ("costing", "sweeping"):
        monkeypatch.setattr(f"jax_sft.planning.{module}.compile_facts", compiler)
    # Guesses of time must not end the search before all has been looked at.
    monkeypatch.setattr(searching, "estimate_seconds", lambda *args: 0.0)
    return search(RUN, work_of, V5E, Settings(), most)


def test_meshes_multiply_to_the_devices_and_divide_model_and_rows() -> None:
    topology = parse_topology("v5p:2x8")
    found = list(meshes(MODEL, RUN.data, topology))
    assert all(m.replica * m.fsdp * m.sequence * m.tensor == 16 and m.replica == 2 for m in found)
    assert {m.tensor for m in found} == {1, 2, 4}, "8 does not divide 4 key/value heads"
    assert {m.sequence for m in found} == {1, 2, 4, 8}
    short = DataConfig(row_length=384)
    assert {m.sequence for m in meshes(MODEL, short, topology)} == {1}, "no block divides half of 384"
    odd = ModelConfig(hidden_size=36, num_kv_heads=3, mlp_size=96, head_dim=12)
    assert {(m.fsdp, m.tensor) for m in meshes(odd, RUN.data, parse_topology("v5e:4"))} == {
        (4, 1),
        (2, 1),
        (1, 1),
    }


def test_candidates_come_by_expected_time_and_every_micro_batch_fills_the_data_axes() -> None:
    found = candidates(RUN, work_of, V5E)
    assert [each.seconds for each in found] == sorted(each.seconds for each in found)
    assert all(each.rows % (each.mesh.replica * each.mesh.fsdp) == 0 for each in found)
    assert {each.remat for each in found} == set(searching.KEEPS)


def test_the_fastest_that_fits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = FakeCompiler({"none": 20.0, "minimal": 15.0})
    best, tried = find(monkeypatch, compiler)
    assert best is not None
    assert best.run.remat == "save_qkv"
    assert best.fits
    assert best.run.data.rows_per_micro_batch % best.mesh["fsdp"] == 0
    assert any("does not fit" in line for line in tried)


def test_what_keeps_more_than_something_too_big_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = FakeCompiler(dict.fromkeys(searching.KEEPS, 20.0))
    best, tried = find(monkeypatch, compiler)
    assert best is None
    meshes_asked = [program.run.parallelism for program in compiler.asked]
    assert len(compiler.asked) == len(tried)
    assert max(map(meshes_asked.count, meshes_asked)) <= 2


def test_a_search_stops_after_so_many_compilations_and_survives_failures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler = FakeCompiler()
    assert len(find(monkeypatch, compiler, most=3)[1]) == len(compiler.asked) == 3

    def failing(*args: Any) -> Any:
        raise JaxSftError("no luck")

    best, tried = find(monkeypatch, failing, most=2)
    assert best is None
    assert [line.rpartition(": ")[2] for line in tried] == 6 * ["no luck"]


def test_settings_too_big_by_far_are_not_compiled() -> None:
    huge = replace(RUN, model=replace(MODEL, num_layers=2000, mlp_size=16_384))
    limit = Settings().hbm_share * V5E.hbm_bytes
    assert all(each.memory > searching.MARGIN * limit for each in candidates(huge, work_of, V5E))
    assert search(huge, work_of, V5E, Settings(), 3) == (None, [])


def test_the_more_did_not_fit_the_smaller_are_those_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = FakeCompiler(dict.fromkeys(searching.KEEPS[1:], 15.7))
    for module in ("costing", "sweeping"):
        monkeypatch.setattr(f"jax_sft.planning.{module}.compile_facts", compiler)
    sizes = dict(zip(searching.KEEPS, (8e9, 13e9, 13.5e9, 14e9, 14.5e9, 15e9), strict=True))
    # The more is kept the faster; what each needs is underestimated.
    speed = {remat: float(-place) for place, remat in enumerate(searching.KEEPS)}
    monkeypatch.setattr(searching, "estimate_seconds", lambda *args: speed[args[-1]])
    monkeypatch.setattr(searching, "estimate_memory", lambda *args: sizes[args[-1]])
    best, tried = search(RUN, work_of, V5E, Settings(), most=1)
    assert best is not None
    assert best.run.remat == "offload"
    assert len(tried) < len(searching.KEEPS), "not every policy was compiled on the way"


def test_copies_in_each_slice_keep_gathers_from_spanning_linked_slices() -> None:
    assert {m.replica for m in meshes(MODEL, RUN.data, parse_topology("v5p:2x64"))} == {4}
    assert {m.replica for m in meshes(MODEL, RUN.data, parse_topology("v5p:2x32"))} == {2}
    assert {m.replica for m in meshes(MODEL, RUN.data, parse_topology("v5p:64"))} == {1}


def test_chips_that_are_no_power_of_two_may_hold_copies() -> None:
    found = list(meshes(MODEL, RUN.data, parse_topology("v5p:192")))
    assert {m.replica for m in found} == {3}, "512 does not divide by 3"
    assert all(m.replica * m.fsdp * m.sequence * m.tensor == 192 for m in found)
    wide = replace(MODEL, hidden_size=768)
    assert {m.replica for m in meshes(wide, RUN.data, parse_topology("v5p:192"))} == {1, 3}


def test_shapes_that_no_mesh_divides_are_told() -> None:
    with pytest.raises(UsageError, match=r"v5e:4: no mesh of 4 devices divides .* hidden_size 511"):
        search(
            replace(RUN, model=replace(MODEL, hidden_size=511, num_kv_heads=3)), work_of, V5E, Settings(), 3
        )


def test_a_rejected_offload_says_nothing_of_other_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peak counts what lies on the host."""
    tries = searching._Tries(limit=14e9)
    mesh = next(iter(meshes(MODEL, RUN.data, V5E)))
    offload, full = (searching.Candidate(remat, 4, mesh, 1.0, 9e9) for remat in ("offload", "full"))
    plan: Any = SimpleNamespace(widest=SimpleNamespace(peak=15.7e9), fits=False)
    tries.note(offload, plan)
    assert not tries.hopeless(full)
    tries.note(full, plan)
    assert tries.hopeless(full)
