"""What the tables of a study cost together: each run once in each table, training and sweep apart."""

import json
from pathlib import Path

import pytest

from jax_sft.config import DataConfig, replace
from jax_sft.options import PlanOptions
from jax_sft.planning.costing import shared_count
from jax_sft.planning.plan import write_plan
from tests.planning.fakes import RUN, FakeCompiler, study

OPTIONS = PlanOptions(chips=("v5p:8",))


def test_tables_are_summed_and_rows_are_as_long_as_the_study_expects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = FakeCompiler({"none": 200.0})
    for module in ("costing", "sweeping"):
        monkeypatch.setattr(f"jax_sft.planning.{module}.compile_facts", compiler)
    runs = [replace(RUN, name=name) for name in ("a_long", "b_long", "c_short")]
    runs.append(replace(RUN, name="d_big", remat="none"))
    tables = {"Table 1": "*_long", "Table 2": "a_*, c_short, d_big", "Table 3": "d_*"}
    made = replace(study(tmp_path, *runs), tables=tables, row_tokens={"*_long": 1024, "*": 100})
    write_plan(made, runs, OPTIONS)
    sums = {each["table"]: each for each in json.loads((tmp_path / "planned/plan/tables.json").read_text())}
    assert {name: (each["runs"], each["missing"]) for name, each in sums.items()} == {
        "Table 1": (["a_long", "b_long"], []),
        "Table 2": (["a_long", "c_short"], ["d_big"]),
        "Table 3": ([], ["d_big"]),
        "all planned runs": (["a_long", "b_long", "c_short"], ["d_big"]),
    }
    plans = {each["run"]: each for each in json.loads((tmp_path / "planned/plan/plan.json").read_text())}
    # 32 rows of 1,024 tokens are 4 micro-batches of 8 packed rows, of 100 tokens 1.
    assert plans["a_long"]["train"]["bound"] == pytest.approx(4 * plans["c_short"]["train"]["bound"])
    for name, each in sums.items():
        whole = sum(plans[run]["chip_hours"][0] for run in each["runs"])
        assert each["training_chip_hours"][0] + each["sweep_chip_hours"][0] == pytest.approx(whole), name
        assert each["storage_bytes"] == pytest.approx(
            sum(plans[run]["storage_bytes"] for run in each["runs"])
        )
        assert each["dollars"][0] == pytest.approx(4.2 * whole)
    steps = plans["a_long"]["train"]
    assert sums["Table 1"]["training_chip_hours"][1] == pytest.approx(2 * 8 * 8 * steps["serial"] / 3600)
    told = capsys.readouterr().out
    assert "2 without d_big" in told
    assert "tables share runs" in told


def test_a_study_without_tables_has_no_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("costing", "sweeping"):
        monkeypatch.setattr(f"jax_sft.planning.{module}.compile_facts", FakeCompiler())
    write_plan(study(tmp_path), [RUN], replace(OPTIONS, row_tokens=512))
    assert not (tmp_path / "planned/plan/tables.json").exists()


def test_runs_of_other_data_share_a_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = FakeCompiler()
    for module in ("costing", "sweeping"):
        monkeypatch.setattr(f"jax_sft.planning.{module}.compile_facts", compiler)
    data = DataConfig(source="x.jsonl", rows=64, batch_size=32, row_length=1024, rows_per_micro_batch=8)
    runs = [RUN, replace(RUN, name="other", data=data)]
    write_plan(replace(study(tmp_path, *runs), row_tokens={"long": 1024, "other": 200}), runs, OPTIONS)
    trained = [program.to_json() for program in compiler.asked if program.kind == "train"]
    assert trained[0] == trained[1]
    assert [shared_count(count) for count in (1, 8, 9, 33)] == [8, 8, 16, 64]
