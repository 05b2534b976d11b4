"""The numbers of a study as tables: every metric of every unit, what differs between runs, how they went."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from etils import epath

from jax_sft.analysis.comparisons import Comparison, RunComparison
from jax_sft.analysis.study import RunResults, StudyResults
from jax_sft.tasks.task import group_of

SCHEMA = pa.schema(
    [
        ("study", pa.string()),
        ("run", pa.string()),
        ("step", pa.int64()),
        ("group", pa.string()),
        ("benchmark", pa.string()),
        ("kind", pa.string()),
        ("metric", pa.string()),
        ("headline", pa.bool_()),
        ("higher_is_better", pa.bool_()),
        ("n", pa.int64()),
        ("mean", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("items", pa.int64()),
        ("completions", pa.int64()),
        ("mean_tokens", pa.float64()),
        ("truncation_rate", pa.float64()),
        ("no_answer_rate", pa.float64()),
        ("samples", pa.int64()),
        ("median_tokens", pa.float64()),
        ("total_tokens", pa.int64()),
        ("unfinished_rate", pa.float64()),
        ("loop_rate", pa.float64()),
        ("thought_rate", pa.float64()),
        ("well_formed_rate", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
SHARED = ("items", "completions", "mean_tokens", "truncation_rate", "no_answer_rate")
"""Columns that all metrics of a unit share; those of `Outputs` too."""


def results(record: StudyResults) -> pa.Table:
    """One row per run, step, benchmark and metric, in that order; `low` and `high` are 95% intervals."""
    return pa.Table.from_pylist(list(_rows(record)), schema=SCHEMA)


def write_results(table: pa.Table, folder: epath.Path) -> None:
    """Write the table as results.parquet and results.csv into `folder`."""
    parquet, csv = io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(table, parquet)
    pyarrow.csv.write_csv(table, csv)
    (folder / "results.parquet").write_bytes(parquet.getvalue())
    (folder / "results.csv").write_bytes(csv.getvalue())


def write_comparisons(study: str, comparisons: Sequence[Comparison], folder: epath.Path) -> None:
    """Write comparisons.csv into `folder`: one row per curve and snapshot after the base."""
    columns: dict[str, list[Any]] = {
        "study": [study] * len(comparisons),
        "run": [c.series.run for c in comparisons],
        "curve": [c.series.name for c in comparisons],
        "is_group": [c.series.is_group for c in comparisons],
        "step": [c.step for c in comparisons],
    }
    numbers = ("paired", "items", "mean", "low", "high", "p", "p_fall")
    columns |= {name: [getattr(c.change, name) for c in comparisons] for name in numbers}
    columns |= {name: [getattr(c, name) for c in comparisons] for name in ("p_curve", "q_study")}
    columns["visible"] = [c.change.visible if c.change.paired else None for c in comparisons]
    write_csv(columns, folder / "comparisons.csv")


def write_csv(columns: Mapping[str, Sequence[Any]], path: epath.Path) -> None:
    """Write named columns of equal length as CSV with a heading."""
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(dict(columns)), buffer)
    path.write_bytes(buffer.getvalue())


def write_run_comparisons(study: str, found: Sequence[RunComparison], folder: epath.Path) -> None:
    """Write runs.csv into `folder`: the last snapshots of every two runs from the same start weights."""
    columns: dict[str, list[Any]] = {
        "study": [study] * len(found),
        "first": [c.first.run for c in found],
        "second": [c.second.run for c in found],
        "benchmark": [c.first.benchmark for c in found],
        "first_step": [c.first.step for c in found],
        "second_step": [c.second.step for c in found],
        "p_corrected": [c.p for c in found],
    }
    numbers = ("items", "mean", "low", "high", "p", "visible")
    columns |= {name: [getattr(c.change, name) for c in found] for name in numbers}
    write_csv(columns, folder / "runs.csv")


def _rows(record: StudyResults) -> Iterator[dict[str, Any]]:
    for run in record.swept:
        for benchmark in record.benchmarks:
            for step in run.steps:
                unit = run.units.get((step, benchmark.name))
                if unit is None:
                    continue
                whole = {
                    "study": record.study.name,
                    "run": run.name,
                    "step": step,
                    "group": group_of(benchmark),
                    "benchmark": benchmark.name,
                    "kind": unit.kind,
                    "higher_is_better": unit.higher_is_better,
                }
                whole |= {name: getattr(unit, name) for name in SHARED}
                whole |= asdict(unit.outputs)
                for name, value in (unit.metrics | unit.sampled).items():
                    judged = asdict(value) if value.n else {"n": 0}
                    yield whole | {"metric": name, "headline": name == unit.headline} | judged


def differing_fields(runs: list[RunResults]) -> list[tuple[str, list[str]]]:
    """Config fields whose values differ between the runs, as (dotted name, value per run)."""
    flat = [dict(_flatten(asdict(run.config))) for run in runs]
    names = list(dict.fromkeys(name for fields in flat for name in fields))
    table = [(name, [_shown(fields.get(name, "")) for fields in flat]) for name in names if name != "name"]
    return [(name, values) for name, values in table if len(set(values)) > 1]


def training_summary(run: RunResults) -> dict[str, Any]:
    """Steps, tokens, last loss, speed, skipped steps and duration of a run's training, from its lines."""
    lines = run.training
    seconds = sum(line.get("seconds") or 0.0 for line in lines)
    tokens = sum(line.get("tokens") or 0 for line in lines)
    tail = [line["loss"] for line in lines[-10:] if line.get("loss") is not None]
    return {
        "steps": lines[-1]["step"] if lines else 0,
        "total_steps": run.total_steps,
        "tokens": tokens,
        "loss": sum(tail) / len(tail) if tail else None,
        "tokens_per_second": tokens / seconds if seconds else None,
        "skipped": sum(bool(line.get("skipped")) for line in lines),
        "minutes": seconds / 60,
    }


def _flatten(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flatten(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
