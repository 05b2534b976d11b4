"""What is not what was written is never loaded: found by the list of files, or as its chunks are loaded."""

import json
import logging
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from jax_sft.checkpoints.store import DamagedSave, Store, snapshot_checksum, snapshot_store, state_store
from jax_sft.errors import JaxSftError
from tests.checkpoints.saves import TARGET, assert_same, flip_a_byte, forget_checksums, largest_file, tree

# Orbax drops what it had begun when a load fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with states 1 and 2, whose files are too large for the list to have their checksums."""
    with state_store(tmp_path) as store:
        for step in (1, 2):
            store.save(step, tree(step))
    for step in ("1", "2"):
        forget_checksums(tmp_path / "state" / step)
    return tmp_path


def test_a_changed_byte_of_a_large_file_is_found_as_it_is_loaded(run_folder: Path) -> None:
    flip_a_byte(run_folder / "state" / "2")
    with state_store(run_folder) as store:
        assert store.fault(2) == ""
        with pytest.raises(
            DamagedSave, match=r"state/2: has changed since it was saved \(DATA_LOSS: "
        ) as caught:
            store.load(2, TARGET, checked=True)
        assert "layers.kernel" in str(caught.value)
        assert "Digest mismatch" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert_same(store.load(1, TARGET), tree(1))


def test_no_changed_byte_anywhere_is_loaded_as_something_else(run_folder: Path) -> None:
    """Each file, some bytes of it: refused, or a byte that stands for nothing."""
    save, rng = run_folder / "state" / "2", random.Random(0)
    refused = 0
    with Store(run_folder / "state", read_only=True) as store:
        for path in sorted(path for path in save.rglob("*") if path.is_file() and path.name != "_METADATA"):
            whole = path.read_bytes()
            for place in rng.sample(range(len(whole)), min(6, len(whole))):
                changed = bytearray(whole)
                changed[place] ^= 1 << rng.randrange(8)
                path.write_bytes(changed)
                try:
                    assert_same(store.load(2, TARGET), tree(2))
                except JaxSftError:
                    refused += 1
            path.write_bytes(whole)
        assert_same(store.load(2, TARGET), tree(2))
    assert refused > 12


@pytest.mark.parametrize("size", [0, 0.5, 0.999])
def test_cut_files_are_named_without_reading_them(run_folder: Path, size: float) -> None:
    path = largest_file(run_folder / "state" / "2")
    data = path.read_bytes()
    path.write_bytes(data[: int(size * len(data))])
    with state_store(run_folder) as store:
        assert f"{path.name} has changed since it was saved (its size or checksum differs)" in store.fault(2)


def test_small_files_are_compared_by_their_checksums(tmp_path: Path) -> None:
    with state_store(tmp_path) as store:
        store.save(1, tree(1))
    path = tmp_path / "state" / "1" / "_METADATA"
    path.write_text(path.read_text().replace("kernel", "kernal"))
    with state_store(tmp_path) as store:
        assert store.fault(1) == "_METADATA has changed since it was saved (its size or checksum differs)"


LISTS = (
    "{}",
    "[]",
    "7",
    '{"step": 2}',
    '{"step": 2, "files": {}}',
    '{"step": 2, "files": {"a": 3}}',
    '{"a": [1, 2]}',
)


@pytest.mark.parametrize("text", LISTS)
def test_a_list_that_is_none(run_folder: Path, text: str) -> None:
    (run_folder / "state" / "2" / "files.json").write_text(text)
    with state_store(run_folder) as store:
        assert store.fault(2) == "files.json has changed since it was saved (it is not a list of files)"


def test_a_save_under_the_number_of_another_is_named(run_folder: Path) -> None:
    state = run_folder / "state"
    shutil.rmtree(state / "2")
    shutil.copytree(state / "1", state / "2")
    with state_store(run_folder) as store:
        assert store.fault(2) == "is the save of step 1, not of step 2"
        with pytest.raises(DamagedSave, match="is the save of step 1"):
            store.load(2, TARGET)


def test_every_chunk_carries_its_checksum(run_folder: Path) -> None:
    base = f"file://{run_folder}/state/2/"
    stored = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    arrays = [json.loads(stored[key]) for key in stored.list().result() if key.endswith(b"zarr.json")]
    assert len(arrays) == 2
    for array in arrays:
        assert [codec["name"] for codec in array["codecs"]] == ["bytes", "crc32c"]


