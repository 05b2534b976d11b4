"""Where training rows come from: tasks that make them, files, built sets, and sets on the hub."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from jax_sft.config import DataConfig
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


def _read_files(config: DataConfig, data_root: str) -> tuple[str, Iterator[Placed]]:
    """What was looked up, and its records."""
    paths = _paths(config.source, data_root)
    for path in paths:
        if path.suffix not in SUFFIXES and not is_built_set(path):
            raise UsageError(
                f"data.source {config.source!r} is neither a generator ({', '.join(GENERATORS)}), "
                f"a built set, hub:OWNER/NAME nor a file ending in {', '.join(SUFFIXES)}"
            )
        if not path.exists():
            raise UsageError(f"{path}: no such file (data.source {config.source!r}, data_root {data_root!r})")
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
    """The files of a data set on the hub, or the one file or built set that is named."""
    if source.startswith("hub:"):
        return data_files(source)
    return [under(data_root, source)]
