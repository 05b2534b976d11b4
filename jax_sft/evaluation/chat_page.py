"""How a conversation looks: answers as they come, one after the other, or two in columns."""

import itertools
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console

GAP = "  │  "
LEAST_WIDTH = 60
"""Columns of a terminal in which two answers find room beside each other."""


class Page(Protocol):
    """Where a conversation is written."""

    def say(self, text: str) -> None:
        """A message of the program's own."""

    @contextmanager
    def answers(self) -> Iterator[None]:
        """Around all answers to one question."""

    def answer(self, name: str) -> Callable[[str], None]:
        """Begins the answer of a speaker; what it gives is called with the text as it comes."""


class Plain:
    """One answer after the other, each below the name of its speaker where there are several."""

    def __init__(self, out: Console, notes: Console, named: bool) -> None:
        """Answers go to `out`, messages to `notes`."""
        self._out, self._notes, self._named = out, notes, named

    def say(self, text: str) -> None:
        self._notes.print(text)

    @contextmanager
    def answers(self) -> Iterator[None]:
        yield
        self._out.print("\n")

    def answer(self, name: str) -> Callable[[str], None]:
        if self._named:
            self._out.print(f"\n── {name}", style="bold")
        return self._write

    def _write(self, text: str) -> None:
        self._out.print(text, end="")
        self._out.file.flush()


class Columns:
    """Two answers beside each other: the first is awaited, then the rows come with the second."""

    def __init__(self, out: Console, notes: Console) -> None:
        """`out` is at least `LEAST_WIDTH` wide."""
        self._out, self._notes = out, notes
        self._width = (out.width - len(GAP)) // 2
        self._names: list[str] = []
        self._texts: list[str] = []
        self._printed = 0

    def say(self, text: str) -> None:
        self._notes.print(text)

    @contextmanager
    def answers(self) -> Iterator[None]:
        self._names, self._texts, self._printed = [], [], 0
        yield
        self._print(whole=True)
        self._out.print()

    def answer(self, name: str) -> Callable[[str], None]:
        self._names.append(name)
        self._texts.append("")
        if len(self._names) == 1:
            self._notes.print(f"{name} answers …", style="dim")
        else:
            self._row(*self._names)
        return self._write

    def _write(self, text: str) -> None:
        self._texts[-1] += text
        if len(self._texts) == 2:
            self._print(whole=False)

    def _print(self, whole: bool) -> None:
        """The rows that are there and were not printed; the last of the second answer may still grow."""
        left, right = (wrapped(text, self._width) for text in self._texts)
        rows = list(itertools.zip_longest(left, right, fillvalue=""))
        end = len(rows) if whole else len(right) - 1
        for row in rows[self._printed : end]:
            self._row(*row)
        self._printed = max(self._printed, end)

    def _row(self, left: str, right: str) -> None:
        self._out.print(f"{left:<{self._width}}{GAP}{right}".rstrip())


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken between words where that can be."""
    lines = []
    for line in text.split("\n"):
        lines += textwrap.wrap(line, width, replace_whitespace=False, drop_whitespace=False) or [""]
    return lines
