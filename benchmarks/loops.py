"""What is cut for repeating itself: nothing of real texts, and every made-up loop.

    python benchmarks/loops.py DATA_ROOT --tokenizer smollm2

Every text below DATA_ROOT/fixtures and DATA_ROOT/reasoning_sft (completions of models, worked answers, think
blocks, tool calls), and every reference solution of HumanEval and MBPP, goes through the watch as a
completion would, at the span that a study has by default and at shorter ones. Then loops of many periods are
put after real texts: how many are found, and what share of the tokens up to a limit of 32,768 is saved.
"""

import argparse
import csv
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jax_sft.config import EvaluationConfig, TokensConfig
from jax_sft.generation.loops import LOOK, Loops
from jax_sft.tokens.loading import load_tokenizer

LIMIT = 32_768
PERIODS = (1, 2, 3, 5, 8, 13, 31, 64, 100, 200, 333, 512, 1000, 1024)


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_of(inner)


def read(path: Path) -> Iterator[str]:
    """Every text in a file of rows."""
    content = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    if path.suffix == ".csv":
        yield from texts_of(list(csv.DictReader(content.splitlines())))
    elif path.suffix == ".json":
        yield from texts_of(json.loads(content))
    else:
        yield from texts_of([json.loads(line) for line in content.splitlines() if line.strip()])


def main() -> None:
    """Print a line for each span, then for each period."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--tokenizer", default="smollm2")
    flags = parser.parse_args()
    paths = [
        path
        for folder in ("fixtures", "reasoning_sft", "benchmarks")
        for path in sorted((flags.data_root / folder).iterdir())
        if path.suffix in (".csv", ".json", ".jsonl", ".gz")
        and (folder != "benchmarks" or "mbpp" in path.name or "HumanEval" in path.name)
    ]
    tokenizer = load_tokenizer(TokensConfig(tokenizer=flags.tokenizer))
    rows = [tokenizer.encode(text) for path in paths for text in read(path)]
    print(f"{len(rows):,} texts of {len(paths)} files, {sum(map(len, rows)):,} tokens")
    usual = EvaluationConfig().loop_tokens
    for span in (64, 96, 128, 256, usual):
        started = time.perf_counter()
        cut = sum(Loops(span).look(row) > 0 for row in rows)
        rate = sum(map(len, rows)) / (time.perf_counter() - started)
        print(f"span {span}: {cut} cut; {rate / 1e6:.1f} million tokens/s on one core")
    rng = np.random.default_rng(0)
    before = [row for row in rows if len(row) > 100]
    for period in PERIODS:
        kept = []
        for _ in range(20):
            text = before[rng.integers(len(before))]
            unit = rng.integers(0, tokenizer.vocab_size, period).tolist()
            loops, tokens = Loops(usual), (text + unit * (LIMIT // period + 1))[:LIMIT]
            ends = (loops.look(tokens[:end]) for end in range(LOOK, LIMIT + LOOK, LOOK))
            kept.append(next((end for end in ends if end), 0) - len(text))
        found, most = sum(count > 0 for count in kept), max(kept)
        print(
            f"period {period}: {found} of 20 found, after {most} tokens at most, {1 - most / LIMIT:.1%} saved"
        )


if __name__ == "__main__":
    main()