def test_saves_of_others_in_this_process_are_laid_out_as_ever(run_folder: Path) -> None:
    """The wrapped function of Orbax changes nothing for those who do not ask."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_zarr3=True, use_compression=False)) as other:
        other.save(run_folder / "other", args=ocp.args.PyTreeSave(tree(1)))
    stored = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{run_folder}/other/"}).result()
    array = json.loads(stored["scale/zarr.json"])
    assert [codec["name"] for codec in array["codecs"]] == ["sharding_indexed"]


def test_the_checksum_of_a_snapshot(tmp_path: Path) -> None:
    for run, seed in (("a", 1), ("b", 2)):
        with snapshot_store(tmp_path / run) as store:
            store.save(5, tree(seed))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    a, b, copy = (snapshot_checksum(tmp_path / run, 5) for run in ("a", "b", "copy"))
    assert a == copy != b
    assert snapshot_checksum(tmp_path / "a", 6) == ""
    with Store(tmp_path / "copy" / "snapshots", read_only=True) as store:
        assert store.fault(5) == ""


def save_as_before(folder: Path, step: int, value: Any) -> None:
    """A save of an older version: an item of Orbax's manager, and a list of CRC-32s of all files."""
    arrays = ocp.PyTreeCheckpointHandler(use_compression=False)
    with ocp.CheckpointManager(folder, item_handlers={"tree": arrays}) as manager:
        manager.save(step, args=ocp.args.Composite(tree=ocp.args.PyTreeSave(value)))
    save = folder / str(step)
    files = sorted(path for path in (save / "tree").rglob("*") if path.is_file())
    listing = {str(path.relative_to(save)): _size_and_crc(path) for path in files}
    (save / "files.json").write_text(json.dumps(listing))


def _size_and_crc(path: Path) -> tuple[int, int]:
    return path.stat().st_size, zlib.crc32(path.read_bytes())


def test_saves_of_older_versions_are_read_and_checked(tmp_path: Path) -> None:
    save_as_before(tmp_path / "state", 3, tree(3))
    with state_store(tmp_path) as store:
        assert store.steps() == [3]
        assert_same(store.load(3, TARGET), tree(3))
        store.save(4, tree(4))
        store.save(5, tree(5))
        store.wait()
        assert store.steps() == [4, 5]
    save_as_before(tmp_path / "state", 6, tree(6))
    flip_a_byte(tmp_path / "state" / "6")
    with state_store(tmp_path) as store:
        assert "has changed since it was saved (its size or checksum differs)" in store.fault(6)
        with pytest.raises(DamagedSave):
            store.load(6, TARGET)


@pytest.mark.parametrize("name", ["lr=[1e-2]", "what?", "a*b", "[!x]"])
def test_folders_may_be_named_by_any_character(tmp_path: Path, name: str) -> None:
    with state_store(tmp_path / name) as store:
        store.save(1, tree(1))
    with state_store(tmp_path / name) as store:
        assert store.fault(1) == ""
        assert_same(store.load(1, TARGET), tree(1))
        store.drop(1)
    assert list((tmp_path / name / "state").iterdir()) == []


def test_a_target_that_does_not_fit_is_no_damage(run_folder: Path) -> None:
    sharding = TARGET["scale"].sharding
    for other in (
        TARGET | {"more": TARGET["scale"]},
        TARGET | {"scale": jax.ShapeDtypeStruct((6,), np.float32, sharding=sharding)},
        TARGET | {"scale": jax.ShapeDtypeStruct((6,), np.float32)},
    ):
        with state_store(run_folder) as store, pytest.raises(JaxSftError, match="loading failed") as caught:
            store.load(2, other)
        assert not isinstance(caught.value, DamagedSave)


def test_importing_the_stores_leaves_the_loggers_of_the_program_alone() -> None:
    code = "import logging, jax_sft.checkpoints.store as _; print(logging.getLogger('absl').level)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plain = subprocess.run(
        [sys.executable, "-c", "import logging, absl.logging; print(logging.getLogger('absl').level)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == plain.stdout != f"{logging.CRITICAL}\n"
