"""A tiny study with two runs, and what tests of its sweep look at."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_sft.config import (
    BenchmarkConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Run,
    Sampling,
    SnapshotConfig,
    Study,
    TokensConfig,
    replace,
)
from jax_sft.models.decoder import Params
from jax_sft.tokens.loading import load_tokenizer

MODEL = ModelConfig(
    vocab_size=load_tokenizer(TokensConfig()).vocab_size,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_size=64,
)
FIRST = Run(
    name="first",
    model=MODEL,
    compute_dtype="float32",
    data=DataConfig(source="miniature_base", rows=16, batch_size=8, row_length=64, rows_per_micro_batch=8),
    snapshots=SnapshotConfig(schedule="0, last"),
)
SECOND = replace(FIRST, name="second", snapshots=SnapshotConfig(schedule="last"))
BENCHMARKS = (
    BenchmarkConfig("reasoning", "miniature", "reasoning", limit=11, max_new_tokens=12),
    BenchmarkConfig("refusals", "miniature_safety", "safety", limit=6, max_new_tokens=9),
    BenchmarkConfig(
        "countdown",
        "countdown",
        "in_domain",
        limit=5,
        samples=3,
        max_new_tokens=16,
        sampling=Sampling(1.0, top_p=0.95),
        options={"miniature": True},
    ),
)
EVALUATION = EvaluationConfig(
    slots=8, context=128, chunk=4, prefill_rows=8, compute_dtype="float32", workers=1
)
UNITS = [
    (run, step, benchmark.name)
    for run, steps in (("first", (0, 2)), ("second", (2,)))
    for step in steps
    for benchmark in BENCHMARKS
]
COMPLETIONS = 3 * (11 + 6 + 5 * 3)


def study(root: Path | str, **changes: Any) -> Study:
    """Two runs with three snapshots in all, and three benchmarks."""
    made = Study("tiny", (FIRST, SECOND), BENCHMARKS, EVALUATION, root=str(root))
    return replace(made, **changes)


REPOSITORY = Path(__file__).resolve().parent.parent.parent


def start_sweep(
    root: Path, worker: str = "", devices: int = 8, job: tuple[int, int, int] = (1, 0, 0), **options: Any
) -> subprocess.Popen:
    """Sweep the tiny study in a new process with its own devices; `job`: processes, index, port."""
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    processes, index, port = job
    if processes > 1:
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
        }
    command = [
        sys.executable,
        "-m",
        "tests.evaluation.tiny",
        str(root),
        json.dumps({"worker": worker} | options),
    ]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def unit(root: Path, run: str, step: int, benchmark: str) -> Path:
    return root / "tiny" / run / "evals" / str(step) / benchmark


def completion_files(root: Path) -> dict[Path, bytes]:
    """Content of every completions.jsonl below `root`."""
    files = sorted(root.glob("tiny/*/evals/*/*/completions.jsonl"))
    return {file.relative_to(root): file.read_bytes() for file in files}


def random_params(wanted: Params, seed: int) -> Params:
    """Weights that end some completions before their limit."""
    rng = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put(rng.normal(0, 0.5, leaf.shape).astype(jnp.bfloat16), leaf.sharding)

    return jax.tree.map(draw, wanted)


def kept(root: Path) -> list[tuple[str, str, int]]:
    """Unit, item and sample of every completion on disk, in parts or in final files."""
    folders = [unit(root, *one) for one in UNITS]
    return [
        (folder.as_posix(), row["item"], row["sample"])
        for folder in folders
        for file in ([*folder.glob("completions.jsonl")] or sorted(folder.glob("parts/*.jsonl")))
        for row in map(json.loads, file.read_text().splitlines())
    ]


def damage(root: Path, run: str, step: int) -> None:
    """Change one byte in the largest file of a snapshot."""
    folder = root / "tiny" / run / "snapshots" / str(step)
    largest = max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)


def main() -> None:
    """Sweep the study below the first argument, with the options that the second holds as JSON."""
    from jax_sft.evaluation.sweep import sweep
    from jax_sft.machine import join_processes
    from jax_sft.options import SweepOptions

    join_processes()
    sweep(study(sys.argv[1]), ["first", "second"], options=SweepOptions(**json.loads(sys.argv[2])))


if __name__ == "__main__":
    main()
