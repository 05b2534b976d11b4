"""Small files: whole or not at all; errors with file and line."""

import gzip
import os
import stat
import threading
from pathlib import Path

import pytest
from etils import epath

from jax_sft import files
from jax_sft.errors import UsageError
from jax_sft.files import (
    absolute,
    home,
    in_bucket,
    list_files,
    move,
    named_like,
    read_json,
    read_jsonl,
    refuse_overwriting,
    remove_folder,
    under,
    write_atomically,
    write_json,
    write_jsonl,
)

pytestmark = pytest.mark.short


def test_nothing_is_written_over_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").write_text("1")
    refuse_overwriting([tmp_path / "c", "gs://x/a", tmp_path / "new"], [tmp_path / "a", "gs://x/b"])
    refuse_overwriting([], [tmp_path / "a"])
    for output, source in (("b", "a"), ("new", "./new"), ("a", "b")):
        with pytest.raises(UsageError, match="would be written over"):
            refuse_overwriting([tmp_path / output], [os.path.join(tmp_path, source)])
    with pytest.raises(UsageError, match=r"gs://x/a: would be written over gs://x/\./a"):
        refuse_overwriting(["gs://x/a"], ["gs://x/./a"])


def test_a_parquet_file_where_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"a\.parquet: is a parquet file; write it as json lines"):
        list(read_jsonl(tmp_path / "a.parquet"))


def test_json_there_and_back(tmp_path: Path) -> None:
    value = {"b": [1, None, True], "a": {"é": "×"}}
    write_json(tmp_path / "deep" / "down" / "x.json", value)
    assert read_json(tmp_path / "deep" / "down" / "x.json") == value
    assert list(read_json(tmp_path / "deep" / "down" / "x.json")) == ["b", "a"]
    assert "é" in (tmp_path / "deep" / "down" / "x.json").read_text()


def test_jsonl_there_and_back(tmp_path: Path) -> None:
    # U+2028 ends a line for Python's splitlines, not for JSON lines.
    rows = [{"text": "a\nb\u2028c"}, {}, {"n": 1}]
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert list(read_jsonl(tmp_path / "x.jsonl")) == rows
    write_jsonl(tmp_path / "empty.jsonl", [])
    assert list(read_jsonl(tmp_path / "empty.jsonl")) == []


def test_blank_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\n  \n{"a": 2}')
    assert [row["a"] for row in read_jsonl(tmp_path / "x.jsonl")] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ('{"a": 1}\n\n[1, 2]\n', "line 3: expected an object, found list"),
        ("7", "line 1: expected an object, found int"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(UsageError) as caught:
        list(read_jsonl(tmp_path / "x.jsonl"))
    assert str(caught.value).startswith(f"{tmp_path}/x.jsonl, {message}")


def test_missing_and_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.json: no such file"):
        read_json(tmp_path / "nowhere.json")
    with pytest.raises(UsageError, match=r"nowhere\.jsonl: no such file"):
        list(read_jsonl(tmp_path / "nowhere.jsonl"))
    (tmp_path / "x.json").write_text("{'a': 1}")
    with pytest.raises(UsageError, match=r"x\.json: not JSON: .*line 1"):
        read_json(tmp_path / "x.json")


def test_a_reader_sees_the_old_text_or_the_new(tmp_path: Path) -> None:
    path, texts, seen = tmp_path / "x", ["a" * 100_000, "b" * 100_000], set()
    write_atomically(path, texts[0])
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(100):
        write_atomically(path, texts[turn % 2])
    done.set()
    reader.join()
    assert seen <= set(texts)
    assert [found.name for found in tmp_path.iterdir()] == ["x"]


def test_a_failed_write_leaves_the_old_text_and_no_scrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "x", "old")

    def full(self: epath.Path, text: str) -> int:
        os.write(os.open(self, os.O_CREAT | os.O_WRONLY), text[:1].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(epath.Path(tmp_path)), "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "x", "new")
    monkeypatch.undo()
    assert (tmp_path / "x").read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["x"]


def test_text_is_utf8_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    write_atomically(tmp_path / "x", "×÷−")
    assert (tmp_path / "x").read_bytes() == "×÷−".encode()


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomically(tmp_path / "x", "text")
    plain = tmp_path / "plain"
    plain.write_text("text")
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_wave_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert os.fspath(home("~/a")) == str(tmp_path / "a")
    assert os.fspath(absolute("~/a")) == str(tmp_path / "a")
    assert os.fspath(home("a/~")) == "a/~"
    assert os.fspath(home("gs://bucket/~")) == "gs://bucket/~"


def test_what_lies_under_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert os.fspath(under("", "a")) == "a"
    assert os.fspath(under("~/data", "a")) == str(tmp_path / "data" / "a")
    for rooted in ("/a", "~/a", "gs://bucket/a"):
        assert os.fspath(under("data", rooted)) == os.fspath(home(rooted))
    assert os.fspath(under("gs://bucket/data", "a")) == "gs://bucket/data/a"


def test_files_and_folders_move(tmp_path: Path) -> None:
    for name in ("d/x", "d/e/y", "f"):
        write_json(tmp_path / name, name)
    move(tmp_path / "d", tmp_path / "aside" / "1")
    move(tmp_path / "f", tmp_path / "g")
    assert sorted(list_files(tmp_path)) == ["aside/1/e/y", "aside/1/x", "g"]
    remove_folder(tmp_path / "aside")
    remove_folder(tmp_path / "aside")
    assert list(list_files(tmp_path)) == ["g"]
    assert list_files(tmp_path / "aside") == {}


@pytest.mark.parametrize("folder", ["a[1]", "b*", "c?"])
def test_files_are_found_by_name_in_folders_of_any_name(tmp_path: Path, folder: str) -> None:
    for name in ("x.json", "y.json", "z.txt"):
        write_json(tmp_path / folder / name, 1)
    place = epath.Path(tmp_path / folder)
    assert named_like(place, "*.json") == [place / "x.json", place / "y.json"]
    assert named_like(place / "none", "*") == []


def test_lists_hold_sizes_and_digests_of_what_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SMALL", 3)
    (tmp_path / "small").write_text("abc")
    (tmp_path / "large").write_text("abcd")
    md5 = "900150983cd24fb0d6963f7d28e17f72"
    assert list_files(tmp_path, digests=True) == {"small": (3, md5), "large": (4, None)}
    assert list_files(tmp_path) == {"small": (3, None), "large": (4, None)}


def test_lines_that_have_not_ended_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": 2')
    assert list(read_jsonl(tmp_path / "x.jsonl", ended=True)) == [{"a": 1}]
    assert list(read_jsonl(tmp_path / "y.jsonl", missing_ok=True)) == []
    assert read_json(tmp_path / "y.json", missing=None) is None


def test_paths_in_a_bucket_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(absolute("gs://bucket/runs")) == "gs://bucket/runs"
    assert absolute("../x/.") == epath.Path(tmp_path.parent / "x")
    assert in_bucket(epath.Path("gs://bucket/runs"))
    assert not in_bucket(tmp_path)


def test_json_lines_may_be_compressed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    assert list(read_jsonl(path)) == [{"a": 1}, {"a": 2}]
    for damaged in (path.read_bytes()[:-12], b'{"a": 1}\n'):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"x\.jsonl\.gz: not compressed by gzip, or cut short"):
            list(read_jsonl(path))
