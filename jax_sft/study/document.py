"""Dataclasses of a study in and out of JSON, checked strictly, and what changed between two of them."""

import dataclasses
import difflib
import functools
import json
from types import GenericAlias
from typing import Any, TypeVar

from jax_sft import config
from jax_sft.config import Run, Sampling, Study
from jax_sft.errors import UsageError

T = TypeVar("T")
_ABSENT = "(absent)"


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(value)))


def from_json(kind: type[T], value: Any, where: str, forbid: bool = False, remedy: str = "") -> T:
    """The dataclass that `to_json` wrote; UsageError naming a missing, mistyped or (`forbid`) unknown field.

    `where` opens the message, `remedy` ends it.
    """
    import pydantic

    try:
        text = json.dumps([value])
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from None
    try:
        return _adapter(GenericAlias(list, (kind,)), forbid).validate_json(text, strict=True)[0]
    except pydantic.ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        end = f"; {remedy}" if remedy else ""
        raise UsageError(f"{where}: {_describe(problems[0], value)}{more}{end}") from None


def study_to_json(study: Study) -> dict[str, Any]:
    """The study as plain JSON values."""
    return to_json(study)


def run_to_json(run: Run) -> dict[str, Any]:
    """The run as plain JSON values."""
    return to_json(run)


def study_from_json(value: Any, where: str = "study") -> Study:
    """The study `study_to_json` wrote; UsageError naming an unknown, missing or mistyped field."""
    if isinstance(value, dict) and isinstance(value.get("benchmarks"), list):
        value = value | {"benchmarks": [_renamed(benchmark) for benchmark in value["benchmarks"]]}
    if isinstance(value, dict) and isinstance(value.get("evaluation"), dict):
        # Before there was this setting, what repeated itself went on to its limit.
        value = value | {"evaluation": {"loop_tokens": 0} | value["evaluation"]}
    return from_json(Study, value, where, forbid=True)


def run_from_json(value: Any, where: str = "run") -> Run:
    """The run `run_to_json` wrote; UsageError naming an unknown, missing or mistyped field."""
    return from_json(Run, value, where, forbid=True)


def _renamed(benchmark: Any) -> Any:
    """A benchmark in today's words: older studies say `kind` for its task, and hold the sampling flat."""
    if not isinstance(benchmark, dict) or "kind" not in benchmark:
        return benchmark
    settings = [one.name for one in dataclasses.fields(Sampling)]
    rest = {name: value for name, value in benchmark.items() if name not in (*settings, "kind")}
    flat = {name: benchmark[name] for name in settings if name in benchmark}
    return {**rest, "task": benchmark["kind"], "sampling": flat}


def differences(old: Any, new: Any) -> list[str]:
    """What changed between two JSON values, as `dotted.field: old -> new`, in the order of the fields.

    Elements of a list are matched by their `name` where all have one, otherwise by position.
    """
    return [f"{path}: {before} -> {after}" for path, before, after in _walk("", old, new)]


def suggestion(name: str, known: list[str]) -> str:
    """`; did you mean …?` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    nearness = [difflib.SequenceMatcher(a=each, b=name).ratio() for each in close]
    close = [each for each, near in zip(close, nearness, strict=True) if near > 0.8 * nearness[0]]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _walk(path: str, old: Any, new: Any) -> list[tuple[str, str, str]]:
    olds, news = _children(old), _children(new)
    if olds is None or news is None or isinstance(old, dict) != isinstance(new, dict):
        return [] if old == new else [(path or "value", _short(old), _short(new))]
    changed = []
    for key in [*olds, *(key for key in news if key not in olds)]:
        inner = f"{path}.{key}" if path else str(key)
        if key not in news:
            changed.append((inner, _short(olds[key]), _ABSENT))
        elif key not in olds:
            changed.append((inner, _ABSENT, _short(news[key])))
        else:
            changed += _walk(inner, olds[key], news[key])
    return changed


def _children(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple):
        names = [element.get("name") if isinstance(element, dict) else None for element in value]
        unique = all(names) and len(set(names)) == len(names)
        return dict(zip(names if unique else range(len(value)), value, strict=True))
    return None


def _short(value: Any) -> str:
    if isinstance(value, dict) and value.get("name"):
        return str(value["name"])
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


@functools.cache
def _adapter(kind: Any, forbid: bool) -> Any:
    """A pydantic validator of [document]; made on first use, because that takes half a second.

    The list is there because pydantic takes a configuration for it, but not for a dataclass.
    """
    import pydantic

    strict = pydantic.ConfigDict(extra="forbid" if forbid else "ignore")
    return pydantic.TypeAdapter(kind, config=strict)


def _describe(problem: Any, document: Any) -> str:
    """One pydantic problem as `runs.cot.optimizer.lr: unknown field`."""
    path, value = [], document
    for key in problem["loc"][1:]:
        if isinstance(key, int) and isinstance(value, list):
            value = value[key]
            name = value.get("name") if isinstance(value, dict) else None
            path.append(name if isinstance(name, str) else str(key))
        elif isinstance(value, dict) and (key in value or problem["type"] == "missing"):
            value = value.get(key)
            path.append(str(key))
    field = ".".join(path) or "document"
    if problem["type"] == "unexpected_keyword_argument":
        return f"{field}: unknown field{suggestion(path[-1], _all_fields())}"
    if problem["type"] == "missing":
        return f"{field}: missing"
    message = problem["msg"].removeprefix("Input should be ")
    return f"{field}: expected {message}, found {_short(problem['input'])}"


def _all_fields() -> list[str]:
    classes = [value for value in vars(config).values() if dataclasses.is_dataclass(value)]
    return sorted({field.name for kind in classes for field in dataclasses.fields(kind)})
