"""Suites: benchmarks that belong together, as data; `benchmarks=suite("quick")` in a study."""

import tomllib
from importlib import resources
from typing import Any

from etils import epath

from jax_sft.config import BenchmarkConfig, Protocol
from jax_sft.errors import UsageError
from jax_sft.files import home
from jax_sft.study.document import from_json, suggestion
from jax_sft.tasks.protocols import check_protocol
from jax_sft.tasks.task import task_modules


def suite(
    name: str, file: epath.PathLike = "", protocol: Protocol = "standard"
) -> tuple[BenchmarkConfig, ...]:
    """The benchmarks of a ready suite (`quick`, `paper`, `safety`, …), or of one in a TOML file of one's own.

    In such a file a suite is a table of what its benchmarks have in common, and `[[NAME.benchmarks]]` a table
    for each, with the fields of `BenchmarkConfig`. `protocol` is that of benchmarks that say nothing of it.
    UsageError for a name, task or field that is unknown.
    """
    path = home(file) if file else resources.files("jax_sft.evaluation") / "suites.toml"
    suites = _read(path)
    if name not in suites:
        raise UsageError(
            f"{path}: no suite {name!r}{suggestion(name, list(suites))}; it has {', '.join(suites)}"
        )
    where = f"{path}, suite {name}"
    common = {"protocol": protocol, **suites[name]}
    benchmarks = common.pop("benchmarks", None)
    if not isinstance(benchmarks, list) or not benchmarks:
        raise UsageError(f"{where}: holds no [[{name}.benchmarks]]")
    found = tuple(_benchmark({**common, **benchmark}, where) for benchmark in benchmarks)
    names = [benchmark.name for benchmark in found]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UsageError(
            f"{where}: benchmark {min(repeated)!r} is there twice; give one of them another name"
        )
    return found


def _read(path: Any) -> dict[str, dict[str, Any]]:
    try:
        suites = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None
    for name, value in suites.items():
        if not isinstance(value, dict):
            raise UsageError(f"{path}: {name} is not a suite, which is a table [{name}]")
    return suites


def _benchmark(fields: dict[str, Any], where: str) -> BenchmarkConfig:
    config = from_json(BenchmarkConfig, fields, where, forbid=True)
    known = list(task_modules())
    if config.task not in known:
        close = suggestion(config.task, known)
        raise UsageError(f"{where}: unknown task {config.task!r}{close}; known: {', '.join(known)}")
    try:
        check_protocol(config)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return config
