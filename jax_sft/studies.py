"""Studies in and out of files: Python files in, JSON in and out, and what changed between two of them."""

import dataclasses
import difflib
import functools
import json
import re
import sys
import traceback
import types
from typing import Any, TypeVar

from etils import epath

from jax_sft import config
from jax_sft.checks import validate
from jax_sft.config import Run, Study, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import absolute, read_json

__all__ = [
    "differences",
    "load_study",
    "run_from_json",
    "run_to_json",
    "study_from_json",
    "study_to_json",
    "validate",
]

Document = TypeVar("Document", Run, Study)
_UNKNOWN_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")


def load_study(path: epath.PathLike) -> Study:
    """The validated study of a Python file with a function `study()`, a study.json, a run.json or a folder.

    A study read from what an earlier command wrote has as its root the place where it lies now, so a moved
    or copied folder works. A run.json becomes a study of that run and of the runs it starts from. UsageError
    naming file, and line or field, when something is wrong.
    """
    place = absolute(path)  # `.` and `..` name no study
    if place.is_dir():
        place = place / "study.json"
    if not place.exists():
        raise UsageError(f"{path}: no such study{_neighbours(place)}")
    if place.name == "run.json":
        study = _study_of_run(place)
    elif place.suffix == ".json":
        document = _expect_object(read_json(place), place)
        study = study_from_json(document.get("study"), where=str(place))
        if place.parent.name == study.name:
            study = replace(study, root=str(place.parent.parent))
    elif place.suffix == ".py":
        study = _execute(place)
    else:
        raise UsageError(f"{path}: a study is a Python file, a study.json, a run.json or a study's folder")
    return validate(study, where=str(path))


def study_to_json(study: Study) -> dict[str, Any]:
    """The study as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(study)))


def run_to_json(run: Run) -> dict[str, Any]:
    """The run as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(run)))


def study_from_json(value: Any, where: str = "study") -> Study:
    """The study `study_to_json` wrote; UsageError naming an unknown, missing or mistyped field."""
    return _from_json(Study, value, where)


def run_from_json(value: Any, where: str = "run") -> Run:
    """The run `run_to_json` wrote; UsageError naming an unknown, missing or mistyped field."""
    return _from_json(Run, value, where)


def differences(old: Any, new: Any) -> list[str]:
    """What changed between two JSON values, as `dotted.field: old -> new`, in the order of the fields.

    Elements of a list are matched by their `name` where all have one, otherwise by position.
    """
    return [f"{path}: {before} -> {after}" for path, before, after in _walk("", old, new)]


_ABSENT = "(absent)"


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
def _adapters() -> dict[type[Any], Any]:
    """A pydantic validator of [document] for each kind; made on first use, because that takes half a second.

    The list is there because pydantic takes a configuration for it, but not for a dataclass.
    """
    import pydantic

    strict = pydantic.ConfigDict(extra="forbid")
    return {
        Run: pydantic.TypeAdapter(list[Run], config=strict),
        Study: pydantic.TypeAdapter(list[Study], config=strict),
    }


def _from_json(kind: type[Document], value: Any, where: str) -> Document:
    import pydantic

    try:
        text = json.dumps([value])
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from None
    try:
        return _adapters()[kind].validate_json(text, strict=True)[0]
    except pydantic.ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UsageError(f"{where}: {_describe(problems[0], value)}{more}") from None


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
        return f"{field}: unknown field{_suggest(path[-1], _all_fields())}"
    if problem["type"] == "missing":
        return f"{field}: missing"
    message = problem["msg"].removeprefix("Input should be ")
    return f"{field}: expected {message}, found {_short(problem['input'])}"


def _all_fields() -> list[str]:
    classes = [value for value in vars(config).values() if dataclasses.is_dataclass(value)]
    return sorted({field.name for kind in classes for field in dataclasses.fields(kind)})


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    nearness = [difflib.SequenceMatcher(a=each, b=name).ratio() for each in close]
    close = [each for each, near in zip(close, nearness, strict=True) if near > 0.8 * nearness[0]]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _neighbours(place: epath.Path) -> str:
    try:
        names = sorted(file.name for file in place.parent.iterdir() if file.suffix == ".py")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return f"; {place.parent} holds {', '.join(names)}" if names else ""


def _expect_object(value: Any, place: epath.Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{place}: expected an object, found {type(value).__name__}")
    return value


def _study_of_run(place: epath.Path) -> Study:
    """The study a run.json belongs to, reduced to that run and the runs it starts from."""
    document = _expect_object(read_json(place), place)
    run = run_from_json(document.get("run"), where=str(place))
    folder = place.parent.parent
    runs = [run]
    while runs[0].init.startswith("run:"):
        name = runs[0].init.removeprefix("run:").partition("@")[0]
        if any(known.name == name for known in runs):
            raise UsageError(f"{place}: runs start from one another in a circle ({name})")
        source = folder / name / "run.json"
        runs.insert(0, run_from_json(_expect_object(read_json(source), source).get("run"), where=str(source)))
    return Study(
        name=folder.name,
        runs=tuple(runs),
        root=str(folder.parent),
        data_root=str(document.get("data_root", "")),
    )


def _execute(place: epath.Path) -> Study:
    """Run a study file; its mistakes become UsageErrors with file and line."""
    module = types.ModuleType(f"study_{place.stem}")
    module.__file__ = str(place)
    sys.modules[module.__name__] = module
    try:
        exec(compile(place.read_text(), str(place), "exec"), vars(module))
        made = module.study() if callable(getattr(module, "study", None)) else None
    except JaxSftError:
        raise
    except SyntaxError as error:
        raise UsageError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(place)]
        where = f"{place}, line {lines[-1]}" if lines else str(place)
        raise UsageError(f"{where}: {_explain(error)}") from error
    if not isinstance(made, Study):
        raise UsageError(f"{place}: needs a function study() that returns a Study")
    try:
        return study_from_json(study_to_json(made), where=str(place))
    except TypeError as error:
        raise UsageError(f"{place}: {error}; a field holds numbers, text or another config class") from error


def _explain(error: Exception) -> str:
    if match := _UNKNOWN_ARGUMENT.search(str(error)):
        kind = getattr(config, match[1], None)
        if dataclasses.is_dataclass(kind):
            names = [field.name for field in dataclasses.fields(kind)]
            return f"{match[1]} has no field {match[2]}{_suggest(match[2], names)}"
    return f"{type(error).__name__}: {error}"
