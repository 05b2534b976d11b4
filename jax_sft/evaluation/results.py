"""From completions on disk to scores on disk: complete or refused, with intervals, again at any time."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from etils import epath
from rich.console import Console
from rich.table import Table

from jax_sft.config import BenchmarkConfig, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.benchmarks.base import Item, Verdict, get_benchmark, load_items
from jax_sft.evaluation.scoring.pool import ScoringPool
from jax_sft.evaluation.statistics import estimate
from jax_sft.files import read_json, read_jsonl, write_json, write_jsonl
from jax_sft.layout import items_file, run_folder, unit_folder

Unit = tuple[str, int, str]  # run, step, benchmark
TABLE_WIDTH = 120
"""Characters of the score table where it is not printed to a terminal."""


def store_items(study: Study, config: BenchmarkConfig) -> list[Item]:
    """The items of a benchmark, written beside the runs when first asked for.

    JaxSftError when a stored file holds others: its completions would answer other questions.
    """
    items = load_items(config, study.data_root)
    path = items_file(study, config.name)
    if not path.exists():
        write_jsonl(path, [asdict(item) for item in items])
    stored = read_items(study, config.name)
    # Compared as JSON: what is stored knows no tuples.
    if json.dumps([asdict(item) for item in stored]) != json.dumps([asdict(item) for item in items]):
        raise JaxSftError(
            f"{path}: holds {len(stored)} items, but {config.name} as configured now makes {len(items)} that "
            "are not all the same; restore its config, or give the benchmark or the study another name"
        )
    return stored


def read_items(study: Study, benchmark: str) -> list[Item]:
    """The stored items of a benchmark; UsageError when there are none or the file is malformed."""
    path = items_file(study, benchmark)
    if not path.exists():
        raise UsageError(f"{path}: no such file; the sweep of {benchmark} writes it")
    try:
        return [Item(row["id"], tuple(row["messages"]), row["reference"]) for row in read_jsonl(path)]
    except KeyError as error:
        raise UsageError(f"{path}: an item without {error}") from None


def find_benchmark(study: Study, name: str) -> BenchmarkConfig:
    """The benchmark of that name; UsageError naming those that the study has."""
    for config in study.benchmarks:
        if config.name == name:
            return config
    known = ", ".join(config.name for config in study.benchmarks) or "none"
    raise UsageError(f"study {study.name}: no benchmark {name!r}; it has {known}")


def score_unit(
    folder: epath.PathLike,
    items: Sequence[Item],
    config: BenchmarkConfig,
    *,
    study: str,
    run: str,
    step: int,
    pool: ScoringPool,
) -> dict[str, Any]:
    """Score the completions in `folder` and write scores.json there; gives what it wrote.

    JaxSftError when completions are missing, doubled or of unknown items: nothing is averaged over then.
    """
    path = epath.Path(folder) / "completions.jsonl"
    completions = read_completions(path, items, config.samples)
    by_id = {item.id: item for item in items}
    tasks = [(by_id[row["item"]], row["completion"], row["finish"]) for row in completions]
    verdicts = pool.score(config.kind, tasks)
    scores = summarise(config, completions, verdicts, len(items))
    scores = {"study": study, "run": run, "step": step, **scores}
    write_json(epath.Path(folder) / "scores.json", scores)
    return scores


def read_completions(path: epath.Path, items: Sequence[Item], samples: int) -> list[dict[str, Any]]:
    """All completions of a unit, by item and sample; JaxSftError unless each is there just once."""
    rows = []
    for number, row in enumerate(read_jsonl(path), start=1):
        missing = [name for name in ("item", "sample", "completion", "tokens", "finish") if name not in row]
        if missing:
            raise UsageError(f"{path}, line {number}: no field {', '.join(missing)}")
        rows.append(row)
    found = Counter((row["item"], row["sample"]) for row in rows)
    wanted = [(item.id, sample) for item in items for sample in range(samples)]
    problems = {
        "missing": [key for key in wanted if key not in found],
        "doubled": [key for key, count in found.items() if count > 1],
        "of no item or sample of the benchmark": list(found.keys() - set(wanted)),
    }
    for problem, keys in problems.items():
        if keys:
            item, sample = min(keys, key=str)
            raise JaxSftError(
                f"{path}: {len(keys)} of {len(wanted)} completions {problem}, for example item {item!r} "
                f"sample {sample}; run the sweep again to complete the unit"
            )
    place = {key: index for index, key in enumerate(wanted)}
    return sorted(rows, key=lambda row: place[row["item"], row["sample"]])


def summarise(
    config: BenchmarkConfig,
    completions: Sequence[dict[str, Any]],
    verdicts: Sequence[Verdict | None],
    items: int,
) -> dict[str, Any]:
    """Scores of a unit from its verdicts; None (the scorer failed) counts as 0 and unanswered."""
    benchmark = get_benchmark(config.kind)
    names = sorted(
        {name for verdict in verdicts if verdict for name in verdict.metrics} | {benchmark.headline}
    )
    failed = Verdict({benchmark.headline: 0.0}, answered=False)
    judged = [verdict or failed for verdict in verdicts]
    values: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for row, verdict in zip(completions, judged, strict=True):
        for name, value in verdict.metrics.items():
            values[name].setdefault(row["item"], []).append(value)
    metrics = {name: estimate(by_item) for name, by_item in values.items()}
    score, count = metrics[benchmark.headline], len(completions)
    return {
        "benchmark": config.name,
        "kind": config.kind,
        "group": config.group,
        "headline": benchmark.headline,
        "higher_is_better": benchmark.higher_is_better,
        "items": items,
        "completions": count,
        "score": score.mean,
        "low": score.low,
        "high": score.high,
        "metrics": {name: asdict(metric) for name, metric in metrics.items()},
        "mean_tokens": sum(row["tokens"] for row in completions) / count,
        "truncation_rate": sum(row["finish"] == "length" for row in completions) / count,
        "no_answer_rate": sum(not verdict.answered for verdict in judged) / count,
        "scorer_failures": sum(verdict is None for verdict in verdicts),
        "verdicts": [
            {"item": row["item"], "sample": row["sample"], **asdict(verdict)}
            for row, verdict in zip(completions, judged, strict=True)
        ],
    }


def score(
    study: Study,
    runs: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Score (again) every unit that has completions, print a table of the scores and give them.

    No or empty `runs`, `steps` or `benchmarks` mean all. UsageError for a name that the study lacks, and when
    there is nothing to score.
    """
    for run in runs or ():
        if run not in {known.name for known in study.runs}:
            raise UsageError(f"study {study.name}: no run {run!r}")
    for name in benchmarks or ():
        find_benchmark(study, name)
    units = [
        (run, step, name)
        for run, step, name in _units(study, "completions.jsonl")
        if (not runs or run in runs)
        and (not steps or step in steps)
        and (not benchmarks or name in benchmarks)
    ]
    if not units:
        raise UsageError(
            f"study {study.name}: no completions to score under {study.root}; run the sweep first"
        )
    scored = []
    with ScoringPool(study.evaluation.workers) as pool:
        for run, step, name in units:
            folder, config = unit_folder(study, run, step, name), find_benchmark(study, name)
            items = read_items(study, name)
            scored.append(score_unit(folder, items, config, study=study.name, run=run, step=step, pool=pool))
    console = Console()
    if not console.is_terminal:  # a file has no width to keep to
        console.width = TABLE_WIDTH
    console.print(score_table(scored))
    return scored


