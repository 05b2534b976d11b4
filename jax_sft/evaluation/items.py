"""The items of a study's benchmarks: made once, stored beside the runs, and the same for every unit."""

import dataclasses
import json

from jax_sft.config import BenchmarkConfig, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.study.folder import items_file
from jax_sft.study.records import Item, read_items, write_items
from jax_sft.tasks.task import load_items


def store_items(study: Study, config: BenchmarkConfig) -> list[Item]:
    """The items of a benchmark, written beside the runs when first asked for.

    JaxSftError when a stored file holds others: its completions would answer other questions.
    """
    items = load_items(config, study.data_root)
    if not items_file(study, config.name).exists():
        write_items(study, config.name, items)
    stored = stored_items(study, config.name)
    # Compared as JSON: what is stored knows no tuples.
    if _as_json(stored) != _as_json(items):
        raise JaxSftError(
            f"{items_file(study, config.name)}: holds {len(stored)} items, but {config.name} as configured "
            f"now makes {len(items)} that are not all the same; restore its config, or give the benchmark or "
            "the study another name"
        )
    return stored


def stored_items(study: Study, benchmark: str) -> list[Item]:
    """The stored items of a benchmark; UsageError when there are none or the file is malformed."""
    items = read_items(study, benchmark)
    if items is None:
        path = items_file(study, benchmark)
        raise UsageError(f"{path}: no such file; the sweep of {benchmark} writes it")
    return items


def find_benchmark(study: Study, name: str) -> BenchmarkConfig:
    """The benchmark of that name; UsageError naming those that the study has."""
    for config in study.benchmarks:
        if config.name == name:
            return config
    known = ", ".join(config.name for config in study.benchmarks) or "none"
    raise UsageError(f"study {study.name}: no benchmark {name!r}; it has {known}")


def _as_json(items: list[Item]) -> str:
    return json.dumps([dataclasses.asdict(item) for item in items])
