"""Which judges a benchmark has, and what their metrics are called."""

from collections.abc import Mapping
from dataclasses import dataclass

from jax_sft.config import BenchmarkConfig, JudgeConfig, Study
from jax_sft.errors import UsageError
from jax_sft.judge_config import Part
from jax_sft.judges.page import Judge
from jax_sft.judges.pages import PAGES, get_page
from jax_sft.judges.truthful import BOTH, TruthfulQAInfo, TruthfulQATruth


@dataclass(frozen=True)
class Chosen:
    """A judge of a benchmark: its settings and its page."""

    config: JudgeConfig
    page: Judge

    def metric(self, name: str, part: Part) -> str:
        """What a metric is called among a unit's: `qwen3guard_unsafe`, `qwen3guard_unsafe_reasoning`."""
        own = f"{self.config.name}_{name}"
        return own if part == "answer" else f"{own}_{part}"


def judges_of(study: Study, benchmark: BenchmarkConfig) -> tuple[Chosen, ...]:
    """The judges that a benchmark names; UsageError for one that neither the study nor a page is called."""
    of_study = {judge.name: judge for judge in study.judges}
    found = []
    for name in benchmark.judges:
        if name not in of_study and name not in PAGES:
            known = ", ".join([*of_study, *(page for page in PAGES if page not in of_study)])
            raise UsageError(f"benchmark {benchmark.name}: unknown judge {name!r}; known: {known}")
        config = of_study.get(name) or JudgeConfig(name)
        found.append(Chosen(config, get_page(config.page)))
    return tuple(found)


def judge_rules(judges: tuple[Chosen, ...]) -> str:
    """By which pages a benchmark is judged, with their versions; empty without judges."""
    named = [f"{judge.config.name} ({judge.page.name} {judge.page.version})" for judge in judges]
    return f"; judged by {', '.join(named)}" if named else ""


def headline_of(
    benchmark: BenchmarkConfig, judges: tuple[Chosen, ...], of_task: str, always: bool
) -> tuple[str, bool | None]:
    """The metric that stands for a benchmark, and whether more of it is better (None: as the task says).

    That is the benchmark's own word; else that of both TruthfulQA judges together, or of the judge whose
    scores are the published ones of the task, or (`always`, for a task without rules) of the first judge.
    """
    better = directions(judges)
    if benchmark.headline:
        return benchmark.headline, better.get(benchmark.headline)
    if BOTH in better:
        return BOTH, True
    for judge in judges:
        if benchmark.task in judge.page.official_for or always:
            name = judge.metric(judge.page.headline, judge.config.parts[0])
            return name, better[name]
    return of_task, None


def directions(judges: tuple[Chosen, ...]) -> Mapping[str, bool]:
    """Every metric that the judges give, and whether more of it is better."""
    found = {
        judge.metric(name, part): better
        for judge in judges
        for part in judge.config.parts
        for name, better in judge.page.metrics.items()
    }
    pages = {judge.page.name for judge in judges}
    return found | ({BOTH: True} if {TruthfulQATruth.name, TruthfulQAInfo.name} <= pages else {})
