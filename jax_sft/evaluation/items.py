"""The items of a study's benchmarks: made once, stored beside the runs, and the same for every unit."""

from collections.abc import Callable
from contextlib import suppress

from jax_sft.config import BenchmarkConfig, Study
from jax_sft.data.sources import load_rows
from jax_sft.errors import UsageError
from jax_sft.files import move
from jax_sft.study.folder import items_file
from jax_sft.study.records import Item, items_hash, read_items, write_items
from jax_sft.tasks.given_rows import GivenRows
from jax_sft.tasks.task import get_task, load_items, subset


def store_items(study: Study, config: BenchmarkConfig, say: Callable[[str], None]) -> list[Item]:
    """The items of a benchmark as configured now, written beside the runs.

    A stored file that holds others, or cannot be read, is set aside, of which `say` is told: units are drawn
    and scored anew as far as it matters to them.
    """
    items = items_of(config, study.data_root)
    path = items_file(study, config.name)
    if path.exists():
        try:
            stored = read_items(study, config.name)
            # Compared as JSON: what is stored knows no tuples.
            if stored is not None and items_hash(stored) == items_hash(items):
                return stored
            why = f"{path}: holds other items than {config.name} as configured now"
        except UsageError as error:
            why = str(error)
        number = 1
        while (aside := path.with_name(f"{path.stem}.{number}.aside")).exists():
            number += 1
        with suppress(FileNotFoundError):  # another worker did
            move(path, aside)
            say(f"{why}; set aside as {aside}")
    write_items(study, config.name, items)
    return stored_items(study, config.name)


def items_of(config: BenchmarkConfig, data_root: str) -> list[Item]:
    """The items of a benchmark as configured now; rows are read as training reads them."""
    task = get_task(config.task)
    if not isinstance(task, GivenRows):
        return load_items(config, data_root)
    source, seed = task.source(config)
    return subset(
        [task.item_of(row) for row in load_rows(source, seed, data_root)], config.limit, config.limit_seed
    )


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
