"""Saves in a bucket: what they ask of it, and what goes wrong with it."""

import pytest

from jax_sft.checkpoints.store import DamagedSave, Store, snapshot_checksum, snapshot_store, state_store
from jax_sft.files import read_json, write_json
from tests.buckets.server import BucketServer, Failure
from tests.checkpoints.saves import TARGET, assert_same, tree

RUN = "gs://bucket/lr=[1e-2]/run"
STATE = "lr=[1e-2]/run/state/"
SIZE = 4 * (64 * 300 + 5)


def names(bucket: BucketServer, step: int) -> list[str]:
    return bucket.buckets.names("bucket", f"{STATE}{step}/")


def flip_a_byte(bucket: BucketServer, step: int) -> None:
    """In the largest object of a save."""
    name = max(names(bucket, step), key=lambda name: len(bucket.buckets.blobs["bucket", name].data))
    data = bytearray(bucket.buckets.blobs["bucket", name].data)
    data[len(data) // 2] ^= 1
    bucket.buckets.put("bucket", name, bytes(data))


def forget_checksums(step: int) -> None:
    path = f"{RUN}/state/{step}/files.json"
    listing = read_json(path)
    write_json(
        path, listing | {"files": {name: [size, None] for name, (size, _) in listing["files"].items()}}
    )


def test_a_save_is_not_read_back_and_a_load_reads_each_byte_once(bucket: BucketServer) -> None:
    with state_store(RUN) as store:
        bucket.take_traffic()
        store.save(1, tree(1))
        store.wait()
        saving = bucket.take_traffic()
        assert_same(store.load(1, TARGET), tree(1))
        loading = bucket.take_traffic()
    assert saving.requests.total() < 45, saving
    assert saving.sent.total() < SIZE / 4, saving
    assert SIZE < saving.received.total() < 1.2 * SIZE, saving
    assert loading.requests.total() < 40, loading
    assert SIZE < loading.sent.total() < 1.25 * SIZE, loading


def test_the_last_two_states_are_kept_and_nothing_else(bucket: BucketServer) -> None:
    with state_store(RUN) as store:
        for step in (1, 2, 3):
            store.save(step, tree(step))
    with state_store(RUN) as store:
        assert store.steps() == [2, 3]
        assert_same(store.load(2, TARGET), tree(2))
        store.drop(3)
        assert store.steps() == [2]
    assert {name.removeprefix(STATE).split("/")[0] for name in bucket.buckets.names("bucket")} == {"2"}


def test_damage_is_found_without_reading(bucket: BucketServer) -> None:
    """The bucket knows the checksum of each object."""
    with state_store(RUN) as store:
        store.save(1, tree(1))
        store.wait()
        flip_a_byte(bucket, 1)
        bucket.take_traffic()
        assert "has changed since it was saved" in store.fault(1)
        assert bucket.take_traffic().requests.total() == 2
        with pytest.raises(DamagedSave):
            store.load(1, TARGET)


# Orbax drops what it had begun when a load fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damage_is_found_as_chunks_are_loaded(bucket: BucketServer) -> None:
    with state_store(RUN) as store:
        store.save(1, tree(1))
        store.wait()
        forget_checksums(1)
        flip_a_byte(bucket, 1)
        assert store.fault(1) == ""
        with pytest.raises(DamagedSave, match="Digest mismatch"):
            store.load(1, TARGET)


def test_unfinished_saves_are_not_seen_and_are_cleared_away(bucket: BucketServer) -> None:
    """What kill -9 leaves: everything but the list, which comes last."""
    with state_store(RUN) as store:
        store.save(1, tree(1))
        store.save(2, tree(2))
    del bucket.buckets.blobs["bucket", f"{STATE}2/files.json"]
    with Store(f"{RUN}/state", read_only=True) as store:
        assert store.steps() == [1]
    assert names(bucket, 2)
    with state_store(RUN) as store:
        assert store.steps() == [1]
        assert not names(bucket, 2)
        store.save(2, tree(22))
        store.wait()
        assert_same(store.load(2, TARGET), tree(22))


def test_the_checksum_of_a_snapshot_costs_one_request(bucket: BucketServer) -> None:
    with snapshot_store(RUN) as store:
        store.save(1, tree(1))
    bucket.take_traffic()
    assert snapshot_checksum(RUN, 1)
    assert bucket.take_traffic().requests.total() == 1


@pytest.mark.parametrize(
    "failure",
    [503, *(pytest.param(failure, marks=pytest.mark.slow) for failure in (429, "reset", "lost", "cut"))],
)
def test_failing_answers_are_lived_through(bucket: BucketServer, failure: Failure) -> None:
    """The first write, read and list of a save and of a load fail, and are tried again after a second."""
    for kind in ("write", "read", "list"):
        bucket.fail(failure, kind, count=1)
    with state_store(RUN) as store:
        store.save(1, tree(1))
        store.wait()
    for kind in ("read", "list", "info"):
        bucket.fail(failure, kind, count=1)
    with state_store(RUN) as store:
        assert_same(store.load(1, TARGET), tree(1))
    assert bucket.take_traffic().failed == 6
