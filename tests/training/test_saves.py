"""States that are saved, damaged, or find no room."""

import re
import resource
from pathlib import Path
from typing import Any

import pytest

from jax_sft.checkpoints.store import Store, load_snapshot
from jax_sft.config import SnapshotConfig
from jax_sft.errors import JaxSftError
from jax_sft.training.loop import train
from jax_sft.training.step import abstract_state
from tests.checkpoints.saves import forget_checksums
from tests.training.runs import LAST, MESH, assert_same, damage, final_state, folder, losses
from tests.training.tiny import RUN, study


def test_states_are_saved_by_time(tmp_path: Path) -> None:
    """Every few milliseconds here: after every step from the first state on."""
    snapshots = SnapshotConfig("last", state_every=27, state_minutes=1e-6)
    train(*study(tmp_path, snapshots=snapshots))
    assert {path.name for path in (folder(tmp_path) / "state").iterdir()} == {"29", "30"}


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


# Orbax drops what it had begun when a load fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damage_that_only_loading_shows_is_passed_over(
    finished: Path, again: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Files too large for their checksums to be listed; the snapshot keeps its number and is made again."""
    for save in (folder(again) / "state" / "30", folder(again) / "snapshots" / "30"):
        forget_checksums(save)
        damage(save)
    train(*study(again))
    told = capfd.readouterr().err
    assert "state/30: has changed since it was saved (DATA_LOSS: " in told
    assert "; passed over" in told
    assert "going on from step 28" in told
    assert_same(final_state(again), final_state(finished))
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
