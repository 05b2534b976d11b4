"""Prepared rows: rendered and tokenised once, kept as ArrayRecord files, read row by row afterwards.

    <cache>/<source>-<settings>/   manifest.json  index.npz  rows.array_record-00000-of-00002 …

The folder's name comes from the settings (source, knobs, tokenizer, template, lengths, seed); the manifest
holds hashes of what those names stood for. When a hash differs later, the folder is refused, not rebuilt:
what a run trains on never changes behind its back.
"""

import dataclasses
import hashlib
import json
import re
import uuid
import zipfile
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from jax_sft.config import Run, Study
from jax_sft.data.rows import RowSet, RowSource, TokenisedRows
from jax_sft.data.sources import source_files
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import in_bucket, read_json, write_json
from jax_sft.study.folder import prepared_folder
from jax_sft.tasks.rows import GENERATORS
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.tokens.tokenizer import Tokenizer

_MANIFEST = "manifest.json"
_ROWS_PER_SHARD = 4096
_READING = "2"
"""Raised when the same files, tokenizer and template come to give other rows: earlier ones are refused."""
_FROM_DATA = ("source", "options", "knobs", "rows", "row_length", "too_long")


def prepared_rows(
    source: RowSource,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    cache: epath.PathLike,
    rebuild: bool = False,
) -> RowSet:
    """The rows of a source from its folder under `cache`, made now if there is none (or if `rebuild`).

    Raises UsageError when the set, the tokenizer or the template changed since the folder was made, and
    JaxSftError when its files are damaged.
    """
    folder = _folder(source, cache)
    if in_bucket(folder):
        raise UsageError(f"{folder}: prepared data must lie on a local disk: name a local folder")
    contents = _contents(source, tokenizer, template)
    if rebuild and folder.exists():
        folder.rmtree()
    if not _is_prepared(folder):
        write_prepared(folder, source.tokenised(tokenizer, template), _settings(source), contents)
    manifest = _read_manifest(folder)
    _refuse_changed(folder, manifest, contents, source)
    return PreparedRows(folder, manifest)


def run_rows(study: Study, run: Run, tokenizer: Tokenizer, template: ChatTemplate) -> RowSet:
    """The rows that a run trains on: those prepared for it if they were, otherwise in memory."""
    source, cache = RowSource.of(study, run), prepared_folder(study)
    folder = _folder(source, cache)
    if not in_bucket(folder) and _is_prepared(folder):
        return prepared_rows(source, tokenizer, template, cache)
    return source.tokenised(tokenizer, template)


def _is_prepared(folder: epath.Path) -> bool:
    """Whether the folder holds all of a source's rows."""
    return (folder / _MANIFEST).exists()


def _read_manifest(folder: epath.Path) -> dict[str, Any]:
    """What `write_prepared` wrote; JaxSftError when it is something else."""
    try:
        manifest = read_json(folder / _MANIFEST)
    except UsageError as error:
        raise JaxSftError(f"{error}; {_REBUILD}") from None
    counts = dict.fromkeys(("dropped", "truncated", "source_rows"), int)
    for name, kind in {"contents": dict, "files": list, "hash": str, **counts}.items():
        if not isinstance(manifest, dict) or not isinstance(manifest.get(name), kind):
            raise JaxSftError(f"{folder / _MANIFEST}: is damaged, {name} is missing; {_REBUILD}")
    return manifest


def _folder(source: RowSource, cache: epath.PathLike) -> epath.Path:
    settings = json.dumps(_settings(source), sort_keys=True)
    name = hashlib.sha256(settings.encode()).hexdigest()[:12]
    slug = re.sub(r"\W+", "-", epath.Path(source.data.source).stem).strip("-")[:40]
    return epath.Path(cache) / f"{slug}-{name}"


