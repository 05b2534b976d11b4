"""Saves on disk: whole or refused, never a part; a failed save harms no other."""

import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from jax_sft.checkpoints.arrays import Arrays
from jax_sft.checkpoints.store import Store, load_snapshot, snapshot_store, state_store, to_snapshot
from jax_sft.errors import JaxSftError
from tests.checkpoints.saves import TARGET, assert_same, flip_a_byte, largest_file, tree


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with states 1, 2, 3, of which two are kept."""
    with state_store(tmp_path) as store:
        for step in (1, 2, 3):
            store.save(step, tree(step))
    return tmp_path


def test_states_come_back_bitwise_and_the_last_two_are_kept(run_folder: Path) -> None:
    with state_store(run_folder) as store:
        assert store.steps() == [2, 3]
        assert_same(store.load(2, TARGET), tree(2))
        assert_same(store.load(3, TARGET), tree(3))
    assert sorted(path.name for path in (run_folder / "state").iterdir()) == ["2", "3"]


def test_a_relative_folder_is_as_good_as_a_whole_path(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_folder.parent)
    with state_store(epath.Path(run_folder.name)) as store:
        store.save(4, tree(4))
    with state_store(epath.Path(run_folder.name)) as store:
        assert_same(store.load(4, TARGET), tree(4))
    with snapshot_store(epath.Path("new")) as store:
        store.save(0, to_snapshot(tree(0)))
    read = load_snapshot(epath.Path("new"), 0, TARGET)
    assert_same(read, jax.tree.map(lambda x: x.astype(jnp.float32), to_snapshot(tree(0))))


def test_a_state_moves_to_other_shardings(run_folder: Path) -> None:
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("b", "a"))
    target = {
        "layers": {"kernel": jax.ShapeDtypeStruct((64, 300), jnp.float32, sharding=spec)},
        "scale": TARGET["scale"],
    }
    with state_store(run_folder) as store:
        loaded = store.load(3, target)
    assert loaded["layers"]["kernel"].sharding == spec
    assert_same(loaded, tree(3))


def test_a_state_goes_from_eight_devices_to_four_to_two(tmp_path: Path) -> None:
    state = tree(7)
    for number, devices in enumerate((8, 4, 2)):
        mesh = jax.make_mesh((devices,), ("a",), devices=jax.devices()[:devices])
        spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        shardings = {"layers": {"kernel": spec}, "scale": whole}
        with state_store(tmp_path) as store:
            if number:
                target = jax.tree.map(
                    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
                    state,
                    shardings,
                )
                state = store.load(number, target)
            else:
                state = jax.device_put(state, shardings)
            assert len(state["layers"]["kernel"].sharding.device_set) == devices
            store.save(number + 1, state)
    assert_same(state, tree(7))


def test_snapshots_are_rounded_once_and_widen_again(tmp_path: Path) -> None:
    with snapshot_store(tmp_path) as store:
        for step in (0, 10, 25):
            store.save(step, to_snapshot(tree(step)))
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree(10))
    assert_same(load_snapshot(tmp_path, 10, jax.tree.map(_as_bfloat16, TARGET)), rounded)
    assert_same(load_snapshot(tmp_path, 10, TARGET), jax.tree.map(lambda x: x.astype(jnp.float32), rounded))
    with pytest.raises(JaxSftError, match=r"has no snapshot at step 7; there are \[0, 10, 25\]"):
        load_snapshot(tmp_path, 7, TARGET)


def _as_bfloat16(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=leaf.sharding)


def test_a_run_without_snapshots(tmp_path: Path) -> None:
    with pytest.raises(JaxSftError, match="has no snapshots; train the run first"):
        load_snapshot(tmp_path, 0, TARGET)


def cut_a_file(save: Path) -> None:
    path = largest_file(save)
    path.write_bytes(path.read_bytes()[:-1])


def remove_a_file(save: Path) -> None:
    largest_file(save).unlink()


def remove_half(save: Path) -> None:
    """What an interrupted copy leaves: some of the files, and not the list, which comes last."""
    for path in sorted(path for path in save.rglob("*") if path.is_file())[1::2]:
        path.unlink()
    (save / "files.json").unlink(missing_ok=True)


def spoil_the_list(save: Path) -> None:
    (save / "files.json").write_text("{")


def spoil_the_text(save: Path) -> None:
    """One bit, which leaves no text."""
    data = bytearray((save / "files.json").read_bytes())
    data[2] ^= 0x80
    (save / "files.json").write_bytes(data)


DAMAGES = [
    (flip_a_byte, "has changed since it was saved"),
    (cut_a_file, "has changed since it was saved"),
    (remove_a_file, "is missing"),
    (remove_half, "files.json is missing, so the save is incomplete"),
    (spoil_the_list, "files.json has changed since it was saved"),
    (spoil_the_text, "files.json has changed since it was saved"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_damaged_saves_are_named_and_not_loaded(run_folder: Path, damage: Any, message: str) -> None:
    damage(run_folder / "state" / "3")
    with state_store(run_folder) as store:
        assert message in store.fault(3)
        with pytest.raises(JaxSftError, match=r"state/3: .* it is not loaded") as caught:
            store.load(3, TARGET)
        assert "\n" not in str(caught.value)
        assert store.fault(2) == ""
        assert_same(store.load(2, TARGET), tree(2))
        store.drop(3)
        store.save(3, tree(33))
    with state_store(run_folder) as store:
        assert_same(store.load(3, TARGET), tree(33))


def test_unfinished_saves_are_not_seen_and_are_cleared_away(run_folder: Path) -> None:
    """What kill -9 in the middle of a save leaves behind."""
    left = run_folder / "state" / "4.orbax-checkpoint-tmp"
    shutil.copytree(run_folder / "state" / "3", left)
    with state_store(run_folder) as store:
        assert store.steps() == [2, 3]
        store.save(4, tree(4))
        store.wait()
        assert_same(store.load(4, TARGET), tree(4))
    assert sorted(path.name for path in (run_folder / "state").iterdir()) == ["3", "4"]


@contextmanager
def no_room_for_files_above(size: int) -> Iterator[None]:
    """Writing more than `size` bytes to a file fails in the system, as on a full disk (EFBIG, not ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Orbax drops the event loop of a save that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failed_save_is_an_error_of_one_line_and_harms_no_other(run_folder: Path) -> None:
    def save() -> None:
        with state_store(run_folder) as store:
            store.save(4, tree(4))

    with no_room_for_files_above(20_000), pytest.raises(JaxSftError) as caught:
        save()
    message = str(caught.value)
    assert "state" in message
    assert "saving failed: File too large; earlier saves are intact" in message
    assert "\n" not in message
    with state_store(run_folder) as store:
        assert store.steps() == [2, 3]
        assert_same(store.load(3, TARGET), tree(3))
        store.save(4, tree(4))
    with state_store(run_folder) as store:
        assert_same(store.load(4, TARGET), tree(4))


# Orbax drops the event loop of a save that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("save", [Store.save, Store.save_later])
def test_a_failed_save_surfaces_while_training_goes_on(
    tmp_path: Path, save: Callable[[Store, int, Any], None]
) -> None:
    with state_store(tmp_path) as store:
        with no_room_for_files_above(20_000):
            save(store, 1, tree(1))
            with pytest.raises(JaxSftError, match="saving failed: File too large"):
                _check_for(store, seconds=60)
        assert store.steps() == []
        save(store, 2, tree(2))
        store.wait()
        assert_same(store.load(2, TARGET), tree(2))


def test_saving_later_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(arrays: Arrays, folder: epath.Path, tree: Any) -> Callable[[], None]:
        begun.set()
        assert go_on.wait(60)
        return start(arrays, folder, tree)

    start = Arrays.start
    monkeypatch.setattr(Arrays, "start", slow)
    with state_store(tmp_path) as store:
        store.save_later(1, tree(1))
        assert begun.wait(60)
        store.check()
        assert store.steps() == []
        go_on.set()
        store.save_later(2, tree(2))
        store.wait()
        assert store.steps() == [1, 2]
        assert_same(store.load(1, TARGET), tree(1))


def _check_for(store: Store, seconds: float) -> None:
    """What the training loop does between steps."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        store.check()
        time.sleep(0.01)


def test_an_unwritable_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(JaxSftError, match="state: opening failed") as caught:
        state_store(tmp_path)
    assert "\n" not in str(caught.value)
