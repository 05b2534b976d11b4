"""All figures of a report, for its page and as files."""

from collections.abc import Sequence

import vl_convert
from etils import epath

from jax_sft.analysis.budgets import BudgetPoint
from jax_sft.analysis.report import relation_figures, step_figures
from jax_sft.analysis.report.budget_figures import budget_scores
from jax_sft.analysis.series import Series
from jax_sft.analysis.study import StudyResults
from jax_sft.files import write_atomically
from jax_sft.pages.style import Figure, Look, draw

PNG_SCALE = 2


def look_of(record: StudyResults) -> Look:
    """Colours by the order of the runs, swept ones first; the step axis of all snapshots."""
    idle = [run for run in record.runs if run.trained and not run.units]
    names = [run.name for run in (*record.swept, *idle)]
    return Look(names, [step for run in record.swept for step in run.steps])


def build_figures(
    record: StudyResults,
    series: Sequence[Series],
    counts: step_figures.Behaviours,
    budgets: Sequence[BudgetPoint],
) -> dict[str, Figure]:
    """Every figure the study has data for, by name."""
    look = look_of(record)
    swept = [run.name for run in record.swept]
    trained = [run.name for run in record.runs if run.training]
    figures = [
        step_figures.group_scores(record, series, look, swept),
        relation_figures.gains(series, look, swept),
        *(step_figures.benchmark_scores(record, series, group, look, swept) for group in record.groups),
        relation_figures.length_and_score(record, series, look, swept),
        *(budget_scores(record, budgets, group, look) for group in record.groups),
        relation_figures.safety_and_reasoning(series, look, swept),
        step_figures.behaviours_by_step(record, counts, look, swept),
        step_figures.training(record, look, trained),
    ]
    return {figure.name: figure for figure in figures if figure is not None}


def write_figures(figures: Sequence[Figure], folder: epath.Path) -> None:
    """Write each figure as NAME.svg and NAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        svg = draw(figure.spec)
        write_atomically(folder / f"{figure.name}.svg", svg)
        (folder / f"{figure.name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=PNG_SCALE))
