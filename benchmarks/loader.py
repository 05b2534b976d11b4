"""Tokens per second of the loader alone, and its memory over many steps.

    python benchmarks/loader.py                        # the quickstart's shape, then the paper's
    python benchmarks/loader.py --steps 10000

Rows are log-normal in length; in memory first, then prepared on disk (ArrayRecord). One thread makes batches,
as in training; nothing is done with them. `grown`: resident memory at the end less that after a tenth.
"""

import argparse
import os
import tempfile
import time

import numpy as np
from etils import epath

from jax_sft.config import DataConfig
from jax_sft.data.batches import Batches, iterate
from jax_sft.data.prepared import PreparedRows, write_prepared
from jax_sft.data.rows import RowSet, TokenisedRows
from jax_sft.files import read_json

SHAPES = {
    "quickstart": (
        DataConfig(batch_size=64, row_length=128, rows_per_micro_batch=16, shuffle=True),
        40,
        0.5,
        8192,
    ),
    "traces": (
        DataConfig(batch_size=32, row_length=512, rows_per_micro_batch=8, shuffle=True),
        180,
        0.6,
        4096,
    ),
    "paper": (
        DataConfig(batch_size=256, row_length=20_480, rows_per_micro_batch=8, shuffle=True),
        5000,
        0.7,
        2560,
    ),
}


def make_rows(config: DataConfig, median: int, sigma: float, count: int) -> TokenisedRows:
    """Random rows no longer than 0.8 of a packed row."""
    lengths_E = median * np.exp(sigma * np.random.default_rng(0).standard_normal(count))
    lengths_E = np.clip(lengths_E, 2, 0.8 * config.row_length).astype(np.int64)
    return TokenisedRows(
        tokens_N=np.ones(lengths_E.sum(), np.int32),
        is_target_N=np.ones(lengths_E.sum(), np.bool_),
        offsets=np.concatenate([[0], np.cumsum(lengths_E)]),
        advantage_E=np.ones(count, np.float32),
    )


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def line(name: str, rows: RowSet, config: DataConfig, steps: int) -> str:
    """One line: tokens per second and how memory grew."""
    batches = Batches(rows, config, 0, steps * config.batch_size / len(rows))
    tokens, early, start = 0, 0, time.perf_counter()
    for batch in iterate(batches):
        tokens += batch.token_count
        if batch.step == batches.total_steps // 10:
            early = resident()
    seconds = time.perf_counter() - start
    return (
        f"{name:22s} {batches.total_steps:6d} steps  {tokens / seconds:12,.0f} tokens/s  "
        f"{1000 * seconds / batches.total_steps:6.1f} ms a step  grown {(resident() - early) / 1e6:+.1f} MB"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    arguments = parser.parse_args()
    for name in arguments.shapes:
        config, median, sigma, count = SHAPES[name]
        steps = min(arguments.steps, 40) if name == "paper" else arguments.steps
        rows = make_rows(config, median, sigma, count)
        print(line(f"{name}, memory", rows, config, steps), flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            folder = epath.Path(scratch) / "rows"
            write_prepared(folder, rows, {}, {})
            prepared = PreparedRows(folder, read_json(folder / "manifest.json"))
            print(line(f"{name}, prepared", prepared, config, steps), flush=True)


if __name__ == "__main__":
    main()
