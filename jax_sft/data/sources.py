"""Where training rows come from: built-in generators and .jsonl, .json or .parquet files.

A row is `{"id", "messages" or "prompt", "response", "advantage"}`; the names of the paper's parquet
files (`message`, `response`, `advantage`) are read too. Every row is checked here, once, so that nothing
downstream meets a malformed one; an error names the file and the row.
"""

import codecs
import importlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jax_sft.config import DataConfig, Option
from jax_sft.errors import UsageError
from jax_sft.tokens.templates import Message


@dataclass(frozen=True)
class Row:
    """One training example: the turns of the prompt, and the response to learn."""

    id: str
    messages: tuple[Message, ...]
    response: str
    advantage: float = 1.0


GENERATORS: dict[str, tuple[str, str]] = {
    "countdown": ("jax_sft.data.countdown", "countdown_rows"),
    "miniature_base": ("jax_sft.data.miniature", "base_rows"),
}
FORMATS = ("rows", "gsm8k")
ROLES = ("system", "user", "assistant", "tool")
PROMPT_COLUMNS = ("messages", "message", "prompt")
GSM8K_INSTRUCTION = "Solve the problem step by step. End with the answer as a number after ####."

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_THINK_TAG = re.compile(r"</?think>")


def load_rows(config: DataConfig, seed: int, data_root: str = "") -> list[Row]:
    """The rows of `config.source` in source order, all checked.

    `config.rows` keeps the first rows of a file (0: all) or is the number a generator makes. A relative
    file is looked up under `data_root`. Options of a file: `format` (`rows` or `gsm8k`), `instruction`
    (a line added to the end of a `prompt` column), `prompt` and `response` (names of those columns).
    Raises UsageError, naming file and row, for a row that cannot be trained on.
    """
    if config.source in GENERATORS:
        where, records = config.source, _generated(config, seed)
    else:
        where, records = _read_file(config, data_root)
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, record in records:
        row = _row(record, f"{where}, row {number}", str(number))
        if row.id in seen:
            raise UsageError(
                f"{where}, row {number}: id {row.id!r} was used by row {seen[row.id]}; ids must be unique"
            )
        seen[row.id] = number
        rows.append(row)
        if len(rows) == config.rows:
            break
    if not rows:
        raise UsageError(f"{where}: holds no rows")
    if len(rows) < config.rows:
        raise UsageError(f"{where}: data.rows asks for {config.rows} rows, it holds {len(rows)}")
    return rows


