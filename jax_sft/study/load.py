"""Studies out of Python files, and out of the folders that earlier commands wrote."""

import dataclasses
import importlib
import re
import sys
import traceback
import types
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from jax_sft import config
from jax_sft.config import Sampling, Study, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.files import absolute, read_json
from jax_sft.study.check import validate
from jax_sft.study.document import study_from_json, study_to_json, suggestion
from jax_sft.study.folder import RUN_FILE, STUDY_FILE, run_file
from jax_sft.study.records import RunRecord
from jax_sft.study.starts import parse_init

_UNKNOWN_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")


def load_study(path: epath.PathLike) -> Study:
    """The validated study of a Python file with a function `study()`, of a study's folder, or of a record.

    A study read from what an earlier command wrote has as its root the place where it lies now, so a moved
    or copied folder works. A run's record becomes a study of that run and of the runs it starts from.
    UsageError naming file, and line or field, when something is wrong.
    """
    place = absolute(path)  # `.` and `..` name no study
    if place.is_dir():
        place = place / STUDY_FILE
    if not place.exists():
        raise UsageError(f"{path}: no such study{_neighbours(place)}")
    if place.name == RUN_FILE:
        study = _study_of_run(place)
    elif place.suffix == ".json":
        study = _study_in(place)
    elif place.suffix == ".py":
        study = _execute(place)
    else:
        raise UsageError(
            f"{path}: a study is a Python file, a {STUDY_FILE}, a {RUN_FILE} or a study's folder"
        )
    return validate(study, where=str(path))


def _study_in(place: epath.Path) -> Study:
    document = read_json(place)
    if not isinstance(document, dict):
        raise UsageError(f"{place}: expected an object, found {type(document).__name__}")
    study = study_from_json(document.get("study"), where=str(place))
    return replace(study, root=str(place.parent.parent)) if place.parent.name == study.name else study


def _neighbours(place: epath.Path) -> str:
    try:
        names = sorted(file.name for file in place.parent.iterdir() if file.suffix == ".py")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return f"; {place.parent} holds {', '.join(names)}" if names else ""


def _study_of_run(place: epath.Path) -> Study:
    """The study a run's record belongs to, reduced to that run and the runs it starts from."""
    record = _record(place.parent)
    folder, runs = place.parent.parent, [record.run]
    while parent := parse_init(runs[0].init):
        if any(known.name == parent.run for known in runs):
            raise UsageError(f"{place}: runs start from one another in a circle ({parent.run})")
        runs.insert(0, _record(folder / parent.run).run)
    return Study(name=folder.name, runs=tuple(runs), root=str(folder.parent), data_root=record.data_root)


def _record(folder: epath.Path) -> RunRecord:
    record = RunRecord.read(folder)
    if record is None:
        raise UsageError(f"{run_file(folder)}: no such file")
    return record


def _execute(place: epath.Path) -> Study:
    """Run a study file; its mistakes become UsageErrors with file and line."""
    module = types.ModuleType(f"study_{place.stem}")
    module.__file__ = str(place)
    try:
        with _neighbours_importable(place.parent):
            sys.modules[module.__name__] = module
            exec(compile(place.read_text(), str(place), "exec"), vars(module))
            made = module.study() if callable(getattr(module, "study", None)) else None
    except JaxSftError:
        raise
    except SyntaxError as error:
        raise UsageError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
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


@contextmanager
def _neighbours_importable(folder: epath.Path) -> Iterator[None]:
    """Let a study import the files beside it, as a script does; none of them is left to the next study."""
    before, path, writes = set(sys.modules), sys.path[:], sys.dont_write_bytecode
    sys.path[:0] = [str(folder)]
    sys.dont_write_bytecode = True  # a folder of studies holds what its owner put there
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, writes
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and epath.Path(file).is_relative_to(folder):
                del sys.modules[name]


def _explain(error: BaseException) -> str:
    if match := _UNKNOWN_ARGUMENT.search(str(error)):
        kind = getattr(config, match[1], None)
        if dataclasses.is_dataclass(kind):
            names = [field.name for field in dataclasses.fields(kind)]
            return f"{match[1]} has no field {match[2]}{_hint(match[2], names)}"
    return f"{type(error).__name__}: {error}"


def _hint(name: str, known: list[str]) -> str:
    """Where a field has gone, or which one may have been meant."""
    if name in (field.name for field in dataclasses.fields(Sampling)):
        return f"; write sampling=Sampling({name}=…)"
    return "; its name is task" if name == "kind" else suggestion(name, known)
