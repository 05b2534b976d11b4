"""What a study left on disk, as the report needs it: runs, training lines, scored units, what is missing."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from etils import epath

from jax_sft.config import GROUPS, BenchmarkConfig, Run, Study
from jax_sft.errors import UsageError
from jax_sft.files import read_json, read_jsonl
from jax_sft.layout import items_file, run_folder, unit_folder
from jax_sft.studies import run_from_json

ItemScores = dict[str, float]
"""Headline metric of each item, averaged over its samples, in the order of the items."""


@dataclass(frozen=True)
class Unit:
    """The scores.json of one (run, step, benchmark)."""

    run: str
    step: int
    benchmark: str
    scores: dict[str, Any]

    @property
    def score(self) -> float | None:
        """Mean of the headline metric; None where it applies to no item."""
        value = self.scores["score"]
        judged = self.scores.get("metrics", {}).get(self.scores.get("headline"), {}).get("n", 1)
        return None if value is None or value != value or not judged else float(value)

    @property
    def low(self) -> float:
        """Lower end of the 95% interval; the score itself where none was given."""
        return _or(self.scores.get("low"), self.score)

    @property
    def high(self) -> float:
        """Upper end of the 95% interval; the score itself where none was given."""
        return _or(self.scores.get("high"), self.score)

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger headline metric is the better one."""
        return bool(self.scores.get("higher_is_better", True))

    @cached_property
    def item_scores(self) -> ItemScores:
        """Headline metric by item; items it does not apply to are left out."""
        headline = self.scores.get("headline", "")
        values: dict[str, list[float]] = {}
        for verdict in self.scores.get("verdicts", []):
            if headline in verdict["metrics"]:
                values.setdefault(str(verdict["item"]), []).append(float(verdict["metrics"][headline]))
        return {item: sum(of) / len(of) for item, of in values.items()}


@dataclass(frozen=True)
class RunRecord:
    """One run of the study and everything found in its folder."""

    config: Run
    identity: dict[str, Any]
    """run.json; empty when the run has not been trained."""
    training: list[dict[str, Any]]
    """Lines of metrics.jsonl."""
    units: dict[tuple[int, str], Unit]
    """Scored units by (step, benchmark)."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.config.name

    @property
    def parent(self) -> str | None:
        """The run whose snapshot this one started from, if any."""
        init = self.config.init
        return init.removeprefix("run:").partition("@")[0] if init.startswith("run:") else None

    @property
    def trained(self) -> bool:
        """Whether training of the run has begun."""
        return bool(self.identity or self.training)

    @property
    def steps(self) -> list[int]:
        """Steps with at least one scored unit, ascending."""
        return sorted({step for step, _ in self.units})

    @property
    def expected_steps(self) -> list[int]:
        """Steps a complete sweep of this run covers."""
        return sorted(self.identity.get("snapshot_steps") or self.steps)


@dataclass(frozen=True)
class StudyRecord:
    """A study and what its folder holds."""

    study: Study
    runs: list[RunRecord]
    items: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Stored items by benchmark and id."""
    missing: list[str] = field(default_factory=list)
    """What a complete sweep would have had and this one has not, one phrase each."""

    @property
    def benchmarks(self) -> list[BenchmarkConfig]:
        """Benchmarks with at least one scored unit, by group and then in the order of the study."""
        seen = {benchmark for run in self.runs for _, benchmark in run.units}
        found = [b for b in self.study.benchmarks if b.name in seen]
        return sorted(found, key=lambda b: GROUPS.index(b.group))

    @property
    def swept(self) -> list[RunRecord]:
        """Runs with at least one scored unit."""
        return [run for run in self.runs if run.units]

    @property
    def groups(self) -> list[str]:
        """Groups that have scored units, in the order of the words."""
        present = {b.group for b in self.benchmarks}
        return [group for group in GROUPS if group in present]

    def in_group(self, group: str) -> list[BenchmarkConfig]:
        """Benchmarks of one group."""
        return [b for b in self.benchmarks if b.group == group]

    def is_share(self, benchmark: str) -> bool:
        """Whether every score of the benchmark lies in [0, 1], so that it reads as a percentage."""
        scores = [u.score for run in self.runs for (_, b), u in run.units.items() if b == benchmark]
        return all(0 <= score <= 1 for score in scores if score is not None)