class PreparedRows:
    """Rows on disk, in the words of `RowSet`; only lengths and target counts are held in memory."""

    def __init__(self, folder: epath.Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.hash: str = manifest["hash"]
        self.dropped: int = manifest["dropped"]
        self.truncated: int = manifest["truncated"]
        try:
            with np.load(folder / "index.npz") as index:
                self.lengths_E, self.targets_E = index["lengths_E"], index["targets_E"]
                self.advantage_E = index["advantage_E"]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise JaxSftError(f"{folder}: index.npz is damaged: {error}; {_REBUILD}") from None

    def __len__(self) -> int:
        return len(self.advantage_E)

    @cached_property
    def _records(self) -> ArrayRecordDataSource:
        paths = [str(self.folder / name) for name in self.manifest["files"]]
        try:
            records = ArrayRecordDataSource(paths)
            found = len(records)
        except Exception as error:  # the library raises its own kinds
            raise JaxSftError(f"{self.folder}: its files cannot be read ({error}); {_REBUILD}") from None
        if found != len(self):
            raise JaxSftError(f"{self.folder}: holds {found} rows of {len(self)}; {_REBUILD}")
        return records

    def take(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (int32) and targets (bool) of those rows, laid end to end; reads those rows alone."""
        tokens, masks = [np.zeros(0, np.int32)], [np.zeros(0, np.bool_)]
        source = self._records
        try:
            records = source.__getitems__(rows_B.tolist()) if len(rows_B) else []
            for record, length in zip(records, self.lengths_E[rows_B].tolist(), strict=True):
                tokens.append(np.frombuffer(record, "<i4", length))
                bits = np.frombuffer(record, np.uint8, offset=4 * length)
                masks.append(np.unpackbits(bits, count=length).astype(np.bool_))
        except Exception as error:  # the library raises its own kinds
            raise JaxSftError(f"{self.folder}: a row cannot be read ({error}); {_REBUILD}") from None
        return np.concatenate(tokens), np.concatenate(masks)


_REBUILD = "rebuild it with `jax-sft data prepare STUDY --rebuild`, or remove the folder"


def _settings(source: RowSource) -> dict[str, Any]:
    chosen = {name: getattr(source.data, name) for name in _FROM_DATA}
    return {"data": chosen, "tokens": dataclasses.asdict(source.tokens), "seed": source.seed}


def _contents(source: RowSource, tokenizer: Tokenizer, template: ChatTemplate) -> dict[str, str]:
    """Hashes of what the settings name: the set, the tokenizer, the template; and how they are read."""
    digest = hashlib.sha256()
    if source.data.source in GENERATORS:
        digest.update(version("jax_sft").encode())
    for path in source_files(source.data, source.data_root):
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return {
        "set": digest.hexdigest(),
        "tokenizer": tokenizer.hash,
        "template": template.hash,
        "reading": _READING,
    }


def _refuse_changed(
    folder: epath.Path, manifest: dict[str, Any], now: dict[str, str], source: RowSource
) -> None:
    changed = [name for name, value in now.items() if manifest["contents"].get(name) != value]
    if not changed:
        return
    what = f"the {' and the '.join(changed)} changed"
    if "set" in changed:
        what += f" (the set gave {manifest['source_rows']} rows then, {len(source.rows())} now)"
    raise UsageError(f"{folder}: {what} since it was prepared; {_REBUILD}")


def write_prepared(
    folder: epath.Path, rows: TokenisedRows, settings: dict[str, Any], contents: dict[str, str]
) -> None:
    """Write everything beside the folder, then rename it: a reader sees all of it or nothing."""
    scratch = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    scratch.mkdir(parents=True)
    try:
        files = _write_records(scratch, rows)
        np.savez(
            scratch / "index.npz",
            lengths_E=rows.lengths_E,
            targets_E=rows.targets_E,
            advantage_E=rows.advantage_E,
        )
        manifest = {
            "settings": settings,
            "contents": contents,
            "rows": len(rows),
            "source_rows": len(rows) + rows.dropped,
            "tokens": int(rows.offsets[-1]),
            "dropped": rows.dropped,
            "truncated": rows.truncated,
            "hash": rows.hash,
            "files": files,
        }
        write_json(scratch / _MANIFEST, manifest)
        try:
            scratch.rename(folder)
        except OSError:
            # Another process was quicker; what it made is the same.
            if not (folder / _MANIFEST).exists():
                raise
    finally:
        if scratch.exists():
            scratch.rmtree()


def _write_records(folder: epath.Path, rows: TokenisedRows) -> Sequence[str]:
    shards = -(-len(rows) // _ROWS_PER_SHARD)
    names = [f"rows.array_record-{shard:05d}-of-{shards:05d}" for shard in range(shards)]
    for shard, name in enumerate(names):
        writer = ArrayRecordWriter(str(folder / name), "group_size:1")
        for row in range(shard * _ROWS_PER_SHARD, min((shard + 1) * _ROWS_PER_SHARD, len(rows))):
            start, stop = rows.offsets[row], rows.offsets[row + 1]
            mask = np.packbits(rows.is_target_N[start:stop]).tobytes()
            writer.write(rows.tokens_N[start:stop].astype("<i4").tobytes() + mask)
        writer.close()
    return names
