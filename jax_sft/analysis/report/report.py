"""The report of a study: one page that opens anywhere, its figures, and its numbers."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import vl_convert
from etils import epath

from jax_sft import terminal
from jax_sft.analysis.budgets import BudgetPoint, budget_curve
from jax_sft.analysis.comparisons import RunComparison, compare, compare_runs
from jax_sft.analysis.published import CERTAINTY, beside
from jax_sft.analysis.report.browser import CompletionSample
from jax_sft.analysis.report.budget_figures import write_budgets
from jax_sft.analysis.report.figures import build_figures, look_of, write_figures
from jax_sft.analysis.report.judges import agreement_rows, judge_rows
from jax_sft.analysis.report.published_figures import CAPTION
from jax_sft.analysis.report.sparklines import sparkline, swatch
from jax_sft.analysis.report.step_figures import BENCHMARK_CAPTION, Behaviours
from jax_sft.analysis.report.tables import (
    differing_fields,
    results,
    training_summary,
    write_comparisons,
    write_results,
    write_run_comparisons,
)
from jax_sft.analysis.series import GROUP_TITLES, Series, build_series
from jax_sft.analysis.study import StudyResults, completions_of, load_study
from jax_sft.analysis.transfer import transfers
from jax_sft.analysis.verdicts import change, find, p_value, value
from jax_sft.config import Study
from jax_sft.files import write_atomically
from jax_sft.pages.page import page_templates
from jax_sft.pages.style import VEGA_LITE, Figure
from jax_sft.responses.habits import behaviours
from jax_sft.study.document import to_json
from jax_sft.study.folder import report_folder
from jax_sft.study.records import CompletionLine
from jax_sft.tasks.task import group_of

BEHAVIOUR_ROWS = 200
"""Completions of a unit in which phrases are counted, evenly spread over its items."""
TABLE_COLUMNS = (
    "run",
    "step",
    "group",
    "benchmark",
    "metric",
    "n",
    "mean",
    "low",
    "high",
    "mean_tokens",
    "truncation_rate",
    "no_answer_rate",
)
DETAIL_COLUMNS = (
    "completions",
    "samples",
    "median_tokens",
    "total_tokens",
    "unfinished_rate",
    "loop_rate",
    "thought_rate",
    "well_formed_rate",
    "seconds",
)
"""Shown of a row that is opened."""


def write_report(study: Study) -> epath.Path:
    """Write <root>/<study>/report/ from the files of the study and give the path of its index.html.

    Beside the page: figures/*.svg and *.png, results.parquet and results.csv, comparisons.csv (every snapshot
    against its base), runs.csv (runs against each other) and budgets.csv (scores at smaller token budgets).
    The page holds everything it shows, its JavaScript included. UsageError when there is nothing to report or
    a file is malformed.
    """
    record = load_study(study)
    series = build_series(record)
    read = _read_completions(record)
    table = results(record)
    folder = report_folder(study)
    folder.mkdir(parents=True, exist_ok=True)
    write_results(table, folder)
    write_comparisons(study.name, compare(series), folder)
    run_pairs = compare_runs(record)
    write_run_comparisons(study.name, run_pairs, folder)
    write_budgets(study.name, read.budgets, folder)
    figures = build_figures(record, series, read.behaviours, read.budgets)
    write_figures(list(figures.values()), folder / "figures")
    page = page_templates("jax_sft.analysis.report", "page").get_template("page.html.jinja")
    path = folder / "index.html"
    write_atomically(path, page.render(**_context(record, series, figures, table, read.sample, run_pairs)))
    terminal.results().print(f"report: {path}")
    return path


@dataclass(frozen=True)
class _Reading:
    """What the report takes from the completions themselves."""

    behaviours: Behaviours
    sample: CompletionSample
    budgets: list[BudgetPoint]


def _read_completions(record: StudyResults) -> _Reading:
    """One pass over all completions: phrases by (run, group, step), scores at budgets, the page's sample."""
    counts: dict[tuple[str, str, int], dict[str, float]] = {}
    sample, budgets = CompletionSample(record), list[BudgetPoint]()
    for run in record.swept:
        for step in run.steps:
            for group in record.groups:
                counted: list[CompletionLine] = []
                for benchmark in record.in_group(group):
                    unit = run.units.get((step, benchmark.name))
                    if unit is not None:
                        lines = completions_of(record.study, unit)
                        sample.add(unit, lines)
                        budgets += budget_curve(unit, lines, benchmark.max_new_tokens)
                        counted += lines[:: max(1, len(lines) // BEHAVIOUR_ROWS)]
                found = behaviours((line.completion, line.tokens) for line in counted)
                if found is not None:
                    counts[run.name, group, step] = found
    return _Reading(counts, sample, budgets)


def _context(
    record: StudyResults,
    series: Sequence[Series],
    figures: dict[str, Figure],
    table: pa.Table,
    sample: CompletionSample,
    run_pairs: Sequence[RunComparison],
) -> dict[str, Any]:
    look, printed = look_of(record), beside(record)
    reach = {run.name: transfers(series, run.name) for run in record.swept}
    pages = sample.as_json()
    return {
        "record": record,
        "facts": _facts(record),
        "sections": _sections(record, figures, any(reach.values()), any(pages["items"].values())),
        "findings": find(record, series),
        "unpaired": any(s.shape is not None and not s.paired for s in series),
        "figures": figures,
        "benchmark_caption": BENCHMARK_CAPTION + (CAPTION if printed else ""),
        "specs": {name: figure.page_spec for name, figure in figures.items()},
        "transfers": reach,
        "run_pairs": run_pairs,
        "p_value": p_value,
        "judges": judge_rows(record),
        "agreements": agreement_rows(record),
        "published": printed,
        "certainty": CERTAINTY,
        "table": {
            "columns": TABLE_COLUMNS,
            "details": DETAIL_COLUMNS,
            "rows": [[row[name] for name in (*TABLE_COLUMNS, *DETAIL_COLUMNS)] for row in table.to_pylist()],
        },
        "sample": pages,
        "differences": differing_fields(record.runs),
        "summaries": [(run, training_summary(run)) for run in record.runs if run.training],
        "swatch": functools.partial(swatch, look=look),
        "colours": {run: look.colour_of(run) for run in look.runs},
        "sparkline": functools.partial(sparkline, look=look),
        "group_titles": GROUP_TITLES,
        "group_of": group_of,
        "as_json": lambda record: json.dumps(to_json(record), indent=1, ensure_ascii=False),
        "change": change,
        "value": value,
        "vega": _vega(),
        "versions": {name: version(name) for name in ("altair", "vl-convert-python", "pyarrow", "numpy")},
    }


def _sections(
    record: StudyResults, figures: dict[str, Figure], transfer: bool, completions: bool
) -> dict[str, str]:
    """Titles by id of the sections that have something to show, in the order of the page."""
    swept = bool(record.swept)
    sections = (
        ("verdicts", "Verdicts", swept),
        ("scores", "Scores", "scores_by_group" in figures),
        ("benchmarks", "Benchmarks", any(name.startswith("benchmarks_") for name in figures)),
        ("length", "Length", any(name.startswith(("length", "behaviours", "budgets")) for name in figures)),
        ("safety", "Safety", "safety_and_reasoning" in figures),
        ("judges", "Judges", any(unit.judges for run in record.swept for unit in run.units.values())),
        ("published", "Beside the paper", bool(beside(record))),
        ("training", "Training", "training" in figures),
        ("numbers", "Numbers", swept),
        ("transfer", "Transfer", transfer),
        ("completions", "Completions", completions),
        ("made", "How it was made", True),
    )
    return {name: title for name, title, shown in sections if shown}


def _facts(record: StudyResults) -> list[tuple[str, str]]:
    """(number, what of) for the line under the title."""
    units = [unit for run in record.swept for unit in run.units.values()]
    items = sum(len(record.items.get(b.name, {})) for b in record.benchmarks)
    completions = sum(unit.completions for unit in units)
    snapshots = sum(len(run.steps) for run in record.swept)
    numbers = (
        (len(record.swept), "run swept", "runs swept"),
        (snapshots, "snapshot", "snapshots"),
        (len(record.benchmarks), "benchmark", "benchmarks"),
        (items, "item", "items"),
        (completions, "completion", "completions"),
    )
    return [(f"{count:,}", one if count == 1 else many) for count, one, many in numbers]


@functools.cache
def _vega() -> str:
    """The JavaScript that draws the charts: Vega, Vega-Lite and Vega-Embed."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
