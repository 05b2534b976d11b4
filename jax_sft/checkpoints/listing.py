"""The list of a save's files, by which a damaged save is known before it is loaded.

It holds the step and, for each file, its size and MD5 where that costs no reading: a bucket knows it, and of
local files it is made for small ones (names and shapes). Older versions listed CRC-32s of all files, which
are compared by reading them.
"""

import json
import zlib
from typing import Any

from etils import epath

from jax_sft.errors import UsageError
from jax_sft.files import Entry, list_files, read_json, write_atomically

LISTING = "files.json"
_PIECE = 1 << 24
CHANGED = "has changed since it was saved"


def seal(save: epath.Path, step: int) -> None:
    """List the files of a save, all of which are written; the list is what makes it count."""
    files = {name: list(entry) for name, entry in sorted(list_files(save, digests=True).items())}
    write_atomically(save / LISTING, json.dumps({"step": step, "files": files}, indent=1) + "\n")


def fault_of(save: epath.Path, step: int) -> str:
    """What makes a save other than it was written, as far as names, sizes and known checksums tell; or ""."""
    found = list_files(save, digests=True)
    if LISTING not in found:
        return f"{LISTING} is missing, so the save is incomplete"
    try:
        listing = read_json(save / LISTING)
    except UsageError:
        return f"{LISTING} {CHANGED} (it is not JSON)"
    if not _is_listing(listing):
        return f"{LISTING} {CHANGED} (it is not a list of files)"
    if "files" not in listing:
        return _old_fault(save, found, listing)
    if listing["step"] != step:
        return f"is the save of step {listing['step']}, not of step {step}"
    for name, (size, digest) in listing["files"].items():
        if name not in found:
            return f"{name} is missing"
        # Of a large local file no checksum is known; its chunks have theirs.
        differ = None not in (digest, found[name].digest) and digest != found[name].digest
        if found[name].size != size or differ:
            return f"{name} {CHANGED} (its size or checksum differs)"
    return ""


def is_old(save: epath.Path) -> bool:
    """Whether a save was made by an older version, by its list."""
    listing = read_json(save / LISTING)
    return isinstance(listing, dict) and "files" not in listing


def _is_listing(value: Any) -> bool:
    """Whether a value is a list of files, as this version or an older one wrote it."""
    if not isinstance(value, dict):
        return False
    if value.keys() == {"step", "files"}:
        value = value["files"]
    elif not all("/" in name for name in value):
        return False
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(entry, list) and len(entry) == 2 for entry in value.values())
    )


def _old_fault(save: epath.Path, found: dict[str, Entry], listing: dict[str, list[int]]) -> str:
    for name, entry in listing.items():
        if name not in found:
            return f"{name} is missing"
        if _checksum(save / name) != entry:
            return f"{name} {CHANGED} (its size or checksum differs)"
    return ""


def _checksum(path: epath.Path) -> list[int]:
    """Size and CRC-32 of a file, read in pieces."""
    size = checksum = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            size, checksum = size + len(piece), zlib.crc32(piece, checksum)
    return [size, checksum]
