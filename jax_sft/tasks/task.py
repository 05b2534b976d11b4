"""What a benchmark is: items to ask, and a verdict on each completion."""

import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from etils import epath

from jax_sft.config import BenchmarkConfig, Group, Option
from jax_sft.errors import UsageError
from jax_sft.options import fitting
from jax_sft.study.records import Item, Verdict


class Task(ABC):
    """A kind of question. Stateless: everything about one item is in its reference."""

    group: ClassVar[Group]
    """What it measures; a study may count it elsewhere."""
    version: ClassVar[int] = 1
    """Raised when its verdicts change: scores that it gave before are then given anew."""

    headline: ClassVar[str] = "accuracy"
    """The metric that stands for the task."""
    higher_is_better: ClassVar[bool] = True
    isolated: ClassVar[bool] = False
    """Scored in separate processes with a time limit, because the scorer may hang or crash."""
    defaults: ClassVar[Mapping[str, Option]] = {}
    """Options and their defaults; others are refused, unless `free_options`."""
    free_options: ClassVar[bool] = False

    @abstractmethod
    def load(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The items, in a fixed order and with unique ids; UsageError for a bad option or a missing file."""

    @abstractmethod
    def score(self, item: Item, completion: str, finish: str) -> Verdict:
        """Judge one completion; `finish` is `stop` or `length`."""

    def options(self, config: BenchmarkConfig) -> dict[str, Any]:
        """The options of the config over the defaults; UsageError naming an unknown or mistyped one."""
        given: dict[str, Option] = dict(config.options)
        for name, value in config.options.items():
            if name not in self.defaults:
                if self.free_options:
                    continue
                known = ", ".join(self.defaults) or "none"
                raise UsageError(f"benchmark {config.name}: unknown option {name!r}; known: {known}")
            fitted = fitting(value, type(self.defaults[name]))
            if fitted is None:
                wanted = type(self.defaults[name]).__name__
                raise UsageError(f"benchmark {config.name}: option {name} must be {wanted}, not {value!r}")
            given[name] = fitted
        return {**self.defaults, **given}


RULES_VERSION = 1
"""Raised when what `responses` reads changes for any task."""
_CLASSES = {
    "commonsenseqa": "choices.CommonsenseQA",
    "countdown": "countdown.Countdown",
    "gsm8k": "gsm8k.GSM8K",
    "math500": "mathematics.Math500",
    "miniature": "miniature.Miniature",
    "miniature_safety": "miniature.MiniatureSafety",
    "reasoning_gym": "reasoning_gym.ReasoningGym",
    "xstest": "safety.XSTest",
}
TASKS = tuple(_CLASSES)


def get_task(name: str) -> Task:
    """The task of that name; UsageError listing the names. Imports only what the task needs."""
    if name not in _CLASSES:
        raise UsageError(f"unknown task {name!r}; known: {', '.join(TASKS)}")
    module, class_name = _CLASSES[name].split(".")
    made = getattr(importlib.import_module(f"jax_sft.tasks.{module}"), class_name)()
    assert isinstance(made, Task)
    return made


def scorer_of(config: BenchmarkConfig) -> str:
    """The rules that judge a benchmark, with the versions of the task and of what all tasks share."""
    return f"{config.task} {get_task(config.task).version}.{RULES_VERSION}"


def group_of(config: BenchmarkConfig) -> Group:
    """The group that a benchmark counts in: the study's word, or else its task's."""
    return config.group or get_task(config.task).group


def load_items(config: BenchmarkConfig, data_root: str) -> list[Item]:
    """The items of a benchmark, cut to `config.limit`; UsageError when there are none or ids repeat."""
    items = get_task(config.task).load(config, data_root)
    if not items:
        raise UsageError(f"benchmark {config.name}: holds no items")
    if len({item.id for item in items}) != len(items):
        raise UsageError(f"benchmark {config.name}: item ids repeat")
    return subset(items, config.limit)


def subset(items: Sequence[Item], limit: int) -> list[Item]:
    """A fixed choice of `limit` items by a hash of their ids, in order; a smaller one lies in a larger."""
    if limit <= 0 or limit >= len(items):
        return list(items)
    ranked = sorted(items, key=lambda item: hashlib.sha256(item.id.encode()).digest())
    kept = {item.id for item in ranked[:limit]}
    return [item for item in items if item.id in kept]


def user(content: str) -> tuple[dict[str, str], ...]:
    """A conversation of one user turn."""
    return ({"role": "user", "content": content},)


def source_file(config: BenchmarkConfig, data_root: str, default: str, remedy: str) -> epath.Path:
    """The file of items: `config.path`, or `default`, under `data_root`; UsageError says where it looked."""
    name = config.path or default
    path = epath.Path(data_root) / name if data_root else epath.Path(name)
    if not path.exists():
        raise UsageError(
            f"benchmark {config.name}: no file {path} (path {name!r} under data_root {data_root!r}); {remedy}"
        )
    return path


def column(row: Mapping[str, Any], name: str, where: str) -> Any:
    """A field of a row; UsageError naming file, row and what is there instead."""
    if name not in row:
        raise UsageError(f"{where}: no field {name!r}; found {', '.join(map(str, row)) or 'none'}")
    return row[name]
