"""Whole runs: what they write, how they go on after trouble, and what they refuse."""

import json
import os
import re
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.checkpoints.store import Store, load_snapshot, state_store, to_snapshot
from jax_sft.config import DataConfig, OptimizerConfig, ParallelismConfig, Run, SnapshotConfig, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.models.pretrained import load_pretrained
from jax_sft.sharding import make_mesh
from jax_sft.studies import run_from_json
from jax_sft.training import loop
from jax_sft.training.loop import train
from jax_sft.training.start import start_params
from jax_sft.training.step import DeviceBatch, TrainState, abstract_state
from tests.training.tiny import RUN, study

LAST = 30
MESH = make_mesh(RUN.parallelism)


def folder(root: Path) -> Path:
    return root / "study" / RUN.name


def final_state(root: Path) -> TrainState:
    with state_store(folder(root)) as store:
        return store.load(store.steps()[-1], abstract_state(RUN, MESH))


def metrics(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder(root) / "metrics.jsonl").read_text().splitlines()]


def losses(root: Path) -> list[float]:
    lines = metrics(root)
    assert [line["step"] for line in lines] == list(range(1, LAST + 1)), "each step exactly once"
    return [line["loss"] for line in lines]


def assert_same(got: Any, want: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), got, want)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a study whose one run went through undisturbed."""
    root = tmp_path_factory.mktemp("finished")
    train(*study(root))
    return root


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study, to do damage to."""
    return shutil.copytree(finished, tmp_path / "again")


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


def test_a_run_that_saved_nothing_may_be_configured_anew(tmp_path: Path) -> None:
    with pytest.raises(JaxSftError, match=r"run missing, which is not trained yet"):
        train(*study(tmp_path, init="run:missing"))
    train(*study(tmp_path, epochs=0.25, snapshots=SnapshotConfig("last")))
    assert metrics(tmp_path)


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


def test_states_are_saved_by_time(tmp_path: Path) -> None:
    """Every few milliseconds here: after every step from the first state on."""
    snapshots = SnapshotConfig("last", state_every=27, state_minutes=1e-6)
    train(*study(tmp_path, snapshots=snapshots))
    assert {path.name for path in (folder(tmp_path) / "state").iterdir()} == {"29", "30"}


def test_chosen_steps_are_traced(again: Path) -> None:
    for step in ("28", "30"):
        shutil.rmtree(folder(again) / "state" / step)
    train(*study(again, trace=(3, 4)))
    assert list((folder(again) / "trace").rglob("*.xplane.pb"))


def damage(save: Path) -> None:
    path = max((path for path in save.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_state_is_passed_over(
    finished: Path, again: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The run goes on from the state before, makes the damaged snapshot of a step it redoes again."""
    damage(folder(again) / "state" / "30")
    damage(folder(again) / "snapshots" / "30")
    train(*study(again))
    told = capfd.readouterr().err
    assert "state/30: " in told
    assert "has changed since it was saved (its size or checksum differs); passed over" in told
    assert "going on from step 28" in told
    assert_same(final_state(again), final_state(finished))
    assert losses(again) == losses(finished)
    target = abstract_state(RUN, MESH).params
    assert_same(*(load_snapshot(folder(root), LAST, target) for root in (again, finished)))


def test_without_any_sound_state_the_run_starts_over(finished: Path, again: Path) -> None:
    for step in ("28", "30"):
        damage(folder(again) / "state" / step)
    train(*study(again))
    assert_same(final_state(again), final_state(finished))
    assert losses(again) == losses(finished)


# Orbax drops the event loop of a save that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_costs_no_state(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From step 16 on, the system refuses to write files of any size."""
    save, limits = Store.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_with_less_room(store: Store, step: int, tree: Any) -> None:
        if step >= 16:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        save(store, step, tree)

    monkeypatch.setattr(Store, "save", save_with_less_room)
    try:
        with pytest.raises(JaxSftError) as caught:
            train(*study(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        monkeypatch.undo()
    message = str(caught.value)
    assert "saving failed: File too large; earlier saves are intact" in message
    assert "\n" not in message
    capfd.readouterr()
    train(*study(tmp_path))
    # The state of step 14 is written in the background, and may be caught by the full disk too.
    assert re.search("going on from step (14|7)\n", capfd.readouterr().err)
    assert_same(final_state(tmp_path), final_state(finished))
    assert losses(tmp_path) == losses(finished)


Spoil = Callable[[Any, Any], DeviceBatch]


def spoil(steps: set[int]) -> Spoil:
    """`place_batch`, with a weight that is not a number in the batches of these steps."""

    def place_spoilt(batch: Any, mesh: Any) -> DeviceBatch:
        if batch.step + 1 in steps:
            batch.weights_MRT[0, 0, 3] = np.nan
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


def child(init: str, **changes: Any) -> tuple[Run, Run]:
    return RUN, replace(RUN, name="child", init=init, **changes)


@pytest.mark.parametrize(("init", "step"), [("run:tiny", 30), ("run:tiny@8", 8), ("run:tiny@0", 0)])
def test_start_from_a_snapshot_of_another_run(finished: Path, init: str, step: int) -> None:
    params = start_params(*study(finished, *child(init)), MESH)
    target = abstract_state(RUN, MESH).params
    assert_same(params, load_snapshot(folder(finished), step, target))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("init", "changes", "error", "message"),
    [
        ("run:tiny@5", {}, JaxSftError, "has no snapshot at step 5; there are [0, 3, 8, 16, 24, 30]"),
        ("run:other", {}, JaxSftError, "starts from run other, which is not trained yet: train it first"),
        ("run:tiny@x", {}, UsageError, "after @ comes a step number"),
        (
            "run:tiny",
            {"model": replace(RUN.model, num_layers=3)},
            UsageError,
            "model is not that of run tiny: num_layers: 2 -> 3",
        ),
    ],
)
def test_what_a_run_cannot_start_from(
    finished: Path, init: str, changes: dict[str, Any], error: type[JaxSftError], message: str
) -> None:
    with pytest.raises(error) as caught:
        start_params(*study(finished, *child(init, **changes)), MESH)
    assert message in str(caught.value)


def test_a_damaged_snapshot_is_no_start(again: Path) -> None:
    damage(folder(again) / "snapshots" / "30")
    with pytest.raises(JaxSftError, match=r"snapshots/30: .* has changed since it was saved"):
        start_params(*study(again, *child("run:tiny")), MESH)
