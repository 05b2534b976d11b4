"""The plan of a study: its numbers, its page, its files, and how it fails."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from jax_sft.cli.main import main
from jax_sft.config import EvaluationConfig, replace
from jax_sft.errors import UsageError
from jax_sft.files import write_json
from jax_sft.options import PlanOptions
from jax_sft.planning.costing import RunPlan, Settings, plan_training
from jax_sft.planning.plan import write_plan
from jax_sft.planning.programs import engine_program
from jax_sft.planning.tables import COLUMNS, row
from jax_sft.planning.topologies import parse_topology
from jax_sft.planning.workload import Workload
from jax_sft.study.document import study_to_json
from tests.planning.fakes import RUN, FakeCompiler, study

V5E = parse_topology("v5e:4")
EVALUATION = EvaluationConfig()
OPTIONS = PlanOptions(chips=("v5e:4", "v5p:8"), row_tokens=512)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> FakeCompiler:
    made = FakeCompiler({"none": 40.0})
    for module in ("costing", "sweeping"):
        monkeypatch.setattr(f"jax_sft.planning.{module}.compile_facts", made)
    return made


def planned(root: Path) -> list[dict[str, Any]]:
    return json.loads((root / "planned" / "plan" / "plan.json").read_text())


def test_a_plan_has_a_line_for_every_run_and_slice(
    compiler: FakeCompiler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keeping = replace(RUN, name="keeping", remat="none", optimizer_memory="host")
    path = write_plan(study(tmp_path, RUN, keeping), [RUN, keeping], OPTIONS)
    small, large, too_big, fits = planned(tmp_path)
    assert [(each["run"], each["chips"]) for each in (small, large, too_big, fits)] == [
        ("long", "v5e:4"),
        ("long", "v5p:8"),
        ("keeping", "v5e:4"),
        ("keeping", "v5p:8"),
    ]
    assert [each["fits"] for each in (small, large, too_big, fits)] == [True, True, False, True]
    told = capsys.readouterr().out
    assert re.search(r"v5e:4: 1 run takes .* chip-hours, \$.*; without what does not fit .*: keeping", told)
    assert "v5p:8: 2 runs take" in told
    assert "data not at hand" in told
    # 10 items of 2 samples: 2.80 x sqrt(2 x 0.25 x (0.25 + 0.25) / 10)
    assert re.search(r"80% of sweeps\s+would find[^:]*:\s+game\s+44\.3\s+\(10\s+x\s+2\)", told)
    page = path.read_text()
    for text in ("keeping", "v5p-16", "<svg", "remat full, 8 rows, fsdp 4", "moments on the host"):
        assert text in page


def test_hours_and_dollars_are_steps_times_their_bound(compiler: FakeCompiler, tmp_path: Path) -> None:
    write_plan(study(tmp_path), [RUN], PlanOptions(chips=("v5e:4",), row_tokens=512))
    (plan,) = planned(tmp_path)
    train, decode = plan["train"], plan["decode"]
    assert train["total_steps"] == 8
    # 32 rows of 512 tokens: two to a packed row, two micro-batches of 8; 16e12 FLOPs each, by the fake.
    assert train["bound"] == pytest.approx(2 * 15e12 / 197e12)
    assert (decode["sequences"], decode["tokens"]) == (8, 20 * 64)
    # All 8 slots are held: contexts are 256 positions, and memory is for as many.
    sweep = decode["seconds_of_a_snapshot"][0]
    token, call = (decode[f"roofline_of_a_{of}"]["compute_seconds"] for of in ("token", "prefill"))
    assert sweep == pytest.approx(20 * 64 / 8 * token + 10 * 256 / (8 * 256) * call)
    seconds = 8 * train["bound"] + 2 * sweep
    assert plan["hours"][0] == pytest.approx(seconds / 3600)
    assert plan["chip_hours"][0] == pytest.approx(4 * seconds / 3600)
    assert plan["dollars"][0] == pytest.approx(1.2 * 4 * seconds / 3600)


def test_of_several_row_lengths_one_may_be_too_big(compiler: FakeCompiler) -> None:
    """Times of the others alone would be no mean."""
    compiler.gib_of_length = {2048: 40.0}
    topology = V5E
    steps = {1024: (2.0, 2), 2048: (1.0, 1)}
    work = Workload(10, 3, steps, {1024: 0.5, 2048: 0.5}, tokens=1000.0, targets=100.0, pairs=5000.0)
    plan = RunPlan(RUN, topology, train=plan_training(RUN, work, topology, Settings()))
    cells = dict(zip(COLUMNS, row(plan), strict=True))
    assert (cells["fits"], cells["peak"], cells["step"]) == ("NO", "40.0 GiB", "")


def test_a_sweep_that_does_not_fit_is_told_apart_from_training(
    compiler: FakeCompiler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler.gib_of_length = {engine_program("decode", RUN, V5E, EVALUATION).run.data.row_length: 15.2}
    write_plan(study(tmp_path), [RUN], PlanOptions(chips=("v5e:4",), row_tokens=512))
    (plan,) = planned(tmp_path)
    assert not plan["fits"]
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(
        r"its sweep needs 15\.2 of 1\d\.\d GiB, too much to be safe: lower evaluation\.pages", told
    )


def test_a_search_plans_the_best_it_finds(compiler: FakeCompiler, tmp_path: Path) -> None:
    write_plan(study(tmp_path), [RUN], PlanOptions(chips=("v5p:8",), row_tokens=512, search=True))
    (plan,) = planned(tmp_path)
    assert plan["fits"]
    assert plan["tried"]


def test_a_run_that_cannot_be_planned_is_told_and_does_not_stop_the_others(
    compiler: FakeCompiler, tmp_path: Path
) -> None:
    unknown = replace(RUN, name="unknown", data=replace(RUN.data, rows=0))
    write_plan(study(tmp_path, RUN, unknown), [RUN, unknown], PlanOptions(chips=("v5e:4",)))
    good, bad = planned(tmp_path)
    assert good["fits"]
    assert "--row-tokens" in bad["problem"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (PlanOptions(), "--chips: name at least one"),
        (PlanOptions(chips=(" ,",)), "--chips: name at least one"),
        (PlanOptions(chips=("h100:8",)), "no TPU type"),
        (PlanOptions(chips=("v5e:4",), hbm_share=1.5), "--hbm-share 1.5"),
        (PlanOptions(chips=("v5e:4",), rows=-1), "--rows -1"),
        (PlanOptions(chips=("v5e:4",), timeout=0), "--timeout 0"),
        (PlanOptions(chips=("v5e:4",), prices="absent.toml"), "--prices absent.toml"),
    ],
)
def test_flags_out_of_range_are_refused(options: PlanOptions, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        write_plan(study(tmp_path), [RUN], options)


def test_the_command_line_passes_on_chips_runs_and_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Any] = []
    monkeypatch.setattr("jax_sft.planning.plan.write_plan", lambda *args: made.append(args))
    folder = tmp_path / "runs" / "planned"
    other = replace(RUN, name="other")
    write_json(folder / "study.json", {"study": study_to_json(study(tmp_path, RUN, other))})
    flags = ["--chips", "v5p:8", "--chips", "v6e:4", "--search", "--rows", "7", "--remat", "none"]
    assert main(["plan", str(folder), "--runs", "other", *flags]) == 0
    ((_, runs, options),) = made
    assert [(run.name, run.remat) for run in runs] == [("other", "none")]
    assert (options.chips, options.search, options.rows) == (("v5p:8", "v6e:4"), True, 7)
    assert main(["plan", str(folder), "--chip", "v5p:8"]) == 2
    assert "--chips" in capsys.readouterr().err
