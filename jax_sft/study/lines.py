"""Stored completions line by line: which are as they were written, and what is wrong with the others."""

import json
from collections.abc import Iterator
from typing import NamedTuple

from etils import epath

from jax_sft.errors import UsageError
from jax_sft.files import read_if_there, read_jsonl
from jax_sft.study.folder import completions_file
from jax_sft.study.records import CompletionLine, Key, UnitRecord, short_hash


def read_completions(path: epath.PathLike) -> Iterator[CompletionLine]:
    """The completions of a file; UsageError with file and line for one that is malformed."""
    for number, row in enumerate(read_jsonl(path), start=1):
        yield CompletionLine.from_json(row, f"{path}, line {number}")


def unit_completions(unit: epath.PathLike) -> list[CompletionLine] | None:
    """All completions of a unit; None while they are not all drawn."""
    path = completions_file(unit)
    return list(read_completions(path)) if path.exists() else None


class LineFault(NamedTuple):
    """A line that does not count, and why."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.what}"


def good_lines(path: epath.Path, record: UnitRecord, faults: list[LineFault]) -> Iterator[CompletionLine]:
    """The completions of a file that are as they were written, each once; `faults` gets the others.

    A line is as it was written when its checksum is among the record's, or agrees with the one it carries; of
    files that older versions wrote, when it can be read.
    """
    whole = read_if_there(path)
    if whole is None:
        return
    known, seen = set(record.lines), set[Key]()
    raws = whole.split(b"\n")
    for number, raw in enumerate(raws, start=1):
        if not raw.strip():
            continue
        line, what = _read(raw)
        if line is None:
            faults.append(LineFault(str(path), number, what))
        elif known and short_hash(raw) not in known:
            faults.append(LineFault(str(path), number, "has changed since it was written"))
        elif line.key in seen:
            faults.append(LineFault(str(path), number, f"item {line.item!r} sample {line.sample} again"))
        else:
            seen.add(line.key)
            yield line
    if known and len(seen) + len(faults) < len(known):
        faults.append(LineFault(str(path), len(raws), f"{len(known) - len(seen)} lines are missing"))


def _read(raw: bytes) -> tuple[CompletionLine | None, str]:
    """The line, or None and what is wrong with it."""
    try:
        value = json.loads(raw.decode())
        if not isinstance(value, dict):
            return None, f"expected an object, found {type(value).__name__}"
        line = CompletionLine.from_json(value, "")
    except UnicodeDecodeError as error:
        return None, f"not valid UTF-8 (byte {error.start})"
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error}"
    except UsageError as error:
        return None, str(error).removeprefix(": ")
    check = value.get("check")
    if check is not None and check != short_hash(line.text.encode(errors="surrogatepass")):
        return None, "has changed since it was written"
    return line, ""
