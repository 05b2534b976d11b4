"""Completions of one unit on disk: small parts while it runs, one sorted file when it is whole.

A part is written atomically, so that a sweep killed at any moment has lost only what it had not yet
written, and nothing counts twice. Parts bear the mark of who wrote them: two workers that draw one unit, by
mistake or because one was given up too early, do not touch each other's. Every line has a checksum: what is
damaged, or was drawn from something else than now, is named, set aside and drawn again; the rest is kept.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

from etils import epath

from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.settings import changed_setting
from jax_sft.files import list_files, move, read_json, remove_files, write_atomically
from jax_sft.study.folder import completions_file, parts_folder, sampling_file
from jax_sft.study.lines import LineFault, good_lines
from jax_sft.study.records import CompletionLine, Key, UnitRecord, short_hash

FLUSH_COUNT = 64
FLUSH_SECONDS = 10.0
_PART = re.compile(r"(\d+)(-[0-9a-f]+)?\.jsonl")
"""A part: its number and, but for versions before workers, the mark of its writer."""
_TRIES = 10
"""How often a write or a move that another worker came in the way of is tried."""
Say = Callable[[str], None]


class CompletionsFile:
    """The completions of one unit (run, step, benchmark).

    The folder holds one file of completions once the unit is whole, parts of it until then, and the record of
    what they are made from. What no longer counts lies numbered in the folder `aside`.
    """

    def __init__(
        self, folder: epath.Path, aside: epath.Path, record: UnitRecord, samples: int, say: Say
    ) -> None:
        """Keep what is there of the expected completions: `samples` of each of the record's prompts.

        `say` is told of what is set aside, and why. UsageError when it was drawn with other settings.
        """
        self.path = completions_file(folder)
        self._folder, self._parts, self._aside, self._record = folder, parts_folder(folder), aside, record
        self._expected = [(item, sample) for item in record.prompts for sample in range(samples)]
        self._wanted = set(self._expected)
        self._lines: dict[Key, CompletionLine] = {}
        self._waiting: list[CompletionLine] = []
        self._flushed = time.monotonic()
        self._number, self._recorded = 0, False
        self._mark, self._known_parts = uuid.uuid4().hex[:8], set[str]()
        check_settings(folder, record.settings)
        if self.path.exists() or self._parts.exists():
            self._take_over(say)
        if self.missing():
            self._bring_back(say)

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
            self._write_record()
            lines = [json.dumps(line.fields | {"check": _check(line)}) for line in self._waiting]
            self._write_part("".join(f"{line}\n" for line in lines))
        self._waiting = []
        self._flushed = time.monotonic()

    def _write_part(self, text: str) -> None:
        name = f"{self._number:05d}-{self._mark}.jsonl"
        for left in reversed(range(_TRIES)):
            try:
                write_atomically(self._parts / name, text)
                break
            except FileNotFoundError:  # another worker has finished and removed the folder that was empty
                if not left:
                    raise
        self._known_parts.add(name)
        self._number += 1

    def _finish(self) -> None:
        """Write the whole file, then the record that vouches for it, then let go of the parts that are in it.

        Parts that another worker writes meanwhile stay until that one is done, or the next sweep.
        """
        lines = [self._lines[key] for key in self._expected]
        write_atomically(self.path, "".join(f"{line.text}\n" for line in lines))
        replace(self._record, lines=tuple(map(_check, lines))).write(self._folder)
        self._recorded = True
        self._waiting = []
        remove_files(self._parts, self._known_parts)
        sampling_file(self._folder).unlink(missing_ok=True)

    def _write_record(self) -> None:
        if not self._recorded:
            self._record.write(self._folder)
            self._recorded = True

    def _take_over(self, say: Say) -> None:
        """Keep what is good of what is there; if not all of it is, all of it is set aside as it was."""
        try:
            stored = _stored_record(self._folder, self._record)
            problem = (
                "nothing says what it was drawn from" if stored is None else stored.differs(self._record)
            )
            problem = problem and f"{self._folder}: {problem}"
        except UsageError as error:
            stored, problem = None, str(error)
        if stored is None or problem:
            self._set_aside(say, problem, stored)
            return
        # What is kept stays what it was drawn from, also where that is not known or cannot be told now.
        self._record = replace(self._record, trained=stored.trained, snapshot=stored.snapshot)
        faults: list[LineFault] = []
        found = list(good_lines(self.path, stored, faults))
        kept = [line.key for line in found if self._keep(line, stored)]
        self._read_parts(stored, faults)
        if self.path.exists() and (faults or len(kept) < len(found)):
            lost = ", ".join(map(str, faults[:3])) + (f" and {len(faults) - 3} more" if faults[3:] else "")
            self._set_aside(say, lost or f"{self.path}: not all of it is asked for now", stored)
            self._waiting = list(self._lines.values())
            self.flush()
        elif faults:
            say(f"{faults[0]}; what is damaged is drawn again")
        elif kept != self._expected:
            self._record = replace(self._record, lines=stored.lines)
        as_it_was = kept == self._expected and self.path.exists() and bool(stored.lines)
        if not self.missing() and not (as_it_was and not self._parts.exists()):
            self._finish()

    def _read_parts(self, stored: UnitRecord, faults: list[LineFault]) -> None:
        names = sorted(list_files(self._parts))
        self._known_parts.update(names)
        for name in names:
            if match := _PART.fullmatch(name):
                self._number = max(self._number, int(match[1]) + 1)
                for line in good_lines(self._parts / name, replace(stored, lines=()), faults):
                    self._keep(line, stored)

    def _keep(self, line: CompletionLine, stored: UnitRecord) -> bool:
        """Whether the line is one of the expected, drawn for the very prompt; it is kept then."""
        asked = stored.prompts.get(line.item, "")
        if line.key not in self._wanted or asked not in ("", self._record.prompts[line.item]):
            return False
        self._lines[line.key] = line
        return True

    def _set_aside(self, say: Say, why: str, judged: UnitRecord | None) -> None:
        """Set aside what was judged by the record `judged`, unless another worker has done it meanwhile."""
        self._number, self._recorded = 0, False
        self._known_parts.clear()
        try:
            changed = _stored_record(self._folder, self._record) != judged
        except UsageError:
            changed = judged is not None
        if not changed and (target := set_aside(self._folder, self._aside)):
            say(f"{why}; set aside as {target}")

    def _bring_back(self, say: Say) -> None:
        """Completions that were set aside, and count again, need not be drawn again."""
        if not self._record.snapshot:
            return  # nothing to compare with
        found: list[CompletionLine] = []
        for folder in _numbered(self._aside):
            try:
                stored = UnitRecord.read(folder)
                if stored is None or not stored.snapshot or stored.differs(self._record):
                    continue
                if stored.settings != self._record.settings:
                    continue
                for line in good_lines(completions_file(folder), stored, []):
                    if line.key not in self._lines and self._keep(line, stored):
                        found.append(line)
            except JaxSftError:
                continue  # damaged: it was set aside for that
        if found:
            say(f"{self.path}: {len(found)} completions taken back from {self._aside}")
            self._waiting = found
            self.flush()
            if not self.missing():
                self._finish()


def set_aside(folder: epath.Path, aside: epath.Path) -> epath.Path | None:
    """Move a unit's folder to where it no longer counts; gives the place, None when another worker did it."""
    for left in reversed(range(_TRIES)):
        target = aside / str(1 + max((int(path.name) for path in _numbered(aside)), default=0))
        try:
            move(folder, target)
            return target
        except FileNotFoundError:
            return None
        except OSError:  # another worker took the number
            if not left or not target.exists():
                raise
    return None


