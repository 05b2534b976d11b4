"""Several workers sweep one study: together they make the very files of one, whatever becomes of some."""

import io
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jax_sft.evaluation.completions import CompletionsFile
from jax_sft.evaluation.score import score, score_units
from jax_sft.evaluation.shares import Worker
from jax_sft.evaluation.snapshots import snapshots_to_sweep
from jax_sft.evaluation.sweep import Sweep
from tests.evaluation.tiny import BENCHMARKS, UNITS, completion_files, kept, start_sweep, study

Swept = tuple[Sweep, Path]


def scores_of(root: Path) -> dict[Path, dict[str, Any]]:
    """Content of every scores.json, less how long the drawing took."""
    files = sorted(root.glob("tiny/*/evals/*/*/scores.json"))
    scores = {file.relative_to(root): json.loads(file.read_text()) for file in files}
    for found in scores.values():
        assert found["outputs"].pop("seconds") > 0
    return scores


def work(root: Path, worker: Worker, done_before: Sweep) -> set[tuple[str, int, str]]:
    """What a process with `--worker` does, through an engine that is compiled already; gives its units."""
    [engine] = done_before.engines.values()
    sweeper = Sweep(study(root), BENCHMARKS, Console(file=io.StringIO()), lambda *_: engine, worker)
    mine = set()
    for run in sweeper.study.runs:
        steps = snapshots_to_sweep(sweeper.study, run, None)
        share = sweeper.share(run.name, steps)
        sweeper.generate(sweeper.todo(run, steps, share))
        mine |= {(run.name, *unit) for unit in share}
    score_units(sweeper.study, only=mine)
    return mine


def test_three_workers_of_which_one_is_interrupted(
    sweeper_and_root: Swept, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, whole = sweeper_and_root
    shares = [work(fresh, Worker(0, 3), before)]
    assert {file.parts[1:2] + file.parts[3:5] for file in completion_files(fresh)} == {
        (run, str(step), name) for run, step, name in shares[0]
    }
    assert scores_of(fresh).keys() == {file.with_name("scores.json") for file in completion_files(fresh)}
    add, seen = CompletionsFile.add, []

    def interrupted(self: CompletionsFile, line: Any) -> None:
        add(self, line)
        seen.append(line)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(CompletionsFile, "add", interrupted)
        work(fresh, Worker(1, 3), before)
    shares.append(work(fresh, Worker(2, 3), before))
    assert len(kept(fresh)) > 5
    shares.append(work(fresh, Worker(1, 3), before))
    assert sorted(unit for share in shares for unit in share) == sorted(UNITS)
    assert completion_files(fresh) == completion_files(whole)
    assert scores_of(fresh) == scores_of(whole)
    assert not list(fresh.glob("**/parts"))


def finished(process: subprocess.Popen) -> str:
    said = process.communicate()[1]
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_three_processes_of_which_one_is_killed(sweeper_and_root: Swept, fresh: Path) -> None:
    """Two go on beside it, one of them twice; then the job starts the dead one again."""
    processes = [start_sweep(fresh, f"{index}/3", devices=1) for index in (0, 1, 2, 0)]
    while not any(fresh.glob("tiny/*/evals/*/*")):
        time.sleep(0.01)
    processes[1].kill()
    processes[1].communicate()
    for process in (processes[0], *processes[2:]):
        finished(process)
    finished(start_sweep(fresh, "1/3", devices=1))
    assert completion_files(fresh) == completion_files(sweeper_and_root[1])
    score(study(fresh))
    assert scores_of(fresh) == scores_of(sweeper_and_root[1])
    assert not list(fresh.glob("**/parts"))


@pytest.mark.slow
def test_workers_of_another_number_complete_what_is_missing(sweeper_and_root: Swept, fresh: Path) -> None:
    finished(start_sweep(fresh, "1/2"))
    assert 0 < len(completion_files(fresh)) < len(UNITS)
    shutil.rmtree(next(iter(fresh.glob("tiny/*/evals/*"))))
    finished(start_sweep(fresh))
    assert completion_files(fresh) == completion_files(sweeper_and_root[1])
