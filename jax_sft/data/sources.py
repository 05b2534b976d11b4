"""Where training rows come from: tasks that make them, files, built sets, and sets on the hub."""

import contextlib
import dataclasses
import itertools
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from jax_sft.config import DataConfig, Option
from jax_sft.data.columns import file_options, row_of
from jax_sft.data.records import SUFFIXES, Record, is_built_set, read_records
from jax_sft.errors import UsageError
from jax_sft.files import under
from jax_sft.hub import data_files
from jax_sft.tasks.rows import GENERATORS, Row, generated_rows

Placed = tuple[str, str, Mapping[str, Any]]
"""A record after where it lies (file and row), and the id of one that has none."""
MIX = "mix"


def load_rows(config: DataConfig, seed: int, data_root: str = "") -> list[Row]:
    """The rows of `config.source` in source order, all checked.

    `config.rows` keeps the first rows of a file (0: all) or is the number a generator makes. A relative
    file is looked up under `data_root`. Options of a file: `format` (`rows` or `gsm8k`), `instruction`
    (a line added to the end of a `prompt` column), `prompt` and `response` (names of those columns).
    Every row is checked here, once, so that nothing downstream meets a malformed one.

    Raises UsageError, naming file and row, for a row that cannot be trained on.
    """
    if config.source == MIX:
        return _mixed(config, seed, data_root)
    if config.source in GENERATORS:
        if config.rows < 1:
            raise UsageError(f"data.source {config.source} makes its rows: set data.rows to how many")
        return generated_rows(config.source, config.rows, seed, config.options)
    where, records = _read_files(config, data_root)
    options = file_options(config.options)
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for place, default_id, record in records:
        row = row_of(record, options, place, default_id)
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

    `parts` reads `gsm8k.jsonl 3 format=gsm8k; 'my set.json' 1 instruction="Be brief."`: source, weight and
    options.
    """
    parts = config.options.get("parts")
    if set(config.options) != {"parts"} or not isinstance(parts, str):
        raise UsageError(
            'data.source mix takes one option: parts "SOURCE WEIGHT NAME=VALUE …; SOURCE WEIGHT …"'
        )
    found = [_mix_part(words) for words in _words_of_parts(parts) if words]
    if not found:
        raise UsageError("data.options parts names no source")
    return found


def _words_of_parts(parts: str) -> list[list[str]]:
    """The words of each part; quotation marks hold spaces and semicolons together, and go."""
    lexer = shlex.shlex(parts, posix=True, punctuation_chars=";")
    lexer.whitespace_split, lexer.escape, lexer.commenters = True, "", ""
    words: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word.strip(";"):
                words[-1].append(word)
            else:
                words.append([])
    except ValueError:
        raise UsageError(f"data.options parts: a quotation mark is not closed in {parts!r}") from None
    return words


def _mix_part(words: list[str]) -> tuple[DataConfig, float]:
    source, weight, *options = [*words, ""] if len(words) < 2 else words
    try:
        share = float(weight)
    except ValueError:
        share = 0.0
    if not (math.isfinite(share) and share > 0) or not all("=" in option for option in options):
        raise UsageError(f"data.options parts: {' '.join(words)!r} is not SOURCE WEIGHT NAME=VALUE …")
    named = dict(option.split("=", 1) for option in options)
    rows = named.pop("rows", "0")
    if not rows.isdecimal():
        raise UsageError(f"data.options parts: rows of {source} must be a whole number, found {rows!r}")
    # Options of a file are text; a generator's may be numbers, as the command line reads them.
    read = _number if source in GENERATORS else str
    options_read: dict[str, Option] = {name: read(text) for name, text in named.items()}
    return DataConfig(source=source, rows=int(rows), options=options_read), share


def _number(text: str) -> Option:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


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


def _read_files(config: DataConfig, data_root: str) -> tuple[str, Iterator[Placed]]:
    """What was looked up, and its records."""
    paths = _paths(config.source, data_root)
    several = len(paths) > 1
    records = itertools.chain.from_iterable(
        _placed(str(path), f"{path.stem}/" if several else "", read_records(path)) for path in paths
    )
    return config.source if several else str(paths[0]), records


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
    """The files of a data set on the hub, or the one file or built set that is named.

    UsageError when it is not there or nothing that can be read.
    """
    if source.startswith("hub:"):
        return data_files(source)
    path = under(data_root, source)
    if is_built_set(path):
        return [path]
    if path.is_dir():
        sets = sorted(inner.name for inner in path.iterdir() if is_built_set(inner))
        hint = f"; name its version, {source}/{sets[-1]}" if sets else " without a built set in it"
        raise UsageError(f"{path}: is a folder{hint}")
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"data.source {source!r} is neither a generator ({', '.join(GENERATORS)}), "
            f"a built set, hub:OWNER/NAME nor a file ending in {', '.join(SUFFIXES)}"
        )
    if not path.exists():
        raise UsageError(f"{path}: no such file (data.source {source!r}, data_root {data_root!r})")
    return [path]
