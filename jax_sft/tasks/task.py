"""What a task is: items to ask, how they are asked, and a verdict on each completion."""

import hashlib
import importlib.util
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from etils import epath

import jax_sft.tasks
from jax_sft.config import BenchmarkConfig, Group, Option, Study
from jax_sft.errors import UsageError
from jax_sft.files import under
from jax_sft.judges.chosen import judge_rules, judges_of
from jax_sft.judges.page import Question
from jax_sft.options import fitting
from jax_sft.responses.answers import Answer
from jax_sft.statistics.intervals import Estimate
from jax_sft.study.document import suggestion
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.protocols import check_protocol


class Task(ABC):
    """A kind of question. Stateless: everything about one item is in its reference."""

    group: ClassVar[Group]
    """What it measures; a study may count it elsewhere."""
    version: ClassVar[int] = 1
    """Raised when its verdicts change: scores that it gave before are then given anew."""

    headline: ClassVar[str] = "accuracy"
    """The metric that stands for the task."""
    higher_is_better: ClassVar[bool] = True
    shares: ClassVar[bool] = True
    """Its metrics lie between 0 and 1 by their nature, and are shown as percentages."""
    ask: ClassVar[Literal["generate", "likelihood", "pairwise"]] = "generate"
    """How it is asked: for a completion, for the likelihood of given ones, or which of two is better."""
    isolated: ClassVar[bool] = False
    """Judged in separate processes within limits, because the judge may hang or crash."""
    public_items: ClassVar[int] = 0
    """Items of the public set, for the plan of a study that does not have them at hand; 0: not known."""
    runs_code: ClassVar[bool] = False
    """Judged by running what the model wrote, in the sandbox."""
    judged_by_model: ClassVar[bool] = False
    """No rules judge it: its benchmarks name judges that are models."""
    verdict_seconds: ClassVar[float | None] = None
    """Most time for a verdict of an isolated task; None is the study's `scorer_seconds`."""
    defaults: ClassVar[Mapping[str, Option]] = {}
    """Options and their defaults; others are refused, unless `free_options`."""
    free_options: ClassVar[bool] = False

    @abstractmethod
    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The items, in a fixed order and with unique ids; UsageError for a bad option or a missing file."""

    @abstractmethod
    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """Judge one completion; `finish` is `stop`, `length` or `loop`."""

    def question(self, item: Item, response: str) -> Question:
        """What a judge that is a model is told of a completion, or of a part of it."""
        return Question(item.messages[-1]["content"], response)

    def weight(self, item: Item, metric: str) -> float:
        """How much an item counts in the mean of a metric."""
        return 1.0

    def derived(self, metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
        """Metrics that follow from the means of others."""
        return {}

    def check(self, reference: Mapping[str, Any], where: str) -> None:
        """UsageError, opened by `where`, for a reference by which no completion can be judged."""
        return

    def warm(self) -> None:
        """Import what takes long, once in every process that judges, before time is counted."""
        return

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


RULES_VERSION = 4
"""Raised when what `responses` reads changes for any task."""
T = TypeVar("T", bound=type[Task])
_CLASSES: dict[str, type[Task]] = {}
_MARK = re.compile(r'^@register\("(\w+)"\)', re.MULTILINE)


def register(name: str) -> Callable[[T], T]:
    """Above a class of `jax_sft/tasks/`: makes it the task of that name, written out as a text in quotes."""

    def keep(kind: T) -> T:
        _CLASSES[name] = kind
        return kind

    return keep


def task_modules() -> dict[str, str]:
    """Every task's name and its module, in the order of the names.

    Found by reading the files of this package for `@register("name")`: a new task is a new file, and nothing
    is imported before it is needed. UsageError for a name given twice.
    """
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(jax_sft.tasks.__path__, "jax_sft.tasks."):
        spec = importlib.util.find_spec(module.name)
        assert spec is not None
        assert spec.origin is not None
        for name in _MARK.findall(Path(spec.origin).read_text()):
            if name in found:
                raise UsageError(f"task {name!r} is in {found[name]} and in {module.name}; rename one")
            found[name] = module.name
    return dict(sorted(found.items()))


@lru_cache(maxsize=64)
def get_task(name: str) -> Task:
    """The task of that name; UsageError listing the names. Imports only what the task needs."""
    modules = task_modules()
    if name not in modules:
        close = suggestion(name, list(modules))
        raise UsageError(f"unknown task {name!r}{close}; known: {', '.join(modules)}")
    importlib.import_module(modules[name])
    return _CLASSES[name]()


def scorer_of(config: BenchmarkConfig) -> str:
    """The rules that judge a benchmark, with the versions of the task and of what all tasks share."""
    protocol = "" if config.protocol == "standard" else f" {config.protocol}"
    return f"{config.task} {get_task(config.task).version}.{RULES_VERSION}{protocol}"


def rules_of(study: Study, config: BenchmarkConfig) -> str:
    """All that judges a benchmark: its rules, and the pages of its judges, with their versions."""
    return scorer_of(config) + judge_rules(judges_of(study, config))


def group_of(config: BenchmarkConfig) -> Group:
    """The group that a benchmark counts in: the study's word, or else its task's."""
    return config.group or get_task(config.task).group


def load_items(config: BenchmarkConfig, data_root: str) -> list[Item]:
    """The items of a benchmark, cut to `config.limit`; UsageError when there are none or ids repeat."""
    check_protocol(config)
    items = get_task(config.task).items(config, data_root)
    if not items:
        raise UsageError(f"benchmark {config.name}: holds no items")
    if len({item.id for item in items}) != len(items):
        raise UsageError(f"benchmark {config.name}: item ids repeat")
    return subset(items, config.limit, config.limit_seed)


def subset(items: Sequence[Item], limit: int, seed: int = 0) -> list[Item]:
    """A choice of `limit` items by a hash of id and seed, in order; a smaller one lies in a larger."""
    if limit <= 0 or limit >= len(items):
        return list(items)
    salt = f"{seed} " if seed else ""
    ranked = sorted(items, key=lambda item: hashlib.sha256(f"{salt}{item.id}".encode()).digest())
    kept = {item.id for item in ranked[:limit]}
    return [item for item in items if item.id in kept]


def exact(found: Answer | None, right: bool) -> Verdict:
    """The verdict of a task whose only metric is accuracy."""
    if found is None:
        return Verdict({"accuracy": 0.0}, answered=False)
    return Verdict({"accuracy": float(right)}, answered=True, answer=found.text, form=found.form)


def user(content: str) -> tuple[dict[str, str], ...]:
    """A conversation of one user turn."""
    return ({"role": "user", "content": content},)


def source_file(config: BenchmarkConfig, data_root: str, default: str, remedy: str) -> epath.Path:
    """The file of items: `config.path`, or `default`, under `data_root`; UsageError says where it looked."""
    name = config.path or default
    path = under(data_root, name)
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
