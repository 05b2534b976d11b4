"""A study small enough to train in seconds, and a command that trains it in a process of its own.

python -m tests.training.tiny ROOT RUN
"""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from jax_sft.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelismConfig,
    Run,
    SnapshotConfig,
    Study,
    replace,
)
from jax_sft.files import write_jsonl

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MODEL = ModelConfig(
    vocab_size=640, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, mlp_size=64
)
RUN = Run(
    name="tiny",
    epochs=7.5,
    compute_dtype="float32",
    model=MODEL,
    data=DataConfig(
        source="rows.jsonl",
        batch_size=25,
        row_length=128,
        rows_per_micro_batch=8,
        shuffle=True,
    ),
    optimizer=OptimizerConfig(learning_rate=1e-2),
    snapshots=SnapshotConfig(schedule="0, 3, every 8, last", state_every=7),
    # Whole parameters everywhere, for speed: eight devices on two cores take long to gather them.
    parallelism=ParallelismConfig(replica=-1, fsdp=1),
)
"""30 steps, 4 an epoch, each of two micro-batches."""
SHORT = replace(
    RUN,
    name="short",
    epochs=2,
    model=replace(MODEL, num_layers=1),
    snapshots=SnapshotConfig(schedule="0, 3, last", state_every=3),
    parallelism=ParallelismConfig(fsdp=-1),
)
"""8 steps of a smaller model, for processes that wait for each other a lot."""
LONG = replace(SHORT, name="long", epochs=20)
"""80 steps of it, so that a notice has time to travel from process to process."""
EXPORTING = replace(SHORT, snapshots=replace(SHORT.snapshots, export="last"))
"""SHORT, with its last snapshot written for others."""
RUNS = {"tiny": RUN, "short": SHORT, "long": LONG, "exporting": EXPORTING}


def study(root: Path | str, *runs: Run, **changes: Any) -> tuple[Study, Run]:
    """A study of `runs` (or of RUN with `changes`) under `root`, and its last run."""
    runs = runs or (replace(RUN, **changes),)
    if not (Path(root) / "rows.jsonl").exists():
        write_rows(Path(root) / "rows.jsonl")
    return Study(name="study", root=str(root), data_root=str(root), runs=runs), runs[-1]


def write_rows(path: Path) -> None:
    """A hundred rows of many lengths: counting upwards from some number."""
    rng = random.Random(0)
    rows = []
    for number in range(100):
        start, length = rng.randint(0, 99), rng.randint(2, 24)
        counted = " ".join(str(start + i) for i in range(length))
        rows.append({"id": str(number), "prompt": f"count {length} from {start}", "response": counted})
    write_jsonl(path, rows)


def start_process(
    root: Path | str, run: Run = RUN, devices: int = 1, job: tuple[int, int, int] = (1, 0, 0)
) -> subprocess.Popen:
    """Train one of RUNS under `root` in a new process with its own devices; `job`: processes, index, port."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    processes, index, port = job
    if processes > 1:
        environment |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
        }
    label = next(name for name, each in RUNS.items() if each == run)
    command = [sys.executable, "-m", "tests.training.tiny", str(root), label]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def main() -> None:
    """Train the run that is the second argument under the folder that is the first."""
    from jax_sft.machine import join_processes
    from jax_sft.training.loop import train

    join_processes()
    train(*study(sys.argv[1], RUNS[sys.argv[2]]))


if __name__ == "__main__":
    main()
