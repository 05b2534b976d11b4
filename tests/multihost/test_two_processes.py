"""Two real processes of four devices each, against one process of eight."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tensorstore as ts

from jax_sft.checkpoints.store import state_store
from jax_sft.config import Run
from jax_sft.errors import UsageError
from jax_sft.machine import HEARTBEAT_SECONDS, join_processes
from jax_sft.models.weights.write import is_exported
from jax_sft.sharding import make_mesh
from jax_sft.training.loop import train
from jax_sft.training.step import abstract_state
from tests.checkpoints.saves import forget_checksums
from tests.training.tiny import EXPORTING, LONG, SHORT, start_process, study


def start_two(root: Path, run: Run = SHORT) -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [start_process(root, run, devices=4, job=(2, index, port)) for index in (0, 1)]


def lines(root: Path, run: Run = SHORT) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl."""
    path = run_folder(root, run) / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def wait_for_step(root: Path, step: int, processes: list[subprocess.Popen], run: Run = SHORT) -> None:
    while len(lines(root, run)) < step:
        assert all(process.poll() is None for process in processes), processes[0].communicate()[1]
        time.sleep(0.01)


def run_folder(root: Path, run: Run = SHORT) -> Path:
    return root / "study" / run.name


def final_state(root: Path) -> Any:
    with state_store(run_folder(root)) as store:
        return store.load(8, abstract_state(SHORT, make_mesh(SHORT.parallelism)))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a study trained by this process with its eight devices."""
    root = tmp_path_factory.mktemp("one")
    train(*study(root, SHORT))
    return root


def assert_same_run(two: Path, one: Path) -> None:
    found, wanted = lines(two), lines(one)
    assert [line["step"] for line in found] == list(range(1, 9))
    for name in ("loss", "gradient_norm"):
        got, want = ([line[name] for line in each] for each in (found, wanted))
        np.testing.assert_allclose(got, want, rtol=1e-5)
    for kind in ("snapshots", "state"):
        names = [{path.name for path in (run_folder(root) / kind).iterdir()} for root in (two, one)]
        assert names[0] == names[1]
    # What two processes saved, one process reads.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        final_state(two).params,
        final_state(one).params,
    )


def test_two_processes_go_on_where_one_stopped(one: Path, tmp_path: Path) -> None:
    """One process saved the state of step 6; two restore it onto their devices, train on and save."""
    two = shutil.copytree(one, tmp_path / "two")
    for folder in ("state/8", "snapshots/8"):
        shutil.rmtree(run_folder(two) / folder)
    shutil.rmtree(run_folder(two) / "tensorboard")
    told = [process.communicate()[1] for process in start_two(two)]
    assert "going on from step 6" in told[0], told[0]
    assert told[1] == "", "only process 0 speaks"
    assert len(list((run_folder(two) / "tensorboard").iterdir())) == 1
    assert_same_run(two, one)


@pytest.mark.slow
def test_damage_that_one_process_reads_is_damage_for_both(one: Path, tmp_path: Path) -> None:
    """A byte of the last device's part, which only process 1 loads."""
    two = shutil.copytree(one, tmp_path / "two")
    save = run_folder(two) / "state" / "8"
    forget_checksums(save)
    stored = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{save}/"}).result()
    keys = [key for key in stored.list().result() if key.startswith(b"params.") and b"/c/" in key]
    chunk = max((stored[key] for key in keys if key.rstrip(b"/0").endswith(b"7")), key=len)
    path = next(path for path in save.rglob("d/*") if chunk in path.read_bytes())
    data = bytearray(path.read_bytes())
    data[data.index(chunk) + len(chunk) // 2] ^= 1
    path.write_bytes(data)
    told = [process.communicate()[1] for process in start_two(two)]
    assert (
        "state/8: has changed since it was saved, by what another process reads of it; passed over" in told[0]
    )
    assert "going on from step 6" in told[0], told[0]
    assert_same_run(two, one)


@pytest.mark.slow
def test_two_killed_processes_go_on_like_one(one: Path, tmp_path: Path) -> None:
    processes = start_two(tmp_path, EXPORTING)
    wait_for_step(tmp_path, 5, processes)
    for process in processes:
        process.kill()
        process.communicate()
    assert len(lines(tmp_path)) < 8
    for process in start_two(tmp_path, EXPORTING):
        told = process.communicate()[1]
        assert process.returncode == 0, told
    assert is_exported(run_folder(tmp_path) / "exports" / "8"), "process 1 waited for process 0"
    assert_same_run(tmp_path, one)


@pytest.mark.slow
def test_when_one_process_is_told_to_end_both_save_the_same_state(tmp_path: Path) -> None:
    processes = start_two(tmp_path, LONG)
    wait_for_step(tmp_path, 3, processes, LONG)
    processes[1].terminate()
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    stopped = max(int(path.name) for path in (run_folder(tmp_path, LONG) / "state").iterdir())
    assert 3 <= stopped < 80
    assert f"state saved at step {stopped}" in " ".join(told[0].split())
    # Told again before its first step: the steps of a resumed run begin with a higher number.
    processes = start_two(tmp_path, LONG)
    assert processes[0].stderr is not None
    assert any("going on from step" in line for line in processes[0].stderr)
    processes[1].terminate()
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    again = max(int(path.name) for path in (run_folder(tmp_path, LONG) / "state").iterdir())
    assert stopped < again < 80


@pytest.mark.slow
def test_when_one_process_dies_the_other_ends(tmp_path: Path) -> None:
    processes = start_two(tmp_path)
    wait_for_step(tmp_path, 2, processes)
    processes[1].kill()
    processes[1].communicate()
    start = time.monotonic()
    processes[0].communicate(timeout=2 * HEARTBEAT_SECONDS + 30)
    assert processes[0].returncode != 0
    assert time.monotonic() - start < 2 * HEARTBEAT_SECONDS + 30


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1234"},
            "JAX_COORDINATOR_ADDRESS is set, but JAX_NUM_PROCESSES, JAX_PROCESS_ID is not: "
            "set all three or none",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID '2' must be a number below JAX_NUM_PROCESSES '2'",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"},
            "JAX_PROCESS_ID '0' must be a number below JAX_NUM_PROCESSES 'two'",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "host", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            "JAX_COORDINATOR_ADDRESS 'host' must be host:port",
        ),
    ],
)
def test_a_job_half_described_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        join_processes()
    assert str(caught.value) == message


def test_alone_without_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    join_processes()
    assert not jax.distributed.is_initialized()
