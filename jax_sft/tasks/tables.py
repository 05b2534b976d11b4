"""The rows of a benchmark's file: csv, json lines, a JSON list or parquet, here or on the hub."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.files import read_json, read_jsonl
from jax_sft.hub import data_files
from jax_sft.tasks.task import source_file

Placed = tuple[str, Mapping[str, Any]]
"""A row, after the file and the number by which errors name it."""


def table(config: BenchmarkConfig, data_root: str, default: str, remedy: str) -> Iterator[Placed]:
    """The rows of `config.path`, or of `default`, numbered from 1 in the order of the file.

    The path is under `data_root`, or `hub:OWNER/NAME:FILE`. UsageError for a file that is missing (with the
    remedy) or malformed.
    """
    if config.path.startswith("hub:"):
        paths = data_files(config.path)
    else:
        paths = [source_file(config, data_root, default, remedy)]
    for path in paths:
        for number, row in enumerate(read_rows(path), start=1):
            yield f"{path}, row {number}", row


def read_rows(path: epath.Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a .csv, .jsonl(.gz), .json or .parquet file; UsageError for another or a malformed one."""
    match path.suffix:
        case ".csv":
            yield from _csv(path)
        case ".jsonl" | ".gz":
            yield from read_jsonl(path)
        case ".json":
            yield from _list(path)
        case ".parquet":
            import pyarrow.parquet

            yield from pyarrow.parquet.read_table(str(path)).to_pylist()
        case _:
            raise UsageError(f"{path}: not a file ending in .csv, .jsonl, .jsonl.gz, .json or .parquet")


def text(row: Mapping[str, Any], name: str, where: str) -> str:
    """A field that must hold something, as text; UsageError when it is missing or empty."""
    value = row.get(name)
    if value is None or not str(value).strip():
        found = ", ".join(map(str, row)) or "none"
        raise UsageError(f"{where}: field {name!r} is {'empty' if name in row else 'missing'}; found {found}")
    return str(value)


def _csv(path: epath.Path) -> Iterator[Mapping[str, Any]]:
    try:
        lines = io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not valid UTF-8 (byte {error.start})") from None
    reader = csv.DictReader(lines, strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise UsageError(f"{path}, row {number}: has another number of fields than the first line")
            yield row
    except csv.Error as error:
        raise UsageError(f"{path}: not csv: {error}") from None


def _list(path: epath.Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        if file.read(64).lstrip()[:1] == b"{":  # one object a line goes by this name too
            yield from read_jsonl(path)
            return
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: expected a list of objects")
    yield from rows
