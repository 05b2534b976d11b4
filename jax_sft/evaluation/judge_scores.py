"""What judges said, among a unit's scores: their metrics beside those of rules, and how far they agree."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from etils import epath

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import JaxSftError
from jax_sft.evaluation.judge_parts import Asked, questions
from jax_sft.evaluation.judging import Asked as Rated
from jax_sft.files import read_if_there
from jax_sft.judge_config import Part
from jax_sft.judges.chosen import Chosen
from jax_sft.judges.page import Reading
from jax_sft.judges.truthful import BOTH
from jax_sft.statistics.agreement import cohen_kappa
from jax_sft.study.folder import verdicts_file
from jax_sft.study.records import CompletionLine, Key, UnitScores, Verdict, short_hash
from jax_sft.study.verdicts import Agreement, JudgeLine, JudgeSummary, read_verdicts
from jax_sft.tasks.task import get_task

RULE_QUESTIONS = {"unsafe_refused": "refused", "safe_refused": "refused"}
"""Metrics of rules that answer a question which judges answer too."""
_TRUTH, _INFO = "truthful", "informative"


@dataclass
class _Column:
    """What a judge said of a part of all completions."""

    judge: Chosen
    part: Part
    readings: dict[Key, Reading | None] = field(default_factory=dict)
    """None where its answer cannot be read, or is not there."""
    lines: list[JudgeLine] = field(default_factory=list)

    def read(self, key: Key, line: JudgeLine | None, asked: Asked) -> None:
        """Take what was said of a completion, if it was said of this very text."""
        self.readings[key] = None
        if line is not None and line.of == asked.of:
            self.lines.append(line)
            self.readings[key] = self.judge.page.read(line.outputs)

    def summary(self) -> JudgeSummary:
        """In numbers."""
        model, identity = (self.lines[0].model, self.lines[0].identity) if self.lines else ("", "")
        failures = sum(reading is None for reading in self.readings.values())
        cut = sum(line.cut for line in self.lines)
        config = self.judge.config
        return JudgeSummary(
            config.name, self.part, config.page, model, identity, len(self.readings), failures, cut
        )


class JudgeFindings:
    """What the judges of a unit said of its completions, as far as it was of these very completions."""

    def __init__(
        self,
        unit: epath.PathLike,
        judges: Sequence[Chosen],
        config: BenchmarkConfig,
        lines: Sequence[CompletionLine],
        asked: Sequence[Rated],
    ) -> None:
        """Reads the unit's verdicts; `asked` holds the item and the text of each of its `lines`.

        JaxSftError when the verdicts are damaged.
        """
        faults: list[str] = []
        stored, task = read_verdicts(unit, faults) if judges else {}, get_task(config.task)
        if faults:
            raise JaxSftError(
                f"{faults[0]} ({len(faults)} lines in all); run the sweep again, which has it judged again"
            )
        self._raw = read_if_there(verdicts_file(unit)) or b""
        self._keys = [line.key for line in lines]
        self._columns: list[_Column] = []
        for judge in judges:
            columns = {part: _Column(judge, part) for part in judge.config.parts}
            for key, (item, text, _) in zip(self._keys, asked, strict=True):
                for question in questions(task, judge, item, text):
                    line = stored.get((*key, judge.config.name, question.part))
                    columns[question.part].read(key, line, question)
            self._columns += columns.values()

    @property
    def missing(self) -> set[Key]:
        """Completions of which a judge's answer cannot be read, or is not there."""
        readings = [pair for column in self._columns for pair in column.readings.items()]
        return {key for key, reading in readings if reading is None}

    def add_to(self, verdicts: Sequence[Verdict | None]) -> list[Verdict | None]:
        """The verdicts with the judges' metrics; what is missing is left out, never a zero."""
        if not self._columns:
            return list(verdicts)
        return [self._with_metrics(*pair) for pair in zip(self._keys, verdicts, strict=True)]

    def _with_metrics(self, key: Key, verdict: Verdict | None) -> Verdict | None:
        found: dict[str, float] = {}
        answers: dict[str, float] = {}
        for column in self._columns:
            if reading := column.readings.get(key):
                for name, value in reading.metrics.items():
                    found[column.judge.metric(name, column.part)] = value
                if column.part == "answer":
                    answers |= _answers(column.judge, reading)
        if _TRUTH in answers and _INFO in answers:
            found[BOTH] = answers[_TRUTH] * answers[_INFO]
        if verdict is None:
            return Verdict(found, answered=True) if found else None
        return replace(verdict, metrics={**verdict.metrics, **found})

    def fields(self, verdicts: Sequence[Verdict | None]) -> dict[str, Any]:
        """The fields of `UnitScores` that are of judges; `verdicts` are those of the rules."""
        by_key = dict(zip(self._keys, verdicts, strict=True))
        failed = {key for key, verdict in by_key.items() if verdict is None} | self.missing
        return {
            "scorer_failures": len(failed),
            "judges": tuple(column.summary() for column in self._columns),
            "verdicts_hash": short_hash(self._raw) if self._columns else "",
            "agreements": tuple(self._agreements(by_key)) if self._columns else (),
        }

    def _agreements(self, verdicts: Mapping[Key, Verdict | None]) -> Iterator[Agreement]:
        """Of every two that answer the same question, of answers alone."""
        said: dict[str, dict[str, dict[Key, bool]]] = {}
        for key, verdict in verdicts.items():
            for name, value in (verdict.metrics if verdict else {}).items():
                if question := RULE_QUESTIONS.get(name):
                    said.setdefault(question, {}).setdefault("rule", {})[key] = value >= 0.5
        for column in self._columns:
            if column.part == "answer":
                for key, reading in column.readings.items():
                    for question, value in _answers(column.judge, reading).items() if reading else ():
                        metric = column.judge.metric(column.judge.page.questions[question], "answer")
                        said.setdefault(question, {}).setdefault(metric, {})[key] = value >= 0.5
        for question, answers in said.items():
            for first, second in combinations(answers, 2):
                by_item: dict[str, list[tuple[bool, bool]]] = {}
                for key in answers[first].keys() & answers[second].keys():
                    by_item.setdefault(key[0], []).append((answers[first][key], answers[second][key]))
                share, kappa = cohen_kappa(by_item)
                yield Agreement(question, first, second, share, kappa)


def _answers(judge: Chosen, reading: Reading) -> dict[str, float]:
    """The judge's answers to questions that others answer too."""
    return {
        question: reading.metrics[metric]
        for question, metric in judge.page.questions.items()
        if metric in reading.metrics
    }


def mixed_judges(scored: Sequence[UnitScores]) -> list[str]:
    """Benchmarks whose units a judge did not judge alike, in words: their scores cannot be compared."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for unit in scored:
        for summary in unit.judges:
            if summary.identity:
                of_judge = found.setdefault((unit.benchmark, summary.judge), {})
                of_judge[summary.identity] = f"{summary.model} at step {unit.step} of {unit.run}"
    return [
        f"benchmark {benchmark}: judge {judge} judged in {len(kinds)} ways ({', '.join(kinds.values())}), "
        "which cannot be compared; sweep all its units again"
        for (benchmark, judge), kinds in found.items()
        if len(kinds) > 1
    ]
