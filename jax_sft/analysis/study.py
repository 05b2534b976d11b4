"""What a study left on disk, as the report needs it: runs, training lines, scored units, what is missing."""

from dataclasses import dataclass, field
from typing import Any

from etils import epath

from jax_sft.checkpoints.presence import Presence
from jax_sft.config import GROUPS, BenchmarkConfig, Run, Study
from jax_sft.errors import UsageError
from jax_sft.study.folder import (
    completions_file,
    run_folder,
    study_folder,
    unit_folder,
    unit_folders,
)
from jax_sft.study.lines import unit_completions
from jax_sft.study.metrics import read_metrics
from jax_sft.study.provenance import Present, readable_scores, score_staleness
from jax_sft.study.records import CompletionLine, Item, RunRecord, UnitScores, read_items
from jax_sft.study.starts import parse_init
from jax_sft.tasks.task import get_task, group_of, rules_of


@dataclass(frozen=True)
class RunResults:
    """One run of the study and everything found in its folder."""

    config: Run
    record: RunRecord | None
    """None when the run has not been trained."""
    training: list[dict[str, Any]]
    """What each step reported."""
    units: dict[tuple[int, str], UnitScores]
    """Scored units by (step, benchmark)."""
    left_out: dict[tuple[int, str], str] = field(default_factory=dict)
    """Why a unit that has scores is not among them."""
    problem: str = ""
    """Why nothing of the run can be shown."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.config.name

    @property
    def parent(self) -> str | None:
        """The run whose snapshot this one started from, if any."""
        start = parse_init(self.config.init)
        return start.run if start else None

    @property
    def trained(self) -> bool:
        """Whether training of the run has begun."""
        return self.record is not None or bool(self.training)

    @property
    def steps(self) -> list[int]:
        """Steps with at least one scored unit, ascending."""
        return sorted({step for step, _ in self.units})

    @property
    def expected_steps(self) -> list[int]:
        """Steps a complete sweep of this run covers."""
        return sorted((self.record and self.record.snapshot_steps) or self.steps)

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole training, where that is known."""
        return self.record.total_steps or None if self.record else None


@dataclass(frozen=True)
class StudyResults:
    """A study and what its folder holds."""

    study: Study
    runs: list[RunResults]
    items: dict[str, dict[str, Item]] = field(default_factory=dict)
    """Stored items by benchmark and id."""
    missing: list[str] = field(default_factory=list)
    """What a complete sweep would have had and this one has not, one phrase each."""

    @property
    def benchmarks(self) -> list[BenchmarkConfig]:
        """Benchmarks with at least one scored unit, by group and then in the order of the study."""
        seen = {benchmark for run in self.runs for _, benchmark in run.units}
        found = [b for b in self.study.benchmarks if b.name in seen]
        return sorted(found, key=lambda b: GROUPS.index(group_of(b)))

    @property
    def swept(self) -> list[RunResults]:
        """Runs with at least one scored unit."""
        return [run for run in self.runs if run.units]

    @property
    def groups(self) -> list[str]:
        """Groups that have scored units, in the order of the words."""
        present = {group_of(b) for b in self.benchmarks}
        return [group for group in GROUPS if group in present]

    def in_group(self, group: str) -> list[BenchmarkConfig]:
        """Benchmarks of one group."""
        return [b for b in self.benchmarks if group_of(b) == group]

    def is_share(self, benchmark: str) -> bool:
        """Whether every score of the benchmark lies in [0, 1], so that it reads as a percentage."""
        if not all(get_task(b.task).shares for b in self.study.benchmarks if b.name == benchmark):
            return False
        units = [u for run in self.runs for (_, b), u in run.units.items() if b == benchmark]
        # A reward is any number: its mean may lie there by chance, its values do not.
        values = [
            score for unit in units for score in (unit.score, *unit.item_scores.values()) if unit.judged
        ]
        return all(0 <= value <= 1 for value in values)


