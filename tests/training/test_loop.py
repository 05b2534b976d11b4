"""Whole runs: what they write, how they go on after trouble, and what they refuse."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from jax_sft.checkpoints.store import Store, load_snapshot, to_snapshot
from jax_sft.config import DataConfig, OptimizerConfig, ParallelismConfig, SnapshotConfig, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.models.weights.read import load_pretrained
from jax_sft.study.document import run_from_json
from jax_sft.training import loop
from jax_sft.training.loop import train
from jax_sft.training.placement import DeviceBatch
from jax_sft.training.step import abstract_state
from tests.training.runs import LAST, MESH, assert_same, damage, final_state, folder, losses, metrics
from tests.training.tiny import RUN, study


def test_what_a_run_writes(finished: Path) -> None:
    identity = json.loads((folder(finished) / "run.json").read_text())
    assert run_from_json(identity["run"]) == RUN
    assert (identity["total_steps"], identity["snapshot_steps"]) == (LAST, [0, 3, 8, 16, 24, 30])
    assert {path.name for path in (folder(finished) / "snapshots").iterdir()} == {
        "0",
        "3",
        "8",
        "16",
        "24",
        "30",
    }
    assert {path.name for path in (folder(finished) / "state").iterdir()} == {"28", "30"}
    assert losses(finished)[-1] < 0.6 * losses(finished)[0]
    line = metrics(finished)[4]
    assert line["tokens"] > line["target_tokens"] > 0
    assert line["packed_rows"] > 8
    assert line["skipped"] == 0
    assert line["tflops_per_second"] > 0
    assert 0 < line["goodput"] < 1
    seconds = [(each["productive_seconds"], each["seconds"]) for each in metrics(finished)]
    assert seconds[0][0] == 0, "the first step compiles"
    assert all(productive == whole for productive, whole in seconds[1:])
    state = final_state(finished)
    snapshot = load_snapshot(folder(finished), LAST, jax.eval_shape(to_snapshot, state.params))
    assert_same(snapshot, to_snapshot(state.params))


def test_a_finished_run_is_left_alone(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [path for path in folder(again).rglob("*") if path.is_file() and path.name != "run.json"]
    before = {path: path.read_bytes() for path in written if "tensorboard" not in path.parts}
    monkeypatch.setattr(Store, "save", None)
    monkeypatch.setattr(Store, "save_later", None)
    train(*study(again))
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": OptimizerConfig(learning_rate=0.02)}, "optimizer.learning_rate: 0.01 -> 0.02"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"data": replace(RUN.data, batch_size=20)}, "data.batch_size: 25 -> 20"),
        ({"epochs": 5.0}, "epochs: 7.5 -> 5.0"),
        ({"model": replace(RUN.model, qk_norm=True)}, "model.qk_norm: false -> true"),
    ],
)
def test_a_folder_of_another_configuration_is_refused(
    finished: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match="was made with another configuration") as caught:
        train(*study(finished, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_rows_under_the_same_name_are_refused(again: Path) -> None:
    changed, run = study(again)
    rows = (again / "rows.jsonl").read_text()
    (again / "rows.jsonl").write_text(rows.replace("count", "Count", 1))
    with pytest.raises(UsageError, match="data_hash"):
        train(changed, run)


def test_parallelism_and_snapshots_may_change(again: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder(again) / "state" / "30")
    shutil.rmtree(folder(again) / "snapshots" / "30")
    other = ParallelismConfig(fsdp=4, tensor=2)
    train(*study(again, parallelism=other, snapshots=SnapshotConfig(schedule="5, 8, 29, last")))
    assert "going on from step 28" in capfd.readouterr().err.replace("\n", " ")
    assert {"29", "30"} < {path.name for path in (folder(again) / "snapshots").iterdir()}


def test_named_snapshots_are_exported_once(again: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = study(again, snapshots=replace(RUN.snapshots, export="8, last"))
    train(*wanted)
    made = folder(again) / "exports"
    assert {path.name for path in made.iterdir()} == {"8", "30"}
    assert "exported step 30" in capfd.readouterr().err.replace("\n", " ")
    target = jax.eval_shape(to_snapshot, abstract_state(RUN, MESH).params)
    for step in (8, LAST):
        snapshot = load_snapshot(folder(again), step, target)
        _, params = load_pretrained(str(made / str(step)))
        assert_same(params, jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), snapshot))
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    train(*wanted)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_an_export_that_fails_is_told_after_training(again: Path) -> None:
    damage(folder(again) / "snapshots" / "8")
    with pytest.raises(JaxSftError, match=r"exports/8: the export failed .*snapshots/8: .*try `"):
        train(*study(again, snapshots=replace(RUN.snapshots, export="8, last")))
    assert [path.name for path in (folder(again) / "exports").iterdir()] == ["30"]


def test_snapshots_that_can_no_longer_be_made_are_named(
    again: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(*study(again, snapshots=SnapshotConfig(schedule="5, 8, last")))
    assert "training is past the snapshots at [5]; they are not made" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"snapshots": SnapshotConfig(schedule="0, 31")},
            "`31` is step 31, beyond the end of training at step 30",
        ),
        (
            {"snapshots": replace(RUN.snapshots, export="4")},
            "snapshots.export names [4], which snapshots.schedule",
        ),
        ({"snapshots": replace(RUN.snapshots, export="31")}, "snapshots.export: `31` is step 31, beyond"),
        ({"model": replace(RUN.model, vocab_size=99)}, "model.vocab_size 99 is too small"),
        (
            {"data": replace(RUN.data, rows_per_micro_batch=6)},
            "data.rows_per_micro_batch 6 does not divide by 8",
        ),
        ({"trace": (3,)}, "trace is a first and a last step, from 1; found (3,)"),
        ({"parallelism": ParallelismConfig(fsdp=3)}, "makes 3 devices, but there are 8"),
        ({"parallelism": ParallelismConfig(tensor=8)}, "kv_heads has size 2, which tensor=8 does not divide"),
        ({"data": DataConfig(source="missing.jsonl")}, "no such file"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        train(*study(tmp_path, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder(tmp_path) / "metrics.jsonl").exists()


def test_no_room_for_what_will_be_saved_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1_000_000))
    with pytest.raises(UsageError, match=r"6 snapshots and exports and 3 states need .*, 0.001 GB are free"):
        train(*study(tmp_path))
    assert not folder(tmp_path).exists()


def test_a_root_that_cannot_be_written_is_told_before_training(tmp_path: Path) -> None:
    made, run = study(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match=r"file: is not a folder that can be written to; choose another --root"
    ):
        train(replace(made, root=str(tmp_path / "file")), run)


def test_chosen_steps_are_traced(again: Path) -> None:
    for step in ("28", "30"):
        shutil.rmtree(folder(again) / "state" / step)
    train(*study(again, trace=(3, 4)))
    assert list((folder(again) / "trace").rglob("*.xplane.pb"))


Spoil = Callable[[Any, Any], DeviceBatch]


def spoil(steps: set[int]) -> Spoil:
    """`place_batch`, with a weight that is not a number in the batches of these steps."""

    def place_spoilt(batch: Any, mesh: Any) -> DeviceBatch:
        if batch.step in steps:
            batch.rows.weights[0, 0, 3] = np.nan
        return place(batch, mesh)

    place = loop.place_batch
    return place_spoilt


def test_a_step_without_finite_gradient_is_skipped_and_counted(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "place_batch", spoil({5, 20}))
    train(*study(tmp_path))
    lines = metrics(tmp_path)
    assert [line["skipped"] for line in lines] == [0] * 4 + [1] * 15 + [2] * 11
    assert [line["step"] for line in lines if line["loss"] is None] == [5, 20]
    assert [line["loss"] for line in lines[:4]] == losses(finished)[:4]
    assert "step 5 skipped: its gradient is not finite" in capfd.readouterr().err
    assert int(final_state(tmp_path).skipped) == 2


def test_a_silent_transfer_ends_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here of the batch, which the step is given as it lies on the host."""
    monkeypatch.setattr(loop, "place_batch", lambda batch, mesh: DeviceBatch(batch.rows, batch.micro_batches))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train(*study(tmp_path))


def test_ten_skipped_steps_in_a_row_stop_training_with_the_state_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "place_batch", spoil({2, *range(4, 99)}))
    with pytest.raises(JaxSftError) as caught:
        train(*study(tmp_path))
    assert "10 steps in a row had no finite gradient, the last is step 13" in str(caught.value)
    assert metrics(tmp_path)[-1]["skipped"] == 12, "one more step was under way"
    monkeypatch.undo()
    train(*study(tmp_path))
    assert "going on from step 14" in capfd.readouterr().err
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, LAST + 1))
    assert metrics(tmp_path)[-1]["skipped"] == 12


def test_the_tenth_skipped_step_may_be_one_that_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "place_batch", spoil(set(range(1, 99))))
    with pytest.raises(JaxSftError, match=r"the last is step 10; the state is saved"):
        train(*study(tmp_path, snapshots=SnapshotConfig("last", state_every=10)))
    assert [path.name for path in (folder(tmp_path) / "state").iterdir()] == ["10"]


def test_a_notice_that_comes_when_the_run_is_done_ends_the_program(
    again: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop.Exports, "finish", lambda self, last: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        train(*study(again))
    assert ended.value.code == 0
    assert "told to end; the run is done" in capfd.readouterr().err.replace("\n", " ")
