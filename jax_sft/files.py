"""Small file work on local or gs:// paths: atomic text, json lines with row numbers in errors."""

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from jax_sft.errors import UsageError


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is on gs:// or another object store, not on this machine."""
    return "://" in os.fspath(path)


def home(path: epath.PathLike) -> epath.Path:
    """The path, with `~` at its beginning as the home folder."""
    return epath.Path(path) if in_bucket(path) else epath.Path(path).expanduser()


def under(folder: epath.PathLike, path: epath.PathLike) -> epath.Path:
    """A path below a folder (empty: the current one); one from the root or from home on stays what it is."""
    if in_bucket(path) or not os.fspath(folder):
        return home(path)
    return home(folder) / os.fspath(home(path))


def refuse_overwriting(outputs: Iterable[epath.PathLike], inputs: Iterable[epath.PathLike]) -> None:
    """UsageError when something to be written is something to be read, under whatever name or link."""
    read = list(inputs)
    for output in outputs:
        for source in read:
            if _same(home(output), home(source)):
                raise UsageError(f"{output}: would be written over {source}, which is read; name another")


def _same(one: epath.Path, other: epath.Path) -> bool:
    if in_bucket(one) or in_bucket(other):
        return os.path.normpath(one) == os.path.normpath(other)
    if one.exists() and other.exists():
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def absolute(path: epath.PathLike) -> epath.Path:
    """A local path from the root on, its links not followed; one in a bucket as it is."""
    return epath.Path(path if in_bucket(path) else os.path.abspath(home(path)))


def write_atomically(path: epath.PathLike, text: str) -> None:
    """Write `text` so that a reader sees the old file or the whole new one, never a part."""
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        scratch.write_text(text)
        if not in_bucket(target):
            with open(scratch, "rb") as written:
                os.fsync(written.fileno())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically, keys in the order given."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """The value in a JSON file; UsageError naming the file when it is missing or malformed."""
    try:
        return json.loads(epath.Path(path).read_text())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except ValueError as error:  # not JSON, or not even text
        raise UsageError(f"{path}: not JSON: {error}") from None


def write_jsonl(path: epath.PathLike, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: epath.PathLike) -> Iterator[dict[str, Any]]:
    """The objects of a json-lines file; UsageError with file and line for one that is malformed."""
    source = epath.Path(path)
    if not source.exists():
        raise UsageError(f"{path}: no such file")
    if source.suffix == ".parquet":
        raise UsageError(f"{path}: is a parquet file; write it as json lines, which are read here")
    try:
        text = source.read_text()
    except UnicodeDecodeError as error:
        where = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {where}: not valid UTF-8 ({error.reason})") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {number}: expected an object, found {type(row).__name__}")
        yield row
