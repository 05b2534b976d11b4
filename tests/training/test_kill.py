"""Kill -9 at a random moment, start again: the same bits as if nothing had happened."""

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jax_sft.checkpoints.store import load_snapshot, state_store
from jax_sft.config import ParallelismConfig
from jax_sft.sharding import make_mesh
from jax_sft.training.step import TrainState, abstract_state
from tests.training.tiny import RUN, start_process

ONE = make_mesh(ParallelismConfig(), jax.devices()[:1])
STEPS = 30


def final_state(root: Path) -> TrainState:
    with state_store(root / "study" / RUN.name) as store:
        return store.load(STEPS, abstract_state(RUN, ONE))


def lines(root: Path) -> list[dict[str, Any]]:
    path = root / "study" / RUN.name / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def last_step(root: Path) -> int:
    """The step the run has reported last; 0 while there is none."""
    path = root / "study" / RUN.name / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def train_through_kills(root: Path, kills: Sequence[int], rng: random.Random) -> str:
    """Train, killing the process a random moment after it reported each of these steps; what it said last."""
    for step in kills:
        process = start_process(root)
        while process.poll() is None and not (last_step(root) >= step and has_state_before(root, step)):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.communicate()
        assert last_step(root) < STEPS, "it was killed too late to prove anything"
    process = start_process(root)
    told = process.communicate()[1]
    assert process.returncode == 0, told
    return told


def told_to_end(root: Path, step: int) -> int:
    """Train, sending SIGTERM once the run reported `step`; the step whose state it saved."""
    process = start_process(root)
    while process.poll() is None and last_step(root) < step:
        time.sleep(0.001)
    process.terminate()
    told = " ".join(process.communicate()[1].split())
    assert process.returncode == 0, told
    stopped = max(int(path.name) for path in (root / "study" / RUN.name / "state").iterdir())
    assert f"state saved at step {stopped}, the same command goes on from it" in told
    assert stopped >= step
    return stopped


def test_sigterm_saves_the_state_and_ends_well(undisturbed: Path, tmp_path: Path) -> None:
    stopped = told_to_end(tmp_path, 11)
    assert stopped < STEPS
    assert f"going on from step {stopped}" in train_through_kills(tmp_path, [], random.Random(0))
    assert_same_run(tmp_path, undisturbed)


def has_state_before(root: Path, step: int) -> bool:
    """Whether there is a state to go on from, if there should be one by then: saves take a while."""
    saved = root / "study" / RUN.name / "state"
    return step <= RUN.snapshots.state_every or any(path.name.isdecimal() for path in saved.iterdir())


def assert_same_run(root: Path, want: Path) -> None:
    jax.tree.map(np.testing.assert_array_equal, final_state(root), final_state(want))
    assert [line["step"] for line in lines(root)] == list(range(1, STEPS + 1))
    for name in ("loss", "gradient_norm", "learning_rate", "tokens"):
        assert [line[name] for line in lines(root)] == [line[name] for line in lines(want)]
    target = abstract_state(RUN, ONE).params
    for step in (0, 3, 8, 16, 24, 30):
        pair = (load_snapshot(folder / "study" / RUN.name, step, target) for folder in (root, want))
        jax.tree.map(np.testing.assert_array_equal, *pair)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed")
    train_through_kills(root, [], random.Random(0))
    return root


def test_killed_across_an_epoch_edge(undisturbed: Path, tmp_path: Path) -> None:
    """State of the second epoch, killed in the third."""
    rng = random.Random(1)
    told = train_through_kills(tmp_path, [rng.randint(8, 11)], rng)
    assert "going on from step" in told
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_again_and_again(undisturbed: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    train_through_kills(tmp_path, sorted(rng.randint(1, 26) for _ in range(4)), rng)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_told_to_end_again_and_again(undisturbed: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    step = 0
    for _ in range(5):
        step = told_to_end(tmp_path, step + rng.randint(1, 3))
    assert step < STEPS
    train_through_kills(tmp_path, [], rng)
    assert_same_run(tmp_path, undisturbed)