def load_study(study: Study) -> StudyResults:
    """Read every record, metrics, scores and items of the study.

    Raises UsageError when no run has anything to report, or naming the file that is malformed.
    """
    items = {b.name: _items(study, b.name) for b in study.benchmarks}
    runs = [_load_run(study, run, items) for run in study.runs]
    if not any(run.trained or run.units for run in runs):
        raise UsageError(
            f"{study_folder(study)}: no run of study {study.name} is there; "
            "train it first, or point --root at its folder"
        )
    by_id = {name: {item.id: item for item in found or ()} for name, found in items.items()}
    return StudyResults(study, runs, by_id, [phrase for run in runs for phrase in _missing(study, run)])


def completions_of(study: Study, unit: UnitScores) -> list[CompletionLine]:
    """The stored completions of a unit; empty when the file is gone, or cannot be read."""
    try:
        return unit_completions(unit_folder(study, unit.run, unit.step, unit.benchmark)) or []
    except UsageError:
        return []


def _items(study: Study, benchmark: str) -> list[Item] | None:
    """The stored items; None when there are none to be read, which a sweep mends."""
    try:
        return read_items(study, benchmark)
    except UsageError:
        return None


def _load_run(study: Study, run: Run, items: dict[str, list[Item] | None]) -> RunResults:
    folder = run_folder(study, run.name)
    presence = Presence(study, run.name)
    try:
        record = presence.record
    except UsageError as error:
        return RunResults(run, None, [], {}, problem=str(error))
    known = {b.name: b for b in study.benchmarks}
    units: dict[tuple[int, str], UnitScores] = {}
    left_out: dict[tuple[int, str], str] = {}
    for step, name, unit in unit_folders(study, run.name):
        if name not in known:
            continue
        scores, problem = readable_scores(unit)
        if scores is not None:
            present, scorer = presence.of(step, name), rules_of(study, known[name])
            problem = _stale_unit(present, unit) or score_staleness(
                scores, present, unit, items[name], scorer
            )
        if problem:
            left_out[step, name] = problem
        elif scores is not None:
            units[step, name] = scores
    # As it was trained: with flags, which the study does not know.
    return RunResults(record.run if record else run, record, read_metrics(folder), units, left_out)


def _stale_unit(present: Present, unit: epath.Path) -> str:
    try:
        return present.staleness(unit)
    except UsageError as error:
        return str(error)


def _missing(study: Study, run: RunResults) -> list[str]:
    """Phrases for what is not there; a run with no units at all was left out of the sweep on purpose."""
    if run.problem:
        return [run.problem]
    if not run.trained and not run.units:
        return [f"run {run.name} is not trained"]
    phrases = []
    last, done = run.total_steps, run.training[-1]["step"] if run.training else None
    if last and done and done < last:
        phrases.append(f"run {run.name} is trained to step {done} of {last}")
    if not run.units and not run.left_out:
        return phrases
    for benchmark in study.benchmarks:
        stale = {step: why for (step, name), why in run.left_out.items() if name == benchmark.name}
        phrases += [
            f"{run.name}, {benchmark.name}, step {step}: {why}" for step, why in sorted(stale.items())
        ]
        absent = [
            step
            for step in run.expected_steps
            if (step, benchmark.name) not in run.units and step not in stale
        ]
        unscored = [s for s in absent if _has_completions(study, run.name, s, benchmark.name)]
        ungenerated = [s for s in absent if s not in unscored]
        where = f"{run.name}, {benchmark.name}, step"
        if unscored:
            phrases.append(f"{where} {_listed(unscored)}: generated, not scored")
        if ungenerated:
            phrases.append(f"{where} {_listed(ungenerated)}: no completions")
        units = [unit for (_, name), unit in sorted(run.units.items()) if name == benchmark.name]
        empty = [unit.step for unit in units if not unit.judged]
        if empty:
            phrases.append(f"{where} {_listed(empty)}: scored on no items")
        for unit in units:
            if unit.scorer_failures:
                total = f"{unit.scorer_failures} of {unit.completions} completions"
                phrases.append(f"{where} {unit.step}: no verdict on {total}, because the scorer failed")
    return phrases


def _has_completions(study: Study, run: str, step: int, benchmark: str) -> bool:
    return completions_file(unit_folder(study, run, step, benchmark)).exists()


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))