def _generated(config: DataConfig, seed: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Numbered rows of a built-in generator; imported here because only its users should need it."""
    if config.rows < 1:
        raise UsageError(f"data.source {config.source} makes its rows: set data.rows to how many")
    module, name = GENERATORS[config.source]
    generate = getattr(importlib.import_module(module), name)
    if config.source == "countdown":
        return enumerate(generate(config.rows, seed, config.options), start=1)
    if config.options:
        raise UsageError(f"data.source {config.source} has no options, found {', '.join(config.options)}")
    return enumerate(generate(config.rows, seed), start=1)


def _read_file(config: DataConfig, data_root: str) -> tuple[str, Iterator[tuple[int, Mapping[str, Any]]]]:
    """The path looked up, and its numbered rows in the names of `Row`."""
    path = epath.Path(data_root) / config.source if data_root else epath.Path(config.source)
    readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    if path.suffix not in readers:
        raise UsageError(
            f"data.source {config.source!r} is neither a generator ({', '.join(GENERATORS)}) "
            f"nor a file ending in {', '.join(readers)}"
        )
    if not path.is_file():
        raise UsageError(f"{path}: no such file (data.source {config.source!r}, data_root {data_root!r})")
    options = _file_options(config.options)
    records = readers[path.suffix](path)
    return str(path), ((number, _rename(record, options)) for number, record in records)


def _file_options(options: Mapping[str, Option]) -> dict[str, str]:
    """Options of a file as text; UsageError for an unknown name, type or format."""
    allowed = ("format", "instruction", "prompt", "response")
    for name, value in options.items():
        if name not in allowed:
            raise UsageError(f"data.options {name!r} is not an option of a file: {', '.join(allowed)}")
        if not isinstance(value, str):
            raise UsageError(f"data.options {name!r} must be text, found {value!r}")
    text = {name: str(value) for name, value in options.items()}
    if text.setdefault("format", "rows") not in FORMATS:
        raise UsageError(f"data.options format {text['format']!r} is not one of {', '.join(FORMATS)}")
    if text["format"] == "gsm8k":
        return {"prompt": "question", "response": "answer", "instruction": GSM8K_INSTRUCTION} | text
    return text


def _rename(record: Mapping[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    """A record in the names of `Row`, the instruction added; what is missing stays missing."""
    renamed = dict(record)
    for name in ("prompt", "response"):
        column = options.get(name, name)
        if column != name:
            renamed.pop(name, None)
            if column in renamed:
                renamed[name] = renamed.pop(column)
    if options["format"] == "gsm8k" and isinstance(renamed.get("response"), str):
        # The calculator notes (`<<48/2=24>>`) belong to a tool that the models here do not have.
        renamed["response"] = _CALCULATOR.sub("", renamed["response"])
    if options.get("instruction") and isinstance(renamed.get("prompt"), str):
        renamed["prompt"] = f"{renamed['prompt']}\n{options['instruction']}"
    return renamed


def _row(record: Mapping[str, Any], where: str, default_id: str) -> Row:
    """One checked row; `where` opens the error message."""
    present = [name for name in PROMPT_COLUMNS if record.get(name) is not None]
    missing = [] if present else [" or ".join(PROMPT_COLUMNS)]
    if "response" not in record:
        missing.append("response")
    if missing:
        found = ", ".join(record) or "none"
        raise UsageError(f"{where}: no column {' and no '.join(missing)}; found {found}")
    prompt = record[present[0]]
    if isinstance(prompt, str) and present[0] == "prompt":
        prompt = [{"role": "user", "content": prompt}]
    row_id = record.get("id", default_id)
    if isinstance(row_id, bool) or not isinstance(row_id, str | int) or row_id == "":
        raise UsageError(f"{where}: id must be text or a whole number, found {row_id!r}")
    response = _text(record["response"], f"{where}: response")
    _check_think_tags(response, where)
    return Row(
        id=str(row_id),
        messages=_messages(prompt, f"{where}: {present[0]}"),
        response=response,
        advantage=_advantage(record.get("advantage", 1.0), where),
    )


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise UsageError(f"{where} must be a list of messages and not empty, found {_brief(value)}")
    messages: list[Message] = []
    for position, message in enumerate(value):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise UsageError(
                f"{where}[{position}] must be an object with role and content, found {_brief(message)}"
            )
        if message["role"] not in ROLES:
            raise UsageError(
                f"{where}[{position}]: role must be one of {', '.join(ROLES)}, found {message['role']!r}"
            )
        content = _text(message["content"], f"{where}[{position}]: content")
        messages.append({"role": message["role"], "content": content})
    return tuple(messages)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} must be text, found {_brief(value)}")
    if not value.strip():
        raise UsageError(f"{where} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where} holds half of a surrogate pair, which is not valid Unicode") from None
    return value


def _advantage(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{where}: advantage must be a finite number, found {_brief(value)}")
    return float(value)


def _check_think_tags(response: str, where: str) -> None:
    """Think tags must come in pairs, opened before closed and not nested."""
    tags = _THINK_TAG.findall(response)
    if tags != ["<think>", "</think>"] * (len(tags) // 2):
        raise UsageError(f"{where}: response has unmatched think tags: {' '.join(tags[:6])}")


def _brief(value: Any) -> str:
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
        raise UsageError(f"{path}: expected a list of objects, found {_brief(records)}")
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
        raise UsageError(f"{where}: expected an object, found {_brief(record)}")
    return record


def _parquet(path: epath.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a parquet file, numbered from 1, read one row group at a time."""
    try:
        with path.open("rb") as stream, pq.ParquetFile(stream) as file:
            yield from enumerate(_decoded(file.iter_batches(batch_size=1024), path), start=1)
    except pa.ArrowException as error:
        raise UsageError(f"{path}: not a readable parquet file: {error}") from None


def _decoded(batches: Iterable[pa.RecordBatch], path: epath.Path) -> Iterator[dict[str, Any]]:
    done = 0
    for batch in batches:
        names = batch.schema.names
        for index in range(batch.num_rows):
            try:
                yield {name: batch.column(name)[index].as_py() for name in names}
            except UnicodeDecodeError as error:
                raise UsageError(f"{path}, row {done + index + 1}: not valid UTF-8: {error.reason}") from None
        done += batch.num_rows