def load_study(study: Study) -> StudyRecord:
    """Read every run.json, metrics.jsonl, scores.json and items file of the study.

    Raises UsageError when no run has anything to report, or naming the file that is malformed.
    """
    runs = [_load_run(study, run) for run in study.runs]
    if not any(run.trained or run.units for run in runs):
        raise UsageError(
            f"{epath.Path(study.root) / study.name}: no run of study {study.name} is there; "
            "train it first, or point --root at its folder"
        )
    items = {b.name: _load_items(study, b.name) for b in study.benchmarks}
    return StudyRecord(study, runs, items, [phrase for run in runs for phrase in _missing(study, run)])


def completions_of(study: Study, unit: Unit) -> list[dict[str, Any]]:
    """The stored completions of a unit; empty when the file is gone."""
    path = unit_folder(study, unit.run, unit.step, unit.benchmark) / "completions.jsonl"
    return list(read_jsonl(path)) if path.exists() else []


def _load_run(study: Study, run: Run) -> RunRecord:
    folder = run_folder(study, run.name)
    path = folder / "run.json"
    identity = read_json(path) if path.exists() else {}
    if "run" in identity:
        # As it was trained: with flags, which the study does not know.
        run = run_from_json(identity["run"], str(path))
    lines = read_jsonl(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else iter(())
    units: dict[tuple[int, str], Unit] = {}
    names = {b.name for b in study.benchmarks}
    evals = folder / "evals"
    for step_folder in evals.iterdir() if evals.exists() else []:
        if not step_folder.name.isdigit():
            continue
        step = int(step_folder.name)
        for unit in step_folder.iterdir():
            scores = unit / "scores.json"
            if unit.name in names and scores.exists():
                units[step, unit.name] = Unit(run.name, step, unit.name, _read_scores(scores))
    return RunRecord(run, identity, list(lines), units)


def _read_scores(path: epath.Path) -> dict[str, Any]:
    scores = read_json(path)
    if not isinstance(scores, dict) or "score" not in scores:
        raise UsageError(f"{path}: field `score` is missing; score the unit again with `jax-sft score`")
    return scores


def _load_items(study: Study, benchmark: str) -> dict[str, dict[str, Any]]:
    path = items_file(study, benchmark)
    return {str(item["id"]): item for item in read_jsonl(path)} if path.exists() else {}


def _missing(study: Study, run: RunRecord) -> list[str]:
    """Phrases for what is not there; a run with no units at all was left out of the sweep on purpose."""
    if not run.trained and not run.units:
        return [f"run {run.name} is not trained"]
    phrases = []
    last, done = run.identity.get("total_steps"), run.training[-1]["step"] if run.training else None
    if last and done and done < last:
        phrases.append(f"run {run.name} is trained to step {done} of {last}")
    if not run.units:
        return phrases
    for benchmark in study.benchmarks:
        absent = [step for step in run.expected_steps if (step, benchmark.name) not in run.units]
        unscored = [s for s in absent if _has_completions(study, run.name, s, benchmark.name)]
        ungenerated = [s for s in absent if s not in unscored]
        where = f"{run.name}, {benchmark.name}, step"
        if unscored:
            phrases.append(f"{where} {_listed(unscored)}: generated, not scored")
        if ungenerated:
            phrases.append(f"{where} {_listed(ungenerated)}: no completions")
        units = [unit for (_, name), unit in sorted(run.units.items()) if name == benchmark.name]
        empty = [unit.step for unit in units if unit.score is None]
        if empty:
            phrases.append(f"{where} {_listed(empty)}: scored on no items")
    return phrases


def _has_completions(study: Study, run: str, step: int, benchmark: str) -> bool:
    return (unit_folder(study, run, step, benchmark) / "completions.jsonl").exists()


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))


def _or(value: Any, fallback: float | None) -> float:
    chosen = fallback if value is None or value != value else value
    return float("nan") if chosen is None else float(chosen)
