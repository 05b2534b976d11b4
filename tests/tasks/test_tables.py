"""Rows of csv, json lines, JSON and parquet files, and what is said of malformed ones."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.tasks.tables import read_rows, table, text

ROWS = [{"a": "1, 2", "b": "x\ny"}, {"a": "é", "b": "z"}]


def test_rows_are_the_same_in_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes('\ufeffa,b\r\n"1, 2","x\ny"\r\né,z\r\n'.encode())
    (tmp_path / "rows.jsonl").write_text('{"a": "1, 2", "b": "x\\ny"}\n\n{"a": "é", "b": "z"}\n')
    (tmp_path / "rows.json").write_text('[{"a": "1, 2", "b": "x\\ny"}, {"a": "é", "b": "z"}]')
    (tmp_path / "lines.json").write_text('{"a": "1, 2", "b": "x\\ny"}\n{"a": "é", "b": "z"}\n')
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.jsonl", "rows.json", "lines.json", "rows.parquet"):
        config = BenchmarkConfig("b", path=name)
        found = list(table(config, str(tmp_path), "default.csv", "get it"))
        assert [row for _, row in found] == ROWS, name
        assert found[1][0].endswith(f"{name}, row 2")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"a,b\n1\n", "row 1: has another number of fields"),
        ("a.csv", b"a,b\n1,2,3\n", "row 1: has another number of fields"),
        ("a.csv", b'a,b\n"1,2\n', "a.csv: not csv: unexpected end of data"),
        ("a.csv", b"a\n\xff\n", r"not valid UTF-8 \(byte 2\)"),
        ("a.json", b"[1]", "expected a list of objects"),
        ("a.json", b"{\n", "line 1: not JSON"),
        ("a.jsonl", b"{\n", "line 1: not JSON"),
        ("a.txt", b"a", r"not a file ending in .csv, .jsonl, .jsonl.gz, .json or .parquet"),
    ],
)
def test_malformed_files_are_said(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        list(read_rows(epath.Path(tmp_path / name)))


def test_a_field_must_hold_something() -> None:
    assert text({"a": 3}, "a", "f, row 1") == "3"
    for row, words in (
        ({"a": " "}, "'a' is empty"),
        ({"a": None}, "'a' is empty"),
        ({"b": 1}, "'a' is missing; found b"),
    ):
        with pytest.raises(UsageError, match=f"f, row 1: field {words}"):
            text(row, "a", "f, row 1")
