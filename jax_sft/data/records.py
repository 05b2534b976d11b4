"""Records of .jsonl, .json and .parquet files, numbered, with errors that name file and row."""

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jax_sft.errors import UsageError
from jax_sft.tasks.rows import Row
from jax_sft.tokens.thoughts import apart

Record = tuple[int, Mapping[str, Any]]
SUFFIXES = (".jsonl", ".json", ".parquet")


def read_records(path: epath.Path) -> Iterator[Record]:
    """Numbered records of a .jsonl, .json or .parquet file; UsageError when it is missing or malformed."""
    if is_built_set(path):
        return _built_set(path)
    readers = dict(zip(SUFFIXES, (_jsonl, _json, _parquet), strict=True))
    if path.suffix not in readers:
        raise UsageError(f"{path}: not a file ending in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    return readers[path.suffix](path)


def is_built_set(path: epath.Path) -> bool:
    """Whether the path is the version folder of a set that tensorflow-datasets wrote."""
    return (path / "dataset_info.json").is_file()


def _built_set(path: epath.Path) -> Iterator[Record]:
    """Rows of the split `train` of such a set, numbered from 1, one read at a time."""
    import tensorflow_datasets as tfds  # slow to import, and only these sets need it

    rows = tfds.builder_from_directory(path).as_data_source(split="train")
    for number in range(len(rows)):
        yield number + 1, _set_record(rows[number])


def _set_record(example: Mapping[str, Any]) -> dict[str, Any]:
    """The row that `set_example` wrote, in the columns of a file."""
    more = json.loads(example.get("more") or b"{}")
    roles, contents = example["messages"]["role"], example["messages"]["content"]
    messages = [
        {"role": role.decode(), "content": content.decode()}
        for role, content in zip(roles, contents, strict=True)
    ]
    if turns := more.pop("turns", None):
        messages = [message | extra for message, extra in zip(messages, turns, strict=True)]
    response = example["response"].decode()
    return more | {
        "id": example["id"].decode(),
        "messages": messages,
        "response": apart(response)[1] if "reasoning_content" in more else response,
        "advantage": float(example["advantage"]),
        "correct": None if example["correct"] < 0 else bool(example["correct"]),
    }


def set_features() -> Any:
    """The columns of a built set, as tensorflow-datasets features."""
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    return tfds.features.FeaturesDict(
        {
            "id": text,
            "messages": tfds.features.Sequence({"role": text, "content": text}),
            "response": text,
            "advantage": np.float32,
            "correct": np.int8,
            # JSON: what turns and rows of few sets have.
            "more": text,
        }
    )


def set_example(row: Row) -> dict[str, Any]:
    """A row in those columns; `_set_record` reads it back."""
    fields: dict[str, Any] = {"tools": row.tools, "tool_calls": row.tool_calls}
    fields |= {"reasoning_content": apart(row.response)[0]} if row.reasoning_apart else {}
    fields["turns"] = [_beyond_text(message) for message in row.messages]
    if not any(fields["turns"]):
        del fields["turns"]
    more = {name: value for name, value in fields.items() if value}
    return {
        "id": row.id,
        "messages": [{"role": turn["role"], "content": turn["content"] or ""} for turn in row.messages],
        "response": row.response,
        "advantage": row.advantage,
        "correct": -1 if row.correct is None else int(row.correct),
        "more": json.dumps(more) if more else "",
    }


def _beyond_text(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a turn holds besides its role and its text."""
    without_text = {"content": None} if message["content"] is None else {}
    return without_text | {key: message[key] for key in message if key not in ("role", "content")}


def brief(value: Any) -> str:
    """Type and value for an error message, at most 40 characters of it."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '…'}"


def _jsonl(path: epath.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Objects of a json-lines file, numbered by line from 1; blank lines are passed over."""
    for number, line in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if line.strip():
            yield number, _object(_parse(line, f"{path}, row {number}"), f"{path}, row {number}")


def _json(path: epath.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Objects of a JSON list, numbered from 1."""
    records = _parse(path.read_bytes().removeprefix(codecs.BOM_UTF8), str(path))
    if not isinstance(records, list):
        raise UsageError(f"{path}: expected a list of objects, found {brief(records)}")
    for number, record in enumerate(records, start=1):
        yield number, _object(record, f"{path}, row {number}")


def _parse(raw: bytes, where: str) -> Any:
    try:
        return json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: not valid UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None


def _object(record: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise UsageError(f"{where}: expected an object, found {brief(record)}")
    return record


def _parquet(path: epath.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a parquet file, numbered from 1, read one row group at a time."""
    try:
        with path.open("rb") as stream, pq.ParquetFile(stream) as file:
            yield from enumerate(_decoded(file.iter_batches(batch_size=1024), path), start=1)
    except pa.ArrowException as error:
        raise UsageError(f"{path}: not a readable parquet file: {error}") from None


def _without_nulls(value: Any) -> Any:
    """The value without null fields inside it: in a column of objects each has every field of the others."""
    if isinstance(value, dict):
        return {key: _without_nulls(entry) for key, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value


def _decoded(batches: Iterable[pa.RecordBatch], path: epath.Path) -> Iterator[dict[str, Any]]:
    done = 0
    for batch in batches:
        names = batch.schema.names
        for index in range(batch.num_rows):
            try:
                yield {name: _without_nulls(batch.column(name)[index].as_py()) for name in names}
            except UnicodeDecodeError as error:
                raise UsageError(f"{path}, row {done + index + 1}: not valid UTF-8: {error.reason}") from None
        done += batch.num_rows
