"""What judges that are models said: a line for each completion, judge and part, beside the completions."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass

from etils import epath

from jax_sft.errors import UsageError
from jax_sft.files import read_if_there, write_atomically
from jax_sft.judge_config import Part
from jax_sft.judges.page import digest
from jax_sft.statistics.intervals import Estimate
from jax_sft.study.document import from_json
from jax_sft.study.folder import verdicts_file

JudgedPart = tuple[str, int, str, Part]
"""(item, sample, judge, part)"""


@dataclass(frozen=True)
class JudgeLine:
    """What a judge said of a part of a completion."""

    item: str
    sample: int
    judge: str
    part: Part
    outputs: tuple[str, ...]
    """As the model gave them: one answer, or one for each order of a pair; a reward as a number."""
    grade: str
    """What they say, in a word or two; empty where they cannot be read."""
    of: str
    """Checksum of what was shown to the judge, before it was cut to fit."""
    identity: str
    """Checksum of all that its answer depends on besides: weights, prompt, tokens, limits."""
    model: str
    """Its weights, in words."""
    cut: bool = False
    """Whether not all of the part was judged, because it did not fit."""

    @property
    def key(self) -> JudgedPart:
        """What was judged, and by whom."""
        return self.item, self.sample, self.judge, self.part


def read_verdicts(unit: epath.PathLike, faults: list[str]) -> dict[JudgedPart, JudgeLine]:
    """The lines of a unit as they were written; none where nothing was judged.

    `faults` gets, in words, those that are not: each has a checksum of its own.
    """
    path = verdicts_file(unit)
    raws = (read_if_there(path) or b"").split(b"\n")
    found: dict[JudgedPart, JudgeLine] = {}
    for number, raw in enumerate(raws, start=1):
        if not raw.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(raw)
            line = from_json(JudgeLine, row, where)
        except (ValueError, UsageError):
            faults.append(f"{where}: is no verdict")
            continue
        if row.get("check") != _check(line):
            faults.append(f"{where}: is not what was written")
        else:
            found[line.key] = line
    return found


def write_verdicts(unit: epath.PathLike, lines: Iterable[JudgeLine]) -> None:
    """Write all lines of a unit, whole or not at all."""
    rows = [dataclasses.asdict(line) | {"check": _check(line)} for line in lines]
    texts = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_atomically(verdicts_file(unit), "".join(f"{text}\n" for text in texts))


def _check(line: JudgeLine) -> str:
    return digest(dataclasses.asdict(line))


@dataclass(frozen=True)
class JudgeSummary:
    """What a unit's scores rest on where a judge gave them."""

    judge: str
    part: Part
    page: str
    model: str
    """Its weights, in words; empty where it was not asked."""
    identity: str
    asked: int
    """Completions with such a part."""
    failures: int
    """Of these, those whose answer cannot be read or is not there: missing, in no mean."""
    cut: int
    """Of these, those of which not all was judged, because it did not fit."""


@dataclass(frozen=True)
class Agreement:
    """How far two judges of a unit agree on a question with two answers, or a judge and the task's rule."""

    question: str
    """`harmful`, `refused`, …"""
    first: str
    """The metric that holds the answer of one of them."""
    second: str
    share: float
    """Of completions on which they say the same."""
    kappa: Estimate
    """Cohen's kappa with its 95% interval, and the items that it rests on."""
