"""Loops: every made-up one is found, nothing that ends by itself is cut."""

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jax_sft.config import TokensConfig
from jax_sft.generation.loops import LONGEST_PERIOD, LOOK, PERIODS, Loops, period_of
from jax_sft.tokens.loading import load_tokenizer

SPAN = 512


def plain_period(tokens: list[int], span: int) -> int:
    """The least period by trying each, token by token."""
    for period in range(1, LONGEST_PERIOD + 1):
        length = max(span, PERIODS * period)
        if length <= len(tokens) and all(
            tokens[-back] == tokens[-back - period] for back in range(1, length - period + 1)
        ):
            return period
    return 0


@pytest.mark.short
def test_periods_agree_with_the_reference_on_random_endings() -> None:
    """Few kinds of tokens, so that repetitions hold repetitions; some broken by a single token."""
    rng = random.Random(0)
    found = set()
    for _ in range(400):
        span, kinds = rng.choice([64, 80, 128]), rng.choice([1, 2, 3, 50])
        unit = [rng.randrange(kinds) for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 21, 40]))]
        before = [rng.randrange(kinds) for _ in range(rng.randrange(100))]
        tokens = before + (unit * 400)[: rng.randrange(40, 400)]
        if rng.random() < 0.3:
            tokens[rng.randrange(max(0, len(tokens) - span), len(tokens))] = 99
        want = plain_period(tokens, span)
        assert period_of(np.asarray(tokens, np.int32), span) == want
        found.add(want)
    assert {0, 1, 2, 3, 5, 8, 13} <= found


@pytest.mark.parametrize("period", [1, 2, 7, 31, 64, 65, 500, LONGEST_PERIOD])
@pytest.mark.parametrize("chunk", [1, 32, 45, 10_000])
def test_every_loop_is_found_at_the_same_token(period: int, chunk: int) -> None:
    rng = np.random.default_rng(period)
    before = rng.integers(0, 5000, 321).tolist()
    unit = rng.integers(0, 5000, period).tolist()
    tokens = before + unit * (12_000 // period + 1)
    loops, kept = Loops(SPAN), 0
    for end in range(chunk, len(tokens) + chunk, chunk):
        if kept := loops.look(tokens[:end]):
            break
    repeated = max(SPAN, PERIODS * period)
    assert len(before) + repeated <= kept < len(before) + repeated + LOOK
    assert kept % LOOK == 0


def test_what_only_looks_like_a_loop_goes_on() -> None:
    """Counting, a counter in a repeated line, a table, and repetitions shorter than the span."""
    digits = [list(map(int, str(number))) for number in range(3000)]
    counting = [token for number in digits for token in [*number, 77]]
    lines = [token for number in digits for token in [50, 51, 52, *number, 53, 54, 77]]
    rng = random.Random(0)
    table = [token for _ in range(500) for token in [60, rng.randrange(10), 60, rng.randrange(10), 77]]
    short = [token for _ in range(20) for token in [9] * (SPAN - 1) + [rng.randrange(10, 20)]]
    few = (rng.choices(range(5000), k=900) * (PERIODS - 1)) + rng.choices(range(5000), k=900)
    for tokens in (counting, lines, table, short, few):
        assert Loops(SPAN).look(tokens) == 0


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    else:
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from texts_of(inner)


def test_no_real_text_is_cut(shared_data: Path) -> None:
    """Completions of models and worked answers by people: tables, code, arithmetic, think blocks."""
    texts: list[str] = []
    for path in (*shared_data.glob("fixtures/*.csv"), *shared_data.glob("*/ifeval_gpt4*")):
        rows = path.read_text().splitlines()
        rows = list(csv.DictReader(rows)) if path.suffix == ".csv" else [json.loads(row) for row in rows]
        texts += texts_of(rows)
    for name in ("marco_o1_CoT_demo", "rasbt_sample_ollama_outputs", "STAR-1_decontaminated"):
        texts += list(texts_of(json.loads((shared_data / f"reasoning_sft/{name}.json").read_text())))[:2000]
    tokenizer = load_tokenizer(TokensConfig())
    tokens = [tokenizer.encode(text) for text in texts]
    assert sum(map(len, tokens)) > 500_000
    assert [text[:80] for text, ids in zip(texts, tokens, strict=True) if Loops(128).look(ids)] == []
