"""Where training rows come from: built-in generators, .jsonl, .json or .parquet files, and sets on the hub.

A row is `{"id", "messages" or "prompt", "response", "advantage"}`; the names of the paper's parquet
files (`message`, `response`, `advantage`) are read too. Every row is checked here, once, so that nothing
downstream meets a malformed one; an error names the file and the row.
"""

import dataclasses
import importlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from jax_sft.config import DataConfig, Option
from jax_sft.data.records import SUFFIXES, Record, brief, is_built_set, read_records
from jax_sft.errors import UsageError
from jax_sft.hub import data_files
from jax_sft.tasks.gsm8k import GSM8K_INSTRUCTION
from jax_sft.tokens.templates import Message


@dataclass(frozen=True)
class Row:
    """One training example: the turns of the prompt, and the response to learn."""

    id: str
    messages: tuple[Message, ...]
    response: str
    advantage: float = 1.0
    correct: bool | None = None
    """Whether the response was found right; None where nobody looked."""


GENERATORS: dict[str, tuple[str, str]] = {
    "countdown": ("jax_sft.tasks.countdown", "countdown_rows"),
    "miniature_base": ("jax_sft.tasks.miniature", "base_rows"),
}
Placed = tuple[str, str, Mapping[str, Any]]
"""A record after where it lies (file and row), and the id of one that has none."""
MIX = "mix"
FORMATS = ("rows", "gsm8k")
ROLES = ("system", "user", "assistant", "tool")
PROMPT_COLUMNS = ("messages", "message", "prompt")

_CALCULATOR = re.compile(r"<<[^<>]*>>")
_THINK_TAG = re.compile(r"</?think>")


def load_rows(config: DataConfig, seed: int, data_root: str = "") -> list[Row]:
    """The rows of `config.source` in source order, all checked.

    `config.rows` keeps the first rows of a file (0: all) or is the number a generator makes. A relative
    file is looked up under `data_root`. Options of a file: `format` (`rows` or `gsm8k`), `instruction`
    (a line added to the end of a `prompt` column), `prompt` and `response` (names of those columns).
    Raises UsageError, naming file and row, for a row that cannot be trained on.
    """
    if config.source == MIX:
        return _mixed(config, seed, data_root)
    if config.source in GENERATORS:
        where, records = config.source, _placed(config.source, "", _generated(config, seed))
    else:
        where, records = _read_files(config, data_root)
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for place, default_id, record in records:
        row = _row(record, place, default_id)
        if row.id in seen:
            raise UsageError(f"{place}: id {row.id!r} was used by {seen[row.id]}; ids must be unique")
        seen[row.id] = place
        rows.append(row)
        if len(rows) == config.rows:
            break
    if not rows:
        raise UsageError(f"{where}: holds no rows")
    if len(rows) < config.rows:
        raise UsageError(f"{where}: data.rows asks for {config.rows} rows, it holds {len(rows)}")
    return rows


def mix_parts(config: DataConfig) -> list[tuple[DataConfig, float]]:
    """The sets of `source mix` and their weights, from `data.options`: a line for each part.

    `parts` reads `gsm8k.jsonl 3 format=gsm8k; safety.json 1 prompt=question`: source, weight, options.
    """
    parts = config.options.get("parts")
    if set(config.options) != {"parts"} or not isinstance(parts, str):
        raise UsageError(
            'data.source mix takes one option: parts "SOURCE WEIGHT NAME=VALUE …; SOURCE WEIGHT …"'
        )
    found = []
    for text in parts.split(";"):
        source, weight, *options = [*text.split(), "", ""][: max(2, len(text.split()))]
        try:
            share = float(weight)
        except ValueError:
            share = 0.0
        if not (math.isfinite(share) and share > 0) or not all("=" in option for option in options):
            raise UsageError(f"data.options parts: {text.strip()!r} is not SOURCE WEIGHT NAME=VALUE …")
        named = dict(option.split("=", 1) for option in options)
        rows = int(named.pop("rows", "0") or 0)
        found.append((DataConfig(source=source, rows=rows, options=dict(named)), share))
    return found


