"""Stored files of a study damaged at random: one sweep mends what can be mended, and names the rest."""

import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from jax_sft.checkpoints.store import snapshot_store
from jax_sft.config import BenchmarkConfig, ParallelismConfig, Run, SnapshotConfig, Study, replace
from jax_sft.errors import JaxSftError
from jax_sft.evaluation.sweep import sweep
from jax_sft.generation.engine import Engine
from jax_sft.models import Params
from jax_sft.sharding import make_mesh
from jax_sft.study.schedule import snapshot_steps
from jax_sft.training.loop import prepare
from jax_sft.training.start import write_record
from tests.evaluation.tiny import EVALUATION, FIRST, MODEL, completion_files, random_params

SCHEDULE = SnapshotConfig(schedule="0, 1, 2, 3, 4, 5, 6, 7")
RUNS = tuple(replace(FIRST, name=name, epochs=3.5, snapshots=SCHEDULE) for name in ("a", "b"))
BENCHMARKS = tuple(
    BenchmarkConfig(name, "miniature", limit=3, max_new_tokens=6, options={"task": name})
    for name in ("max", "sort", "swap", "first")
)
DAMAGES = 20


def damaged_study(root: Path) -> Study:
    return Study("tiny", RUNS, BENCHMARKS, EVALUATION, root=str(root))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of eight snapshots, swept over four benchmarks."""
    root = tmp_path_factory.mktemp("whole")
    wanted = Engine(MODEL, EVALUATION, (), make_mesh(ParallelismConfig())).abstract_params()
    for seed, run in enumerate(RUNS):
        save_snapshots(damaged_study(root), run, wanted, seed)
    sweep(damaged_study(root), ["a", "b"], console=Console(file=io.StringIO()))
    return root


def save_snapshots(study: Study, run: Run, wanted: Params, seed: int) -> None:
    data = prepare(study, run)
    steps = snapshot_steps(run.snapshots.schedule, data.batches.total_steps, data.batches.steps_per_epoch)
    with snapshot_store(write_record(study, run, data, steps)) as store:
        for step in steps:
            store.save(step, random_params(wanted, 10 * seed + step))


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(1, len(data) - 1)])


def double(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() * 2)


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


WAYS: tuple[Callable[[Path, random.Random], None], ...] = (flip, cut, double, empty)


def damage_completions(root: Path, rng: random.Random, count: int) -> list[Path]:
    """Damages that many files of completions, two of them by exchanging them; gives them."""
    files = rng.sample(sorted(root.glob("tiny/*/evals/*/*/completions.jsonl")), count)
    for file in files[2:]:
        rng.choice(WAYS)(file, rng)
    first, second = (file.read_bytes() for file in files[:2])
    files[0].write_bytes(second)
    files[1].write_bytes(first)
    return files


@pytest.mark.parametrize("seed", [0, 1])
def test_completions_damaged_at_random_are_named_and_come_out_as_they_were(
    whole: Path, tmp_path: Path, seed: int
) -> None:
    shutil.copytree(whole, tmp_path / "root")
    root, said = tmp_path / "root", io.StringIO()
    damaged = damage_completions(root, random.Random(seed), DAMAGES)
    sweep(damaged_study(root), ["a", "b"], console=Console(file=said, width=10_000))
    told = said.getvalue()
    assert [path for path in damaged if str(path) not in told] == []
    assert completion_files(root) == completion_files(whole)
    told_again = io.StringIO()
    sweep(damaged_study(root), ["a", "b"], console=Console(file=told_again, width=10_000))
    assert told_again.getvalue() == "", "nothing is left to mend"


def damage_snapshots(root: Path, rng: random.Random) -> list[Path]:
    """Damages six snapshots, two of them by exchanging them; gives them."""
    saves = rng.sample(sorted((root / "tiny").glob("*/snapshots/*")), 6)
    for save, way in zip(saves[2:], WAYS, strict=True):
        files = [path for path in sorted(save.rglob("*")) if path.is_file() and path.stat().st_size > 2]
        way(rng.choice(files), rng)
    saves[0].rename(root / "moved")
    saves[1].rename(saves[0])
    (root / "moved").rename(saves[1])
    return saves


@pytest.mark.parametrize("seed", range(3))
def test_damaged_snapshots_are_named_and_what_was_drawn_from_them_is_kept(
    whole: Path, tmp_path: Path, seed: int
) -> None:
    shutil.copytree(whole, tmp_path / "root")
    root, rng, said = tmp_path / "root", random.Random(seed), io.StringIO()
    damaged = damage_snapshots(root, rng)
    with pytest.raises(JaxSftError, match="not all could be had"):
        sweep(damaged_study(root), ["a", "b"], console=Console(file=said, width=10_000))
    told = said.getvalue()
    assert [save for save in damaged if f"{save}: " not in told] == []
    assert completion_files(root) == completion_files(whole)


def test_what_is_lost_with_its_snapshot_is_named_and_all_else_is_had(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "root")
    root, rng, said = tmp_path / "root", random.Random(2), io.StringIO()
    lost = list(root.glob("tiny/a/evals/3/*/completions.jsonl"))
    for path in lost:
        path.unlink()
    damage_completions(root, rng, 8)
    largest = max((root / "tiny/a/snapshots/3").rglob("*"), key=lambda path: path.stat().st_size)
    flip(largest, rng)
    with pytest.raises(JaxSftError, match=r"not all could be had: .*a/snapshots/3: "):
        sweep(damaged_study(root), ["a", "b"], console=Console(file=said, width=10_000))
    want = completion_files(whole)
    had = {file: text for file, text in want.items() if root / file not in lost}
    found = completion_files(root)
    assert {file: found.get(file) for file in had} == had
    assert not found.keys() - had.keys()