def load_scores(study: Study) -> list[dict[str, Any]]:
    """The scores of all units of the study that have any, by run, benchmark and step."""
    units = sorted(_units(study, "scores.json"), key=lambda unit: (unit[0], unit[2], unit[1]))
    return [read_json(unit_folder(study, *unit) / "scores.json") for unit in units]


def score_table(scores: Sequence[dict[str, Any]]) -> Table:
    """One line a unit: score with its interval, mean length, truncated and unanswered shares."""
    table = Table("run", "benchmark", "metric", "step", "score", "95%", "tokens", "cut", "no answer")
    for unit in scores:
        failures = f" ({unit['scorer_failures']} scorer failures)" if unit["scorer_failures"] else ""
        table.add_row(
            unit["run"],
            unit["benchmark"],
            unit["headline"],
            str(unit["step"]),
            f"{100 * unit['score']:.1f}",
            f"{100 * unit['low']:.1f} – {100 * unit['high']:.1f}",
            f"{unit['mean_tokens']:.0f}",
            f"{100 * unit['truncation_rate']:.0f}%",
            f"{100 * unit['no_answer_rate']:.0f}%{failures}",
        )
    return table


def _units(study: Study, file: str) -> Iterator[Unit]:
    """Units of the study, as configured now, whose folder holds that file; in the study's order."""
    for run in study.runs:
        evals = run_folder(study, run.name) / "evals"
        if not evals.exists():
            continue
        steps = sorted(int(folder.name) for folder in evals.iterdir() if folder.name.isdigit())
        for config in study.benchmarks:
            for step in steps:
                if (unit_folder(study, run.name, step, config.name) / file).exists():
                    yield run.name, step, config.name