def _mixed(config: DataConfig, seed: int, data_root: str) -> list[Row]:
    """Rows of several sets, taken in turn by weight, until one has none left (or at `config.rows`)."""
    parts = mix_parts(config)
    sets = [load_rows(part, seed, data_root) for part, _ in parts]
    weights = [weight / sum(weight for _, weight in parts) for _, weight in parts]
    taken = [0] * len(parts)
    mixed: list[Row] = []
    while not config.rows or len(mixed) < config.rows:
        # The set that is furthest behind its share of the rows so far, this one included.
        behind = [weight * (len(mixed) + 1) - count for weight, count in zip(weights, taken, strict=True)]
        chosen = behind.index(max(behind))
        if taken[chosen] == len(sets[chosen]):
            break
        row = sets[chosen][taken[chosen]]
        mixed.append(dataclasses.replace(row, id=f"{chosen + 1}/{row.id}"))
        taken[chosen] += 1
    if len(mixed) < config.rows:
        raise UsageError(
            f"data.source mix: {parts[chosen][0].source} has no rows left after {len(mixed)} of {config.rows}"
        )
    return mixed


def _generated(config: DataConfig, seed: int) -> Iterator[Record]:
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


def _read_files(config: DataConfig, data_root: str) -> tuple[str, Iterator[Placed]]:
    """What was looked up, and its rows in the names of `Row`."""
    paths = _paths(config.source, data_root)
    for path in paths:
        if path.suffix not in SUFFIXES and not is_built_set(path):
            raise UsageError(
                f"data.source {config.source!r} is neither a generator ({', '.join(GENERATORS)}), "
                f"a built set, hub:OWNER/NAME nor a file ending in {', '.join(SUFFIXES)}"
            )
        if not path.exists():
            raise UsageError(f"{path}: no such file (data.source {config.source!r}, data_root {data_root!r})")
    options = _file_options(config.options)
    several = len(paths) > 1
    records = itertools.chain.from_iterable(
        _placed(str(path), f"{path.stem}/" if several else "", read_records(path)) for path in paths
    )
    where = config.source if several else str(paths[0])
    return where, ((place, default_id, _rename(record, options)) for place, default_id, record in records)


def _placed(where: str, prefix: str, records: Iterable[Record]) -> Iterator[Placed]:
    return ((f"{where}, row {number}", f"{prefix}{number}", record) for number, record in records)


def source_files(config: DataConfig, data_root: str = "") -> list[epath.Path]:
    """The files that `load_rows` would read; none for a generator."""
    if config.source in GENERATORS:
        return []
    if config.source == MIX:
        return [path for part, _ in mix_parts(config) for path in source_files(part, data_root)]
    paths = _paths(config.source, data_root)
    return [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


def _paths(source: str, data_root: str) -> list[epath.Path]:
    """The files of a data set on the hub, or the one file or built set that is named."""
    if source.startswith("hub:"):
        return data_files(source)
    return [epath.Path(data_root) / source if data_root else epath.Path(source)]


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
        correct=_correct(record.get("correct"), where),
    )


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise UsageError(f"{where} must be a list of messages and not empty, found {brief(value)}")
    messages: list[Message] = []
    for position, message in enumerate(value):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise UsageError(
                f"{where}[{position}] must be an object with role and content, found {brief(message)}"
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
        raise UsageError(f"{where} must be text, found {brief(value)}")
    if not value.strip():
        raise UsageError(f"{where} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where} holds half of a surrogate pair, which is not valid Unicode") from None
    return value


def _advantage(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{where}: advantage must be a finite number, found {brief(value)}")
    return float(value)


def _correct(value: Any, where: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{where}: correct must be true or false, found {brief(value)}")
    return value


def _check_think_tags(response: str, where: str) -> None:
    """Think tags must come in pairs, opened before closed and not nested."""
    tags = _THINK_TAG.findall(response)
    if tags != ["<think>", "</think>"] * (len(tags) // 2):
        raise UsageError(f"{where}: response has unmatched think tags: {' '.join(tags[:6])}")
