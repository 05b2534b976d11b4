"""Small files in a bucket: one request each, whatever the answers are like."""

import pytest
from etils import epath

from jax_sft.errors import UsageError
from jax_sft.evaluation.completions import set_aside
from jax_sft.files import (
    list_files,
    move,
    read_bytes,
    read_json,
    read_jsonl,
    remove_folder,
    write_json,
    write_jsonl,
)
from jax_sft.study.metrics import read_metrics
from jax_sft.training.metrics import LINES_A_PART, MetricsLog
from tests.buckets.server import BucketServer

FOLDER = "gs://bucket/a[b]*?/c"


def test_each_is_one_request(bucket: BucketServer) -> None:
    value = {"é": [1, None]}
    write_json(f"{FOLDER}/x.json", value)
    assert read_json(f"{FOLDER}/x.json") == value
    assert read_json(f"{FOLDER}/y.json", missing=7) == 7
    assert list(read_jsonl(f"{FOLDER}/y.jsonl", missing_ok=True)) == []
    assert list(list_files(FOLDER)) == ["x.json"]
    traffic = bucket.take_traffic()
    assert traffic.requests == {"write": 1, "read": 3, "list": 1}
    with pytest.raises(UsageError, match=r"y\.json: no such file"):
        read_json(f"{FOLDER}/y.json")
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{FOLDER}/y.json")


def test_a_list_is_of_what_is_there_now_below_the_folder(bucket: BucketServer) -> None:
    """More than one page of them; neighbours with a longer name are none of it."""
    for number in range(1003):
        bucket.buckets.put("bucket", f"a/{number // 100}/{number}", bytes(number % 7))
    bucket.buckets.put("bucket", "ab/1", b"")
    found = list_files("gs://bucket/a")
    assert len(found) == 1003
    assert (found["3/300"].size, found["10/1002"].size) == (300 % 7, 1002 % 7)
    assert bucket.take_traffic().requests == {"list": 2}
    bucket.buckets.put("bucket", "a/new", b"12")
    assert list_files("gs://bucket/a")["new"].size == 2
    remove_folder("gs://bucket/a")
    assert bucket.buckets.names("bucket") == ["ab/1"]
    assert list_files("gs://bucket/a") == {}


def test_files_and_folders_move(bucket: BucketServer) -> None:
    for name in ("d/x", "d/e/y", "f"):
        write_json(f"{FOLDER}/{name}", name)
    move(f"{FOLDER}/d", f"{FOLDER}/aside/1")
    move(f"{FOLDER}/f", f"{FOLDER}/g")
    assert sorted(list_files(FOLDER)) == ["aside/1/e/y", "aside/1/x", "g"]
    assert read_json(f"{FOLDER}/aside/1/e/y") == "d/e/y"


def test_units_that_no_longer_count_are_set_aside(bucket: BucketServer) -> None:
    unit, aside = epath.Path(f"{FOLDER}/evals/5/game"), epath.Path(f"{FOLDER}/aside/5/game")
    for number in ("1", "2"):
        write_json(unit / "unit.json", number)
        write_json(unit / "parts" / "00000.jsonl", number)
        assert set_aside(unit, aside) == aside / number
    assert list_files(unit) == {}
    assert sorted(list_files(aside)) == sorted(
        f"{number}/{name}" for number in "12" for name in ("unit.json", "parts/00000.jsonl")
    )
    assert read_json(aside / "2" / "unit.json") == "2"


@pytest.mark.parametrize("failure", [429, 503, "reset", "cut"])
def test_files_are_read_and_written_whole(bucket: BucketServer, failure: int) -> None:
    rows = [{"n": number} for number in range(1000)]
    bucket.fail(failure, count=1)
    write_jsonl(f"{FOLDER}/x.jsonl", rows)
    assert list(read_jsonl(f"{FOLDER}/x.jsonl")) == rows
    assert bucket.take_traffic().failed == 1


def steps(log_folder: str) -> list[int]:
    return [line["step"] for line in read_metrics(log_folder)]


def test_metrics_are_written_in_parts_and_at_last_whole(bucket: BucketServer) -> None:
    count = 10 * LINES_A_PART
    log = MetricsLog(FOLDER, 0)
    bucket.take_traffic()
    for step in range(1, count + 1):
        log.write({"step": step, "loss": 1.0})
    traffic = bucket.take_traffic()
    assert traffic.requests == {"write": 10}
    assert steps(FOLDER) == list(range(1, count + 1))
    log.close()
    assert bucket.buckets.names("bucket") == ["a[b]*?/c/metrics.jsonl"]
    assert traffic.received.total() < 2 * len(read_bytes(f"{FOLDER}/metrics.jsonl"))
    assert steps(FOLDER) == list(range(1, count + 1))


def test_a_killed_run_goes_on_from_its_parts(bucket: BucketServer) -> None:
    log = MetricsLog(FOLDER, 0)
    for step in range(1, 8):
        log.write({"step": step, "loss": 1.0})
        if step in (3, 6):
            log.flush()
    assert steps(FOLDER) == [1, 2, 3, 4, 5, 6], "the last line was not flushed"
    log = MetricsLog(FOLDER, 5)
    assert steps(FOLDER) == [1, 2, 3, 4, 5]
    log.write({"step": 6, "loss": 2.0})
    log.close()
    assert [line["loss"] for line in read_metrics(FOLDER)] == [1.0] * 5 + [2.0]
