"""The numbers that arXiv 2604.06628 printed, to lay beside a study's own: runs by name, with certainty."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from jax_sft.analysis.study import StudyResults
from jax_sft.config import BenchmarkConfig
from jax_sft.study.patterns import first_matching

CERTAINTY = {
    "A": "two independent copies agree",
    "B": "one copy",
    "C": "copies, or tables of the paper, contradict one another",
}
_NO_SHARE = ("alpaca_eval",)
"""Benchmarks whose number is no share of a hundred."""


@dataclass(frozen=True)
class Published:
    """One printed number; a share is given as one, as our scores are."""

    source: str
    """Table of the paper."""
    run: str
    """Name or pattern of runs."""
    step: int
    benchmark: str
    score: float
    certainty: str
    note: str


@dataclass(frozen=True)
class Beside:
    """A printed number of a run and benchmark of the study, with its own score at that step, if any."""

    run: str
    benchmark: str
    published: Published
    is_share: bool
    ours: float | None

    @property
    def difference(self) -> float | None:
        """Ours less the printed one."""
        return None if self.ours is None else self.ours - self.published.score


@lru_cache(maxsize=1)
def all_published() -> tuple[Published, ...]:
    """Every number of published.toml, in its order."""
    text = resources.files("jax_sft.analysis").joinpath("published.toml").read_text("utf-8")
    return tuple(
        Published(
            source=entry["source"],
            run=entry["run"],
            step=entry["step"],
            benchmark=benchmark,
            score=value if benchmark in _NO_SHARE else value / 100,
            certainty=entry["certainty"],
            note=entry.get("note", ""),
        )
        for entry in tomllib.loads(text)["published"]
        for benchmark, value in entry["scores"].items()
    )


def published_of(run: str, benchmark: BenchmarkConfig) -> list[Published]:
    """What was printed of a run's curve, by step; the first table counts where several print a step."""
    names = {benchmark.name, benchmark.task}
    found: dict[int, Published] = {}
    for each in all_published():
        if each.benchmark in names and first_matching([each.run], run):
            found.setdefault(each.step, each)
    return [found[step] for step in sorted(found)]


def beside(record: StudyResults) -> list[Beside]:
    """All printed numbers of the runs that were swept; none for a study of other runs."""
    return list(_beside(record))


def _beside(record: StudyResults) -> Iterator[Beside]:
    for run in record.swept:
        for benchmark in record.benchmarks:
            for each in published_of(run.name, benchmark):
                unit = run.units.get((each.step, benchmark.name))
                ours = unit.score if unit is not None and unit.judged else None
                share = record.is_share(benchmark.name)
                yield Beside(run.name, benchmark.name, each, share, ours)
