"""Every field of a run and of the evaluation as a flag of the command line, through tyro."""

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, get_args, get_origin

import tyro

from jax_sft.config import EvaluationConfig, Run
from jax_sft.errors import UsageError
from jax_sft.options import truth

T = TypeVar("T")
_RULE = re.compile(r"^\s*[-─]{8,}\s*$")


@dataclass(frozen=True)
class _EvaluationFlags:
    """Gives the evaluation's flags their prefix: `--evaluation.slots`."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def parse_run_flags(run: Run, args: Sequence[str], also: Sequence[str] = ()) -> Run:
    """The run with flags such as `--optimizer.learning-rate 1e-4` applied; its own values are the defaults.

    `also` names flags that others read, offered when one is misspelt. UsageError naming the flag.
    """
    return parse_flags(Run, args, default=run, also=also)


def parse_evaluation_flags(
    evaluation: EvaluationConfig, args: Sequence[str], also: Sequence[str] = ()
) -> EvaluationConfig:
    """The evaluation with flags such as `--evaluation.slots 8` applied. UsageError naming the flag."""
    return parse_flags(_EvaluationFlags, args, default=_EvaluationFlags(evaluation), also=also).evaluation


def parse_flags(kind: type[T], args: Sequence[str], default: T | None = None, also: Sequence[str] = ()) -> T:
    """`kind` filled from flags; UsageError with tyro's complaint in one line, and close matches."""
    return _parse(kind, args, default, also, return_unknown_args=False)


def parse_known_flags(kind: type[T], args: Sequence[str]) -> tuple[T, list[str]]:
    """`kind` filled from the flags it knows, and the arguments left over."""
    return _parse(kind, args, None, (), return_unknown_args=True)


def print_help(kind: type[Any], default: Any, prog: str, description: str) -> None:
    """Print what `kind`'s flags mean, with the values of `default`."""
    with contextlib.suppress(SystemExit):
        tyro.cli(kind, args=["--help"], default=default, prog=prog, description=description)


def flag_names(kind: type[Any], prefix: str = "--") -> list[str]:
    """Every flag of a dataclass and of the dataclasses in it."""
    names: list[str] = []
    for each in dataclasses.fields(kind):
        flag = prefix + each.name.replace("_", "-")
        if isinstance(each.type, type) and dataclasses.is_dataclass(each.type):
            names += flag_names(each.type, f"{flag}.")
        else:
            names.append(flag)
    return names


def _parse(
    kind: type[Any], args: Sequence[str], default: Any, also: Sequence[str], return_unknown_args: bool
) -> Any:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            args = _spelt_out(_switches(kind, default), args)
            if default is not None:
                default, args = _read_pairs(kind, args, default)
            options: dict[str, Any] = {"return_unknown_args": return_unknown_args}
            return tyro.cli(kind, args=list(args), default=default, add_help=False, **options)
    except SystemExit:
        complaint = _one_line(said.getvalue())
    if complaint.startswith("Unrecognized options: "):
        complaint = _unknown(complaint.partition(": ")[2].split(", "), [*flag_names(kind), *also])
    raise UsageError(complaint)


def _spelt_out(flags: Mapping[str, str], args: Sequence[str]) -> list[str]:
    """The arguments with `--data.shuffle no` and `--data.shuffle=no` as `--data.no-shuffle`.

    `flags` holds those that switch something on, each with the one that switches it off ("" for none).
    """
    split: list[str] = []
    for arg in args:
        flag, equals, value = arg.partition("=")
        switch = equals and flag.replace("_", "-") in flags
        split += [flag, value] if switch else [arg]
    result: list[str] = []
    for arg in split:
        before = result[-1].replace("_", "-") if result else ""
        said = truth(arg) if before in flags else None
        if said is None:
            result.append(arg)
        elif not said:
            result[-1:] = [flags[before]] if flags[before] else []
    return result


def _switches(kind: type[Any], default: Any, prefix: str = "--") -> dict[str, str]:
    """Every flag that is on or off, those of a dict's entries too, with the flag that switches it off."""
    found: dict[str, str] = {}
    for each in dataclasses.fields(kind):
        flag, value = prefix + each.name.replace("_", "-"), getattr(default, each.name, None)
        if isinstance(each.type, type) and dataclasses.is_dataclass(each.type):
            found |= _switches(each.type, value, f"{flag}.")
        elif each.type is bool:
            found[flag] = f"{prefix}no-{flag.removeprefix(prefix)}"
        elif get_origin(each.type) is Annotated and get_args(each.type)[0] is bool:
            found[flag] = ""
        elif isinstance(value, dict):
            on_or_off = [name.replace("_", "-") for name, entry in value.items() if isinstance(entry, bool)]
            found |= {f"{flag}.{name}": f"{flag}.no-{name}" for name in on_or_off}
    return found


def _read_pairs(kind: type[Any], args: Sequence[str], default: Any) -> tuple[Any, Sequence[str]]:
    """The default with pairs such as `--data.options depth 3` in its dicts, and the arguments left over.

    tyro reads pairs into an empty dict only; one with entries gets a flag for each of them instead.
    """
    bare = _map_dicts(lambda _: {}, default)
    if bare == default:
        return default, args
    parsed, rest = tyro.cli(kind, args=list(args), default=bare, add_help=False, return_unknown_args=True)
    return _map_dicts(lambda new, old: old | new, parsed, default), rest


def _map_dicts(change: Callable[..., dict[str, Any]], first: Any, *others: Any) -> Any:
    """`first` with each dict in it changed, given the dicts at the same place of the others too."""
    changed = {}
    for each in dataclasses.fields(first):
        inner = [getattr(value, each.name) for value in (first, *others)]
        if isinstance(inner[0], dict):
            changed[each.name] = change(*inner)
        elif dataclasses.is_dataclass(inner[0]):
            changed[each.name] = _map_dicts(change, *inner)
    return dataclasses.replace(first, **changed)


def _one_line(text: str) -> str:
    """What tyro's framed message says between its first two rules."""
    body: list[str] = []
    rules = 0
    for line in re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯]", "", text).splitlines():
        if _RULE.match(line):
            rules += 1
        elif rules == 1 and line.strip():
            body.append(line.strip())
    return re.sub(r"^Error parsing ", "", " ".join(body))


def _unknown(arguments: list[str], known: list[str]) -> str:
    """`--optimizer.lr 1` as a message with the closest flags; a stray word says where it stands."""
    flag = next((argument for argument in arguments if argument.startswith("-")), None)
    if flag is None:
        return f"unexpected argument {arguments[0]!r}; see --help"
    flag = flag.partition("=")[0].replace("_", "-")
    close = difflib.get_close_matches(flag, known, n=2, cutoff=0.5)
    word = flag.lstrip("-").rpartition(".")[2]
    same_word = [name for name in known if name.lstrip("-").rpartition(".")[2] in (word, f"no-{word}")]
    initials = [name for name in known if _initials(name) == word]
    choices = [name for name in dict.fromkeys([*same_word, *initials, *close]) if name != flag][:2]
    return f"unknown flag {flag}; " + (f"did you mean {' or '.join(choices)}?" if choices else "see --help")


def _initials(flag: str) -> str:
    """`lr` for `--optimizer.learning-rate`."""
    return "".join(part[:1] for part in flag.lstrip("-").rpartition(".")[2].split("-"))
