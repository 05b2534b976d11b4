"""What a command shows while it works: lines on standard error, and a bar where there is a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN: dict[str, Any] = {"soft_wrap": True, "markup": False, "highlight": False, "emoji": False}
"""Text comes out as it is: paths and answers hold brackets and colons of their own."""


def messages(quiet: bool = False) -> Console:
    """The console for what is said beside a command's results: plain lines on standard error."""
    return Console(stderr=True, quiet=quiet, **_PLAIN)


def results(width: int | None = None) -> Console:
    """The console for a command's results: plain lines on standard output, tables as wide as `width` says."""
    return Console(width=width, **_PLAIN)


def bar(console: Console, title: str, columns: str) -> Progress:
    """A bar with its title, how many of how many, `columns` (text with fields) and the time left.

    It shows nothing where there is no terminal: what is told there is a line, by whoever knows what it says.
    """
    return Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(columns),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_of_completions(console: Console, name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over completions with tokens per second; one line at the end where there is no terminal.

    What it gives is called with the tokens of each completion.
    """
    progress = bar(console, "[bold]{task.description}", "{task.fields[rate]} tokens/s")
    task = progress.add_task(name, total=total, rate="-")
    start, tokens, done = time.perf_counter(), 0, 0

    def advance(token_count: int) -> None:
        nonlocal tokens, done
        tokens, done = tokens + token_count, done + 1
        rate = tokens / (time.perf_counter() - start)
        progress.update(task, advance=1, rate=f"{rate:,.0f}")

    with progress:
        yield advance
    if not console.is_terminal:
        seconds = time.perf_counter() - start
        console.print(f"{name}: {done} completions, {tokens / seconds:,.0f} tokens/s, {seconds:.1f} s")
