"""Completions of one unit on disk: small parts while it runs, one sorted file when it is whole.

A part is written atomically, so that a sweep killed at any moment has lost only what it had not yet
written, and nothing is ever there twice. What is damaged or unknown among the parts is drawn again.
"""

import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from jax_sft.errors import UsageError
from jax_sft.files import read_json, write_json
from jax_sft.study.folder import completions_file, parts_folder, sampling_file
from jax_sft.study.records import CompletionLine, Key, read_completions, write_completions

FLUSH_COUNT = 64
FLUSH_SECONDS = 10.0


class CompletionsFile:
    """The completions of one unit (run, step, benchmark).

    The folder holds one file of completions once the unit is whole, parts of it until then, and the settings
    with which they were drawn.
    """

    def __init__(self, folder: epath.Path, expected: list[Key], settings: dict[str, Any]) -> None:
        """Read what is there of the `expected` completions, which are in the order of the final file.

        UsageError when what is there was drawn with other settings, or is not among the expected.
        """
        self.path, self._parts = completions_file(folder), parts_folder(folder)
        self._expected, self._wanted = expected, set(expected)
        self._lines: dict[Key, CompletionLine] = {}
        self._waiting: list[CompletionLine] = []
        self._flushed = time.monotonic()
        self._number = 0
        self._settings, self._settings_path = settings, sampling_file(folder)
        check_settings(folder, settings)
        if self.path.exists():
            self._read_whole()
        if self._parts.exists():
            self._read_parts()
            if not self.missing():
                self._finish()

    def missing(self) -> list[Key]:
        """Completions still to draw, in order."""
        return [key for key in self._expected if key not in self._lines]

    def add(self, line: CompletionLine) -> None:
        """Keep one completion; written to disk soon, and into the final file with the last one."""
        self._lines[line.key] = line
        self._waiting.append(line)
        if len(self._lines) == len(self._expected):
            self._finish()
        elif len(self._waiting) >= FLUSH_COUNT or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits as one more part."""
        if self._waiting:
            self._write(self._parts / f"{self._number:05d}.jsonl", self._waiting)
            self._number += 1
        self._waiting = []
        self._flushed = time.monotonic()

    def _finish(self) -> None:
        self._write(self.path, [self._lines[key] for key in self._expected])
        self._waiting = []
        if self._parts.exists():
            self._parts.rmtree()

    def _write(self, path: epath.Path, lines: list[CompletionLine]) -> None:
        if not self._settings_path.exists():
            write_json(self._settings_path, self._settings)
        write_completions(path, lines)

    def _read_whole(self) -> None:
        """Lines of the final file; some are missing when the benchmark asks for more samples than it did."""
        for line in read_completions(self.path):
            if not self._keep(line):
                raise UsageError(
                    f"{self.path}: holds item {line.item!r} sample {line.sample!r}, which the "
                    "benchmark does not ask for now; restore it, give it another name, or remove the file"
                )

    def _read_parts(self) -> None:
        numbers = sorted(int(part.stem) for part in self._parts.glob("*.jsonl") if part.stem.isdecimal())
        self._number = max(numbers, default=-1) + 1
        for number in numbers:
            for line in _readable(self._parts / f"{number:05d}.jsonl"):
                self._keep(line)

    def _keep(self, line: CompletionLine) -> bool:
        """Whether the line is one of the expected; it is kept then."""
        if line.key not in self._wanted:
            return False
        self._lines[line.key] = line
        return True


def check_settings(folder: epath.Path, settings: dict[str, Any]) -> bool:
    """Whether the unit's folder holds something drawn; UsageError when that was with other settings."""
    path = sampling_file(folder)
    if not path.exists():
        return False
    stored = read_json(path)
    for name, value in settings.items():
        if stored.get(name) != value:
            raise UsageError(
                f"{folder}: was drawn with {name} {stored.get(name)}, now it is {value}; "
                "restore it, give the benchmark another name, or remove what was drawn of it"
            )
    return True


def _readable(part: epath.Path) -> Iterator[CompletionLine]:
    """The lines of a part up to where it is damaged, if it is."""
    try:
        yield from read_completions(part)
    except (UsageError, UnicodeDecodeError):
        return
