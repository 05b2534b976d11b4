"""Real sets through the whole path: built, prepared, packed, and every row found again in the batches."""

from pathlib import Path

import numpy as np

from jax_sft.config import DataConfig, TokensConfig
from jax_sft.data.batches import Batches, iterate
from jax_sft.data.prepared import PreparedRows, prepared_rows
from jax_sft.data.rows import RowSource
from jax_sft.data.sources import load_rows
from jax_sft.options import BuildOptions
from jax_sft.sets.build import build
from jax_sft.tasks.rows import Row
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template

TOKENS = TokensConfig()
TOKENIZER = load_tokenizer(TOKENS)
TEMPLATE = load_template(TOKENS, TOKENIZER)


def responses(rows: PreparedRows, data: DataConfig) -> list[str]:
    """What one epoch of batches asks to be learnt, example by example, in the order of the set."""
    batches = Batches(rows, data, seed=0, epochs=1)
    found: dict[int, str] = {}
    for batch in iterate(batches):
        numbers = batches.rows_of_step(batch.step)
        learnt: dict[bytes, list[str]] = {}
        for m, r in np.ndindex(batch.micro_batches, data.rows_per_micro_batch):
            tokens_T, segments_T = batch.rows.tokens[m, r], batch.rows.segments[m, r]
            for segment in range(1, segments_T.max() + 1):
                here_T = segments_T == segment
                targets = batch.rows.targets[m, r][here_T & (batch.rows.weights[m, r] > 0)]
                learnt.setdefault(tokens_T[here_T].tobytes(), []).append(TOKENIZER.decode(targets.tolist()))
        for number in numbers.tolist():
            tokens_N, _ = rows.take(np.array([number]))
            found[number] = learnt[tokens_N.tobytes()].pop()
        assert not any(learnt.values()), "nothing but the rows of the step"
    return [found[number] for number in sorted(found)]


def check(source: list[Row], data: DataConfig, data_root: str, tmp_path: Path) -> PreparedRows:
    rows = prepared_rows(RowSource(data, TOKENS, 0, data_root), TOKENIZER, TEMPLATE, tmp_path / "prepared")
    assert isinstance(rows, PreparedRows)
    assert (len(rows), rows.dropped, rows.truncated) == (len(source), 0, 0)
    found = responses(rows, data)
    assert len(found) == len(source) // data.batch_size * data.batch_size
    for row, text in zip(source, found, strict=False):
        assert text.startswith(row.response)
        assert len(text) <= len(row.response) + len("<|im_end|>\n")
    return rows


def test_gsm8k(shared_data: Path, tmp_path: Path) -> None:
    folder = build("gsm8k", tmp_path / "sets", BuildOptions(data_root=str(shared_data)))
    data = DataConfig(source=str(folder), batch_size=47, row_length=2048, rows_per_micro_batch=4)
    source = load_rows(data, 0)
    assert len(source) == 7473
    check(source, data, "", tmp_path)


def test_safety_reasoning(shared_data: Path, tmp_path: Path) -> None:
    options = {"prompt": "question", "response": "response"}
    data = DataConfig(
        source="reasoning_sft/STAR-1_decontaminated.json",
        options=dict(options),
        batch_size=16,
        row_length=16384,
        rows_per_micro_batch=2,
    )
    source = load_rows(data, 0, str(shared_data))
    assert all("<think>" in row.response for row in source)
    check(source, data, str(shared_data), tmp_path)
