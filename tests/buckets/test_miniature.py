"""A whole study in a bucket: the same as under a local root, through kills and failing answers too."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.cli.main import main
from jax_sft.config import ParallelismConfig
from jax_sft.generation.engine import Engine
from jax_sft.sharding import make_mesh
from jax_sft.study.metrics import read_metrics
from tests.buckets.server import BucketServer
from tests.buckets.study import study
from tests.evaluation.tiny import MODEL

REPOSITORY = Path(__file__).resolve().parent.parent.parent
STUDY = str(Path(__file__).parent / "study.py")
STEPS, SNAPSHOTS = 20, (0, 8, 16, 20)
BUCKET = "gs://bucket/runs"
TIMES = ("seconds", "tokens_per_second", "productive_seconds", "tflops_per_second", "goodput")


def commands(root: str, exported: Path) -> Iterator[list[str]]:
    """The words of every stage."""
    for verb in ("train", "sweep", "score", "report"):
        yield [verb, STUDY, "--root", root]
    yield ["export", f"{root}/tiny/run", str(STEPS), str(exported)]


def results(root: str, exported: Path) -> dict[str, Any]:
    """Everything of a study that does not depend on when or where it was made."""
    folder = epath.Path(root) / "tiny"
    units = [folder / "run" / "evals" / str(step) / b.name for step in SNAPSHOTS for b in study().benchmarks]
    lines = read_metrics(folder / "run")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    wanted = Engine(MODEL, study().evaluation, (), make_mesh(ParallelismConfig())).abstract_params()
    params = {step: load_snapshot(folder / "run", step, wanted) for step in SNAPSHOTS}
    return {
        "completions": [(unit / "completions.jsonl").read_bytes() for unit in units],
        "verdicts": [json.loads((unit / "scores.json").read_text())["verdicts"] for unit in units],
        "numbers": [
            {name: value for name, value in row.items() if name not in TIMES}
            for row in csv.DictReader((folder / "report" / "results.csv").read_text().splitlines())
        ],
        "metrics": [{name: line[name] for name in line if name not in TIMES} for line in lines],
        "exported": {path.name: path.read_bytes() for path in exported.iterdir()},
        "snapshots": jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), params),
    }


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of the study under a local root."""
    root, exported = tmp_path_factory.mktemp("local"), tmp_path_factory.mktemp("exports") / "local"
    for words in commands(str(root), exported):
        assert main(words) == 0, words
    return results(str(root), exported)


def test_a_study_in_a_bucket(bucket: BucketServer, local: dict[str, Any], tmp_path: Path) -> None:
    """Requests and bytes are bounded: 8 saves of 250 kB in all, 4 snapshots loaded, 8 units."""
    bounds = {"train": 400, "sweep": 500, "score": 150, "report": 140, "export": 45}
    for words in commands(BUCKET, tmp_path / "exported"):
        bucket.take_traffic()
        assert main(words) == 0, words
        traffic = bucket.take_traffic()
        print(words[0], traffic, file=sys.stderr)
        assert traffic.requests.total() <= bounds[words[0]], traffic
        if words[0] == "train":
            metrics = [count for (kind, name), count in traffic.names.items() if "/metrics" in name]
            assert sum(metrics) <= 20, traffic.names
            # Of arrays as small as these, whole chunks lie in the index, which is read as it grows.
            assert traffic.sent.total() < 0.25 * traffic.received.total(), traffic
    assert results(BUCKET, tmp_path / "exported") == local


def start(words: list[str], bucket: BucketServer) -> subprocess.Popen[str]:
    environment = os.environ | bucket.environment() | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "jax_sft", *words]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def killed(words: list[str], bucket: BucketServer, when: Callable[[list[str]], bool]) -> None:
    """Start a command and kill -9 it as soon as the bucket holds what `when` waits for."""
    process = start(words, bucket)
    while not when(bucket.buckets.names("bucket")):
        assert process.poll() is None, "it ended too early to prove anything"
        time.sleep(0.001)
    process.kill()
    process.communicate()


def done(words: list[str], bucket: BucketServer) -> str:
    """Run a command to its end; what it told."""
    process = start(words, bucket)
    told = process.communicate()[1]
    assert process.returncode == 0, told
    return told


@pytest.mark.slow
def test_a_study_in_a_bucket_that_is_killed_again_and_again(
    bucket: BucketServer, local: dict[str, Any], tmp_path: Path
) -> None:
    train, sweep, *rest = commands(BUCKET, tmp_path / "exported")
    killed(train, bucket, lambda names: "runs/tiny/run/state/6/files.json" in names)
    killed(train, bucket, lambda names: "runs/tiny/run/snapshots/16/_METADATA" in names)
    assert "going on from step" in done(train, bucket)
    killed(sweep, bucket, lambda names: any(name.endswith("completions.jsonl") for name in names))
    done(sweep, bucket)
    for words in rest:
        done(words, bucket)
    assert results(BUCKET, tmp_path / "exported") == local


@pytest.mark.slow
def test_a_study_in_a_bucket_that_fails_and_is_slow(
    bucket: BucketServer, local: dict[str, Any], tmp_path: Path
) -> None:
    bucket.delay = 0.01
    for failure in (429, 503, "reset", "cut"):
        bucket.fail(failure, share=0.01)
    for words in commands(BUCKET, tmp_path / "exported"):
        done(words, bucket)
    assert bucket.take_traffic().failed > 10
    bucket.heal()
    assert results(BUCKET, tmp_path / "exported") == local