def check_settings(folder: epath.Path, settings: dict[str, int | float | str]) -> bool:
    """Whether the unit's folder holds something drawn; UsageError when that was with other settings."""
    try:
        record = UnitRecord.read(folder)
    except UsageError:
        return False  # whoever takes the unit over names it
    if record is None and not sampling_file(folder).exists():
        return False
    stored = read_json(sampling_file(folder)) if record is None else record.settings
    if changed := changed_setting(stored, settings):
        raise UsageError(
            f"{folder}: was drawn with {changed}; "
            "restore it, give the benchmark another name, or remove what was drawn of it"
        )
    return True


def _stored_record(folder: epath.Path, wanted: UnitRecord) -> UnitRecord | None:
    """The record of a unit; of an older version, which kept the settings alone, one that knows no more."""
    record = UnitRecord.read(folder)
    if record is None and sampling_file(folder).exists():
        return replace(wanted, trained="", snapshot="", template_hash="", prompts={}, lines=())
    return record


def _numbered(aside: epath.Path) -> Iterator[epath.Path]:
    """What was set aside, the latest first."""
    found = [path for path in aside.iterdir() if path.name.isdecimal()] if aside.exists() else []
    yield from sorted(found, key=lambda path: -int(path.name))


def _check(line: CompletionLine) -> str:
    return short_hash(line.text.encode(errors="surrogatepass"))
