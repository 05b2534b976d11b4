"""What the report says of judges that are models: who judged what, what is missing, how far they agree."""

from dataclasses import dataclass, field

from jax_sft.analysis.study import StudyResults
from jax_sft.judges.pages import PAGES
from jax_sft.study.verdicts import Agreement


@dataclass
class JudgeRow:
    """A judge on a part of a benchmark's completions, over all units."""

    judge: str
    benchmark: str
    part: str
    meaning: str
    models: list[str] = field(default_factory=list)
    """Its weights; more than one where a curve was judged by different ones."""
    identities: set[str] = field(default_factory=set)
    asked: int = 0
    failures: int = 0
    cut: int = 0


@dataclass(frozen=True)
class AgreementRow:
    """How far two agree at the last step of a run."""

    run: str
    step: int
    benchmark: str
    agreement: Agreement


def judge_rows(record: StudyResults) -> list[JudgeRow]:
    """A row for each judge, benchmark and part, in the order of the study."""
    rows: dict[tuple[str, str, str], JudgeRow] = {}
    for benchmark in record.benchmarks:
        for run in record.swept:
            for step in run.steps:
                unit = run.units.get((step, benchmark.name))
                for found in unit.judges if unit else ():
                    page = PAGES.get(found.page)
                    row = rows.setdefault(
                        (found.judge, benchmark.name, found.part),
                        JudgeRow(found.judge, benchmark.name, found.part, page.meaning if page else ""),
                    )
                    row.asked += found.asked
                    row.failures += found.failures
                    row.cut += found.cut
                    if found.identity:
                        row.identities.add(found.identity)
                        row.models += [] if found.model in row.models else [found.model]
    return list(rows.values())


def agreement_rows(record: StudyResults) -> list[AgreementRow]:
    """Every agreement at the last step of each run that has one."""
    rows = []
    for benchmark in record.benchmarks:
        for run in record.swept:
            steps = [step for step in run.steps if (step, benchmark.name) in run.units]
            for agreement in run.units[steps[-1], benchmark.name].agreements if steps else ():
                rows.append(AgreementRow(run.name, steps[-1], benchmark.name, agreement))
    return rows
