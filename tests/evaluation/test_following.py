"""A sweep that follows training: snapshots as they come, each once, until the runs have ended."""

import shutil
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jax_sft.checkpoints.store import Store
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation import following
from jax_sft.evaluation.following import LONGEST_PAUSE, SHORTEST_PAUSE, follow
from jax_sft.evaluation.sweep import Sweep, sweep
from jax_sft.files import read_json, write_json
from jax_sft.options import SweepOptions
from tests.evaluation.tiny import completion_files, study

Happening = Callable[[], None]


class Clock:
    """Time that passes only while the sweep sleeps; at some sleeps something happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happenings: dict[int, Happening]) -> None:
        self.now, self.pauses, self._happenings = 0.0, list[float](), happenings
        monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        assert len(self.pauses) < 300, "it follows for ever"
        self._happenings.get(len(self.pauses), lambda: None)()


def come(source: Path, root: Path, name: str) -> Happening:
    """A file or folder of the trained study appears, whole at once."""

    def happen() -> None:
        target = root / "tiny" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (source / "tiny" / name).is_dir() else shutil.copy
        unfinished = target.with_name(f"{target.name}.unfinished")
        copy(source / "tiny" / name, unfinished)
        unfinished.rename(target)

    return happen


def everything(_: str, planned: Sequence[int]) -> Sequence[int]:
    return planned


def test_snapshots_come_as_training_writes_them(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run has not begun when the sweep does; the second has, and ends first."""
    coming = partial(come, trained, tmp_path)
    for name in ("study.json", "second/run.json"):
        coming(name)()
    happenings = {
        3: coming("first/run.json"),
        5: coming("first/snapshots/0"),
        7: coming("second/snapshots/2"),
        30: coming("first/snapshots/2"),
    }
    clock, said = Clock(monkeypatch, happenings), list[str]()
    found = list(follow(study(tmp_path), ["first", "second"], everything, 0, said.append))
    assert found == [{"first": [0]}, {"second": [2]}, {"first": [2]}]
    assert said[0] == "waiting for first, which has not begun; second at step 2"
    assert said[-1] == "waiting for first at step 2"
    assert clock.pauses[:3] == [SHORTEST_PAUSE, 1.5 * SHORTEST_PAUSE, 1.5**2 * SHORTEST_PAUSE]
    assert clock.pauses[5] == clock.pauses[7] == SHORTEST_PAUSE, "after something new it looks often again"
    assert clock.pauses[-1] == LONGEST_PAUSE


def test_what_is_there_is_swept_at_once_and_the_end_is_the_last_planned(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planned snapshot that is gone is not waited for once the last is there."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "tiny" / "first" / "snapshots" / "0")
    clock = Clock(monkeypatch, {})
    found = list(follow(study(tmp_path), ["first", "second"], everything, 0, print))
    assert found == [{"first": [2], "second": [2]}]
    assert not clock.pauses


def test_a_snapshot_that_is_being_written_does_not_count(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    snapshots = tmp_path / "tiny" / "second" / "snapshots"
    (snapshots / "2").rename(snapshots / "2.unfinished")
    clock = Clock(monkeypatch, {4: lambda: (snapshots / "2.unfinished").rename(snapshots / "2") and None})
    assert list(follow(study(tmp_path), ["second"], everything, 0, lambda _: None)) == [{"second": [2]}]
    assert len(clock.pauses) == 4


def test_a_run_that_begins_again_as_another_is_swept_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    first = tmp_path / "tiny" / "first"
    (first / "snapshots" / "2").rename(tmp_path / "later")

    def begin_again() -> None:
        write_json(first / "run.json", read_json(first / "run.json") | {"data_hash": "another"})

    Clock(
        monkeypatch,
        {2: begin_again, 4: lambda: (tmp_path / "later").rename(first / "snapshots" / "2") and None},
    )
    found = list(follow(study(tmp_path), ["first"], everything, 0, lambda _: None))
    assert found == [{"first": [0]}, {"first": [0]}, {"first": [2]}]


def test_it_gives_up_after_a_while_without_anything_new(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "tiny" / "first" / "snapshots" / "2")
    shutil.rmtree(tmp_path / "tiny" / "second")
    clock, found = Clock(monkeypatch, {}), []
    message = (
        r"--follow-timeout: nothing new for 5 minutes; still awaited: first at step 2; second, which has not "
        r"begun; what came is swept, and the same command goes on"
    )
    with pytest.raises(JaxSftError, match=message):
        found.extend(follow(study(tmp_path), ["first", "second"], everything, 5, lambda _: None))
    assert 300 < clock.now < 300 + 2 * LONGEST_PAUSE


def test_a_look_is_one_listing_of_the_snapshots(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "tiny" / "second" / "snapshots" / "2")
    looks, opened = list[bool](), Store._open
    monkeypatch.setattr(Store, "_open", lambda *args: looks.append(True) or opened(*args))
    clock = Clock(monkeypatch, {9: come(trained, tmp_path, "second/snapshots/2")})
    assert list(follow(study(tmp_path), ["second"], everything, 0, lambda _: None)) == [{"second": [2]}]
    assert len(looks) == len(clock.pauses) + 1


def test_a_live_sweep_leaves_what_a_later_one_would(
    sweeper_and_root: tuple[Sweep, Path], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots are dropped by another thread while the sweep goes on."""
    [engine] = sweeper_and_root[0].engines.values()
    monkeypatch.setattr("jax_sft.evaluation.sweep.Sweep._engine", lambda *_: engine)
    monkeypatch.setattr(following, "SHORTEST_PAUSE", 0.01)
    swept = threading.Event()
    generate = Sweep.generate

    def generated(*args: Any) -> None:
        generate(*args)
        swept.set()

    monkeypatch.setattr(Sweep, "generate", generated)

    def train() -> None:
        for name in ("first/run.json", "first/snapshots/0"):
            come(trained, tmp_path, name)()
        assert swept.wait(60), "the first snapshot is swept before the others come"
        for name in ("second/run.json", "first/snapshots/2", "second/snapshots/2"):
            come(trained, tmp_path, name)()

    training = threading.Thread(target=train)
    training.start()
    sweep(study(tmp_path), ["first", "second"], options=SweepOptions(follow=True, follow_timeout=1.0))
    training.join()
    assert completion_files(tmp_path) == completion_files(sweeper_and_root[1])
    assert len(list(tmp_path.glob("tiny/*/evals/*/*/scores.json"))) == len(completion_files(tmp_path))


@pytest.mark.usefixtures("no_generation")
def test_a_step_that_will_not_come_is_refused(fresh: Path) -> None:
    message = r"run first: will have no snapshot at step 7; planned are 0, 2"
    with pytest.raises(UsageError, match=message):
        sweep(study(fresh), ["first"], [0, 7], options=SweepOptions(follow=True))
    with pytest.raises(UsageError, match=r"--follow-timeout -1: is below 0"):
        sweep(study(fresh), ["first"], options=SweepOptions(follow=True, follow_timeout=-1))
