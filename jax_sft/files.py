"""Small file work on local or gs:// paths: atomic text, json lines with rows in errors, lists of files.

In a bucket each of these is one request; the same through epath's files and folders is several.
"""

import base64
import gzip
import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

from etils import epath
from etils.epath import backend

from jax_sft.errors import UsageError

SMALL = 1 << 20
"""Bytes up to which a local file is read for its digest."""
_DELETED_AT_ONCE = 16


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
    """Write `text` so that a reader sees the old file or the whole new one, never a part.

    A device or a pipe (/dev/stdout) is written to and never replaced.
    """
    if in_bucket(path):
        # An object is there whole or not at all.
        _bucket(path).pipe_file(os.fspath(path), text.encode())
        return
    target = epath.Path(path)
    if target.exists() and not target.is_dir() and not os.path.isfile(target):
        with open(target, "w", encoding="utf-8") as stream:
            stream.write(text)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        scratch.write_text(text)
        with open(scratch, "rb") as written:
            os.fsync(written.fileno())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def read_bytes(path: epath.PathLike) -> bytes:
    """The content of a file; FileNotFoundError when there is none."""
    return _bucket(path).cat_file(os.fspath(path)) if in_bucket(path) else epath.Path(path).read_bytes()


def read_if_there(path: epath.PathLike) -> bytes | None:
    """The content of a file; None when there is none."""
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None


def named_like(folder: epath.Path, pattern: str) -> list[epath.Path]:
    """What a folder holds under names like the pattern (`*.json`); none when there is no such folder.

    In the name of the folder itself no character stands for others, as it would for `glob`.
    """
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if fnmatchcase(path.name, pattern))


class Entry(NamedTuple):
    """What a list of a folder says of one file."""

    size: int
    digest: str | None
    """MD5 of the content: in a bucket what the store knows, locally of small files when it is asked for."""


def list_files(folder: epath.PathLike, digests: bool = False) -> dict[str, Entry]:
    """Every file below a folder by its name relative to it; none when there is no such folder.

    In a bucket that is one request for each thousand files, and no content is read. Locally `digests` reads
    the files of at most SMALL bytes.
    """
    place = os.fspath(folder)
    if in_bucket(folder):
        below = place.split("://")[1].rstrip("/") + "/"
        found = _objects(place).items()
        return {name.removeprefix(below): _entry(d) for name, d in found if name.startswith(below)}
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(place) for name in names)
    return {os.path.relpath(path, place): _local_entry(path, digests) for path in paths}


def remove_folder(folder: epath.PathLike) -> None:
    """Delete a folder, if there is one, with all that is in it."""
    if not in_bucket(folder):
        epath.Path(folder).rmtree(missing_ok=True)
        return
    _remove_objects(folder, _objects(os.fspath(folder)))


def remove_files(folder: epath.PathLike, names: Iterable[str]) -> None:
    """Delete files of a folder, as far as they are there, and the folder when nothing else is left in it."""
    paths = [os.path.join(folder, name) for name in names]
    if in_bucket(folder):
        _remove_objects(folder, paths)
        return
    for path in paths:
        with suppress(FileNotFoundError):
            os.remove(path)
    with suppress(OSError):  # not empty, or not there
        os.rmdir(folder)


def _remove_objects(folder: epath.PathLike, paths: Iterable[str]) -> None:
    def remove(path: str) -> None:
        with suppress(FileNotFoundError):
            _bucket(folder).rm_file(path)

    with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
        list(pool.map(remove, paths))


def move(source: epath.PathLike, target: epath.PathLike) -> None:
    """Give a file or a folder another name, which nothing has yet.

    In a bucket all is copied before any is deleted: an interruption leaves both.
    """
    if not in_bucket(source):
        epath.Path(target).parent.mkdir(parents=True, exist_ok=True)
        epath.Path(source).rename(target)
        return
    names = [f"/{name}" for name in list_files(source)] or [""]
    for name in names:
        _bucket(source).cp_file(os.fspath(source) + name, os.fspath(target) + name)
    for name in names:
        _bucket(source).rm_file(os.fspath(source) + name)


def _objects(folder: str) -> dict[str, dict[str, Any]]:
    return _bucket(folder).find(folder, detail=True, update_cache=False)


def _bucket(path: epath.PathLike) -> Any:
    """The file system that epath reads a bucket through, without lists of its own: others write there too."""
    return _bucket_of(os.fspath(path).split("://")[0])


@cache
def _bucket_of(scheme: str) -> Any:
    system = backend.fsspec_backend.fs(f"{scheme}://")
    system.dircache.use_listings_cache = False
    system.invalidate_cache()
    return system


def _entry(details: dict[str, Any]) -> Entry:
    digest = details.get("md5Hash")
    return Entry(details["size"], base64.b64decode(digest).hex() if digest else None)


def _local_entry(path: str, digests: bool) -> Entry:
    size = os.path.getsize(path)
    if not digests or size > SMALL:
        return Entry(size, None)
    with open(path, "rb") as file:
        return Entry(size, hashlib.md5(file.read(), usedforsecurity=False).hexdigest())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically, keys in the order given."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


_REQUIRED = object()


def read_json(path: epath.PathLike, missing: Any = _REQUIRED) -> Any:
    """The value in a JSON file, or `missing`, if that is given, when there is no file.

    UsageError naming the file when it is missing or malformed.
    """
    try:
        return json.loads(read_bytes(path).decode())
    except FileNotFoundError:
        if missing is not _REQUIRED:
            return missing
        raise UsageError(f"{path}: no such file") from None
    except ValueError as error:  # not JSON, or not even text
        raise UsageError(f"{path}: not JSON: {error}") from None


def write_jsonl(path: epath.PathLike, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _decompressed(path: epath.PathLike, raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: not compressed by gzip, or cut short: {error}") from None


def read_jsonl(
    path: epath.PathLike, ended: bool = False, missing_ok: bool = False
) -> Iterator[dict[str, Any]]:
    """The objects of a json-lines file; UsageError with file and line for one that is malformed.

    Of a file that is appended to, only lines that have `ended` may count: the last may still be written. One
    whose name ends in .gz is compressed.
    """
    return (row for _, row in numbered_jsonl(path, ended, missing_ok))


def numbered_jsonl(
    path: epath.PathLike, ended: bool = False, missing_ok: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a json-lines file, each with the number of its line; as `read_jsonl`."""
    try:
        raw = read_bytes(path)
    except FileNotFoundError:
        if missing_ok:
            return
        raise UsageError(f"{path}: no such file") from None
    if epath.Path(path).suffix == ".parquet":
        raise UsageError(f"{path}: is a parquet file; write it as json lines, which are read here")
    try:
        text = (_decompressed(path, raw) if epath.Path(path).suffix == ".gz" else raw).decode()
    except UnicodeDecodeError as error:
        where = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}, line {where}: not valid UTF-8 ({error.reason})") from None
    if ended:
        text = text[: text.rfind("\n") + 1]
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {number}: expected an object, found {type(row).__name__}")
        yield number, row
