"""A made-up study on disk: two runs from one base, eight snapshots, four groups, curves that dip."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jax_sft.config import BenchmarkConfig, DataConfig, OptimizerConfig, Run, Study
from jax_sft.files import write_json, write_jsonl
from jax_sft.study.document import run_to_json
from jax_sft.study.folder import items_file, run_folder, unit_folder

STEPS = (0, 5, 10, 20, 40, 80, 160, 320)
ITEMS = 80
BENCHMARKS = (
    BenchmarkConfig(name="countdown", task="countdown", group="in_domain"),
    BenchmarkConfig(name="sort", task="miniature", group="reasoning"),
    BenchmarkConfig(name="arithmetic", task="miniature", group="reasoning"),
    BenchmarkConfig(name="format", task="miniature", group="general"),
    BenchmarkConfig(name="refusals", task="miniature_safety", group="safety"),
)
CURVES: dict[str, dict[str, tuple[float, ...]]] = {
    "cot": {
        "countdown": (0.04, 0.03, 0.08, 0.15, 0.30, 0.48, 0.60, 0.66),
        "sort": (0.90, 0.80, 0.66, 0.48, 0.60, 0.78, 0.86, 0.91),
        "arithmetic": (0.80, 0.76, 0.66, 0.60, 0.72, 0.84, 0.90, 0.93),
        "format": (0.85, 0.78, 0.55, 0.42, 0.40, 0.50, 0.58, 0.60),
        "refusals": (0.95, 0.93, 0.85, 0.72, 0.60, 0.55, 0.52, 0.50),
    },
    "nocot": {
        "countdown": (0.04, 0.05, 0.08, 0.12, 0.16, 0.20, 0.22, 0.24),
        "sort": (0.90, 0.88, 0.86, 0.85, 0.84, 0.86, 0.88, 0.87),
        "arithmetic": (0.80, 0.80, 0.78, 0.79, 0.80, 0.82, 0.81, 0.82),
        "format": (0.85, 0.84, 0.82, 0.82, 0.80, 0.82, 0.81, 0.83),
        "refusals": (0.95, 0.95, 0.94, 0.92, 0.90, 0.90, 0.89, 0.90),
    },
}
LENGTHS = {"cot": (8, 20, 70, 150, 170, 130, 105, 92), "nocot": (8, 8, 9, 8, 7, 7, 7, 7)}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """The whole made-up study, written under a temporary folder."""
    return write_study(tmp_path)


@pytest.fixture(scope="session")
def kept_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The whole made-up study for tests that change nothing."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Study]:
    """Writes the made-up study with other runs, steps or benchmarks."""
    return lambda **changes: write_study(tmp_path, **changes)


def write_study(
    root: Path,
    runs: tuple[str, ...] = ("cot", "nocot"),
    steps: tuple[int, ...] = STEPS,
    benchmarks: tuple[BenchmarkConfig, ...] = BENCHMARKS,
    items: int = ITEMS,
) -> Study:
    """Write run.json, metrics.jsonl, items, completions and scores; the base run is trained but not swept."""
    base = Run(name="base", init="random", data=DataConfig(source="miniature_base"))
    tuned = tuple(
        Run(
            name=name,
            init="run:base",
            epochs=4,
            data=DataConfig(source="countdown", options={"traces": name == "cot"}),
            optimizer=OptimizerConfig(learning_rate=2e-4),
        )
        for name in runs
    )
    study = Study(
        name="made-up",
        runs=(base, *tuned),
        benchmarks=benchmarks,
        root=str(root),
        title="Traces or answers?",
        description="A small base model learns Countdown, once from search traces and once from answers "
        "alone. Every number here is made up to test the report.",
    )
    write_training(study, base, 1200, [0, 1200], 3.2)
    for benchmark in benchmarks:
        write_jsonl(items_file(study, benchmark.name), [make_item(benchmark.name, i) for i in range(items)])
    for run in tuned:
        write_training(study, run, max(*steps, 1), list(steps), 1.9 if run.name == "cot" else 2.6)
        for step in steps:
            for benchmark in benchmarks:
                share = CURVES[run.name][benchmark.name][STEPS.index(step)]
                write_unit(study, run.name, step, benchmark, share, items)
    return study


def write_training(study: Study, run: Run, total: int, snapshots: list[int], start: float) -> None:
    """run.json and metrics.jsonl of one run."""
    identity = {
        "study": study.name,
        "run": run_to_json(run),
        "total_steps": total,
        "snapshot_steps": snapshots,
        "template_hash": "3f1c" * 16,
        "data_hash": "a07e" * 16,
        "versions": {"jax": "0.12.0", "flax": "0.12.8"},
    }
    write_json(run_folder(study, run.name) / "run.json", identity)
    rng = np.random.default_rng(0)
    lines = []
    for step in range(1, total + 1):
        warm = min(1.0, step / (0.1 * total))
        lines.append(
            {
                "step": step,
                "loss": start * math.exp(-4 * step / total) + 0.2 + 0.03 * rng.standard_normal(),
                "learning_rate": 2e-4 * warm * 0.5 * (1 + math.cos(math.pi * step / total)),
                "gradient_norm": 0.5 + 3 * math.exp(-8 * step / total) + 0.1 * rng.random(),
                "tokens": 2048,
                "target_tokens": 900,
                "packed_rows": 8,
                "tokens_per_second": 21000.0,
                "seconds": 0.098,
                "skipped": False,
            }
        )
    write_jsonl(run_folder(study, run.name) / "metrics.jsonl", lines)


def make_item(benchmark: str, i: int) -> dict[str, Any]:
    """One stored item."""
    question = f"Using two of {i % 9 + 1}, 5, 8 make {5 * (i % 9 + 1)}"
    return {
        "id": f"{benchmark}-{i:03d}",
        "messages": [{"role": "user", "content": question}],
        "reference": {"numbers": [i % 9 + 1, 5, 8], "target": 5 * (i % 9 + 1)},
    }


def write_unit(
    study: Study, run: str, step: int, benchmark: BenchmarkConfig, share: float, items: int = ITEMS
) -> None:
    """completions.jsonl and scores.json; an item is right when its fixed difficulty is below the share."""
    folder = unit_folder(study, run, step, benchmark.name)
    length = LENGTHS[run][STEPS.index(step)] if run in LENGTHS and step in STEPS else 10
    completions, verdicts = [], []
    for i in range(items):
        item = f"{benchmark.name}-{i:03d}"
        drawn = _uniform(f"{item}/{run}/{step}" if step else f"{item}/0")
        right = _uniform(item) + 0.12 * (drawn - 0.5) < share
        cut = length > 100 and _uniform(f"{item}/{step}/cut") < 0.2
        completions.append(make_completion(item, i, right, cut, length))
        answer = "" if cut else str(i % 7)
        metrics = {"accuracy": float(right and not cut)}
        verdicts.append(
            {"item": item, "sample": 0, "metrics": metrics, "answered": not cut, "answer": answer}
        )
    write_jsonl(folder / "completions.jsonl", completions)
    write_scores(study, run, step, benchmark, verdicts, completions)


def write_scores(
    study: Study,
    run: str,
    step: int,
    benchmark: BenchmarkConfig,
    verdicts: list[dict[str, Any]],
    completions: list[dict[str, Any]],
    **changes: Any,
) -> None:
    """scores.json from verdicts, with normal intervals."""
    values = [verdict["metrics"]["accuracy"] for verdict in verdicts]
    n = len(values)
    mean = sum(values) / n if n else 0.0
    half = 1.96 * math.sqrt(mean * (1 - mean) / n) if n else 0.5
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    scores = {
        "study": study.name,
        "run": run,
        "step": step,
        "benchmark": benchmark.name,
        "kind": benchmark.task,
        "group": benchmark.group,
        "headline": "accuracy",
        "higher_is_better": True,
        "items": n,
        "completions": n,
        "score": mean,
        "low": low,
        "high": high,
        "metrics": {"accuracy": {"mean": mean, "low": low, "high": high, "n": n}},
        "mean_tokens": sum(row["tokens"] for row in completions) / n if n else 0.0,
        "truncation_rate": sum(row["finish"] == "length" for row in completions) / n if n else 0.0,
        "no_answer_rate": sum(not verdict["answered"] for verdict in verdicts) / n if n else 0.0,
        "scorer_failures": 0,
        "verdicts": verdicts,
    }
    write_json(unit_folder(study, run, step, benchmark.name) / "scores.json", scores | changes)


def make_completion(item: str, i: int, right: bool, cut: bool, length: int) -> dict[str, Any]:
    """One line of completions.jsonl; long ones reason aloud, cut ones loop."""
    a = i % 9 + 1
    thought = f"{a} + 5 = {a + 5}, no. Wait, let me try {a} * 5 = {a * 5}. Check: yes."
    text = f"<think>\n{thought}\n</think>\n" if length > 15 else ""
    text += f"\\boxed{{{a} * 5}}" if right else f"\\boxed{{{a} + 5}}"
    if cut:
        text = "<think>\n" + f"{a} + 5 = {a + 5}, no. " * 12
    return {
        "item": item,
        "sample": 0,
        "completion": text,
        "tokens": length + i % 5,
        "finish": "length" if cut else "stop",
    }


def _uniform(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12
