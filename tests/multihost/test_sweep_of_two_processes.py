"""A sweep by two processes of one job: each its share on its own devices, together the files of one."""

import socket
from pathlib import Path

import pytest

from jax_sft.errors import UsageError
from jax_sft.evaluation.sweep import Sweep
from jax_sft.sharding import make_generation_mesh
from tests.evaluation.conftest import fresh, sweeper_and_root, trained
from tests.evaluation.tiny import completion_files, start_sweep

__all__ = ["fresh", "sweeper_and_root", "trained"]


@pytest.mark.slow
def test_two_processes_make_the_files_of_one(sweeper_and_root: tuple[Sweep, Path], fresh: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start_sweep(fresh, devices=4, job=(2, index, port)) for index in (0, 1)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert completion_files(fresh) == completion_files(sweeper_and_root[1])
    assert len(list(fresh.glob("tiny/*/evals/*/*/scores.json"))) == len(completion_files(fresh))
    drawn = [{line.split(":")[0] for line in text.splitlines() if " completions, " in line} for text in said]
    assert all(drawn), "both had something to do"
    assert drawn[0] | drawn[1] == {"first @ 0", "first @ 2", "second @ 2"}


def test_a_copy_of_the_weights_must_fit_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(
        UsageError, match=r"evaluation.tensor 16: a process of this job has 8 devices, .*at most 8"
    ):
        make_generation_mesh(16)
