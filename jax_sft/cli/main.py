"""The command line: finds the verb, prints help, and turns failures into a line and an exit code."""

import dataclasses
import difflib
import errno
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from jax_sft.cli.parse import print_help
from jax_sft.cli.verbs import VERBS, Verb
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.machine import limit_arenas, use_cpu_without_accelerators
from jax_sft.study.load import load_study

_REMEDIES = {
    errno.ENOSPC: "; make room and give the same command again",
    errno.EDQUOT: "; make room and give the same command again",
    errno.EACCES: "; name a place that you may use",
    errno.EROFS: "; name a place that can be written",
}
_TRACEBACKS = ("absl", "asyncio", "gcsfs")
"""Loggers that write the traceback of errors that are raised as well, or tried again."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."""
    args = list(sys.argv[1:] if argv is None else argv)
    show = "--traceback" in args
    use_cpu_without_accelerators()
    limit_arenas()
    if not show:
        for name in _TRACEBACKS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return _dispatch([arg for arg in args if arg != "--traceback"])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if show:
            traceback.print_exc()
        print("error: " + " ".join(_told(error).split()), file=sys.stderr)
        return error.exit_code if isinstance(error, JaxSftError) else 1


def _told(error: Exception) -> str:
    """What a person is told of an error: its own words, or for one that nobody foresaw how to find it."""
    if isinstance(error, JaxSftError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return place + error.strerror.lower() + _REMEDIES.get(error.errno or 0, "")
    if isinstance(error, OSError) and str(error):  # a library's, in its own words
        return str(error)
    return f"{type(error).__name__}: {error}; run again with --traceback to see where"


def _dispatch(args: list[str]) -> int:
    group, verb_args = ("data ", args[1:]) if args[:1] == ["data"] else ("", args)
    if not verb_args or verb_args[0] in ("-h", "--help"):
        print(_overview(group))
        return 0 if verb_args else 2
    args = [group + verb_args[0], *verb_args[1:]]
    verb = VERBS.get(args[0])
    if verb is None:
        close = difflib.get_close_matches(args[0], VERBS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose {', '.join(VERBS)}"
        raise UsageError(f"unknown command {args[0]!r}; {hint}")
    if "-h" in args or "--help" in args:
        print_help(
            verb.flags, _help_defaults(verb, args[1:]), verb.usage, inspect.cleandoc(verb.do.__doc__ or "")
        )
        return 0
    words, rest = args[1 : 1 + len(verb.words)], args[1 + len(verb.words) :]
    if len(words) < len(verb.words) or any(word.startswith("-") for word in words):
        raise UsageError(f"write {verb.usage}, then the flags; see jax-sft {args[0]} --help")
    verb.do(words, rest)
    return 0


def _overview(group: str = "") -> str:
    """What there is to type; `data ` as the group leaves the verbs of `jax-sft data`."""
    whole = "Studies of reasoning fine-tuning: plan, train, sweep, report."
    lines = ["Sets of rows: build, verify, describe, prepare." if group else whole, "", "usage:"]
    for verb in [verb for name, verb in VERBS.items() if name.startswith(group)]:
        summary = (verb.do.__doc__ or "").splitlines()[0].rstrip(".")
        lines.append(f"  {verb.usage:<43}{summary}")
    lines += [
        "",
        "STUDY is a Python file in configs/, or the folder of a study made before.",
        f"Flags come last; `jax-sft {group}VERB --help` lists them, "
        f"`jax-sft {group}VERB STUDY --help` with its values.",
        "--traceback shows where an error arose. Exit code: 0 done, 1 failed, 2 wrong usage or input.",
    ]
    return "\n".join(lines)


def _help_defaults(verb: Verb, args: list[str]) -> Any:
    """The values help shows: those of the study's first run when a study is named, else the built-in ones."""
    if verb.words != ("STUDY",) or args[0].startswith("-"):
        return verb.flags()
    study = load_study(args[0])
    known = {field.name for field in dataclasses.fields(verb.flags)}
    values = {"run": study.runs[0], "evaluation": study.evaluation}
    return verb.flags(**{name: value for name, value in values.items() if name in known})
