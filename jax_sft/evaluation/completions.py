"""Completions of one unit on disk: small parts while it runs, one sorted file when it is whole.

A part is written atomically, so that a sweep killed at any moment has lost only what it had not yet
written, and nothing is ever there twice.
"""

import time
from typing import Any

from etils import epath

from jax_sft.files import read_jsonl, write_jsonl

Key = tuple[str, int]
"""(item, sample)"""
FLUSH_COUNT = 64
FLUSH_SECONDS = 10.0


class CompletionsFile:
    """The completions of one unit (run, step, benchmark)."""

    def __init__(self, folder: epath.Path, expected: list[Key]) -> None:
        """`expected` are the completions of a whole unit, in the order of the final file."""
        self.path = folder / "completions.jsonl"
        self._parts = folder / "parts"
        self._expected = expected
        self._rows: dict[Key, dict[str, Any]] = {}
        self._waiting: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        self._number = 0
        if not self.whole and self._parts.exists():
            self._read_parts()

    @property
    def whole(self) -> bool:
        """Whether the unit's generation is finished."""
        return self.path.exists()

    def missing(self) -> list[Key]:
        """Completions still to draw, in order."""
        return [] if self.whole else [key for key in self._expected if key not in self._rows]

    def add(self, row: dict[str, Any]) -> None:
        """Keep one completion; written to disk soon, and into the final file with the last one."""
        self._rows[row["item"], row["sample"]] = row
        self._waiting.append(row)
        if len(self._rows) == len(self._expected):
            self._finish()
        elif len(self._waiting) >= FLUSH_COUNT or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits as one more part."""
        if self._waiting and not self.whole:
            write_jsonl(self._parts / f"{self._number:05d}.jsonl", self._waiting)
            self._number += 1
        self._waiting = []
        self._flushed = time.monotonic()

    def _finish(self) -> None:
        write_jsonl(self.path, [self._rows[key] for key in self._expected])
        self._waiting = []
        if self._parts.exists():
            self._parts.rmtree()

    def _read_parts(self) -> None:
        wanted = set(self._expected)
        for part in sorted(self._parts.glob("*.jsonl")):
            self._number = max(self._number, int(part.name.split(".")[0]) + 1)
            for row in read_jsonl(part):
                if (row["item"], row["sample"]) in wanted:
                    self._rows[row["item"], row["sample"]] = row
        if len(self._rows) == len(self._expected):
            self._finish()
