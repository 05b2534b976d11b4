"""The tiny study as training leaves it, and swept."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jax_sft.checkpoints.store import snapshot_store
from jax_sft.config import JudgeConfig, ParallelismConfig
from jax_sft.evaluation.score import score
from jax_sft.evaluation.snapshots import snapshots_to_sweep
from jax_sft.evaluation.sweep import Sweep
from jax_sft.generation.engine import Engine
from jax_sft.sharding import make_mesh
from jax_sft.study.schedule import snapshot_steps
from jax_sft.training.loop import prepare
from jax_sft.training.start import write_record
from tests.evaluation.judges import guard, llama_scorer, qwen3
from tests.evaluation.tiny import BENCHMARKS, EVALUATION, FIRST, MODEL, SECOND, random_params, study


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two runs as training leaves them, their weights random, and nothing swept."""
    root = tmp_path_factory.mktemp("trained")
    wanted = Engine(MODEL, EVALUATION, (), make_mesh(ParallelismConfig())).abstract_params()
    for seed, run in enumerate((FIRST, SECOND)):
        data = prepare(study(root), run)
        steps = snapshot_steps(run.snapshots.schedule, data.batches.total_steps, data.batches.steps_per_epoch)
        with snapshot_store(write_record(study(root), run, data, steps)) as store:
            for step in steps:
                store.save(step, random_params(wanted, 10 * seed + step))
    return root


@pytest.fixture(scope="session")
def sweeper_and_root(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Path]:
    """The whole study swept and scored without interruption, and what did it."""
    root = tmp_path_factory.mktemp("swept") / "root"
    shutil.copytree(trained, root)
    whole = study(root)
    sweeper = Sweep(whole, BENCHMARKS, Console(file=io.StringIO()))
    for run in whole.runs:
        sweeper.generate(sweeper.todo(run, snapshots_to_sweep(whole, run, None)))
    score(whole)
    return sweeper, root


@pytest.fixture
def swept(sweeper_and_root: tuple[Sweep, Path], tmp_path: Path) -> Path:
    """A copy of the swept study, times of the files included."""
    shutil.copytree(sweeper_and_root[1], tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def fresh(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained study, nothing swept."""
    shutil.copytree(trained, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def no_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of an engine fails the test."""

    def refuse(*_: Any) -> Iterator[Any]:
        raise AssertionError("nothing should be generated")

    monkeypatch.setattr(Engine, "generate", refuse)


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory) -> tuple[JudgeConfig, ...]:
    """A tiny random Qwen3 behind a guard's page, and a tiny Llama scorer behind a reward model's."""
    root = tmp_path_factory.mktemp("judges")
    return guard(qwen3(root / "qwen3")), JudgeConfig("rm_rb2", model=str(llama_scorer(root / "llama")))
