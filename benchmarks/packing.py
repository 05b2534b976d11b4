"""How full packed rows are and how even the devices' attention work is, on lengths shaped like the paper's.

    python benchmarks/packing.py
    python benchmarks/packing.py --median 4000 --sigma 0.7 --batches 80

Lengths are log-normal, cut at 16,384; batches of 256 rows. A micro-batch holds one packed row for each data
shard. `full` is real tokens over all positions computed, rows that only fill the mesh included. `uneven` is
the attention cost (sum of squared lengths) of the costliest shard over the mean one, less 1, by
micro-batch; `no better` is what the longest row of a batch makes of it where one micro-batch holds all.
`saved` is how many times fewer positions that is than rows padded to 20,000 tokens, as the original pads.
Each mesh is shown with one row length of 20,480 and with four lengths fitted to the data.
"""

import argparse
import time

import numpy as np

from jax_sft.config import DataConfig
from jax_sft.data.batches import Batches
from jax_sft.data.rows import TokenisedRows

LONGEST, ROW_LENGTH, ORIGINAL_LENGTH, BATCH = 16_384, 20_480, 20_000, 256


def paper_like_rows(median: int, sigma: float, batches: int) -> TokenisedRows:
    """Rows of those lengths; what they say does not matter here."""
    lengths_E = median * np.exp(sigma * np.random.default_rng(0).standard_normal(batches * BATCH))
    lengths_E = np.clip(np.round(lengths_E), 64, LONGEST).astype(np.int64)
    return TokenisedRows(
        tokens_N=np.ones(lengths_E.sum(), np.int32),
        is_target_N=np.ones(lengths_E.sum(), np.bool_),
        offsets=np.concatenate([[0], np.cumsum(lengths_E)]),
        advantage_E=np.ones(len(lengths_E), np.float32),
    )


def line(rows: TokenisedRows, shards: int, sequence: int, lengths: tuple[int, ...]) -> str:
    """One line of the table for a mesh of data shards times sequence shards."""
    config = DataConfig(
        batch_size=BATCH, row_length=ROW_LENGTH, row_lengths=lengths, rows_per_micro_batch=shards
    )
    batches = Batches(rows, config, seed=0, epochs=1)
    report = batches.packing
    squares_SB = rows.lengths_E.reshape(-1, BATCH).astype(np.float64) ** 2
    bound = (squares_SB.max(axis=1) / (squares_SB.sum(axis=1) / shards)).mean() - 1
    saved = report.saved_against_row_length * ORIGINAL_LENGTH / ROW_LENGTH
    start = time.perf_counter()
    for step in range(1, 5):
        batches.batch(step)
    seconds = (time.perf_counter() - start) / 4
    shown = " ".join(str(length) for length in report.row_lengths)
    return (
        f"{shards:5d} x {sequence:<4d} {shown:28s} {report.efficiency:6.1%} {report.imbalance:7.1%} "
        f"{max(bound, 0):10.1%} {saved:6.2f} {seconds:9.2f}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--median", type=int, default=5000)
    parser.add_argument("--sigma", type=float, default=0.7)
    parser.add_argument("--batches", type=int, default=80)
    arguments = parser.parse_args()
    rows = paper_like_rows(arguments.median, arguments.sigma, arguments.batches)
    print(
        f"rows of {rows.lengths_E.mean():.0f} tokens on average, median {arguments.median}, at most {LONGEST}"
    )
    print("data x seq.  row lengths                    full  uneven  no better  saved s a batch")
    for shards, sequence in ((8, 1), (64, 1), (32, 2), (16, 4)):
        batches = Batches(
            rows, DataConfig(batch_size=BATCH, row_length=ROW_LENGTH, rows_per_micro_batch=shards), 0, 1
        )
        # Rows half as long again as the longest leave room to even out the shard that holds that one.
        candidates = range(LONGEST * 3 // 2 * sequence, LONGEST * 5 // 2 * sequence + 1, 512 * sequence)
        for lengths in ((ROW_LENGTH,), batches.fitted_row_lengths(4, candidates)[0]):
            print(line(rows, shards, sequence, lengths), flush=True)


if __name__ == "__main__":
    main()
