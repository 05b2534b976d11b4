"""One small SFT problem for every family: the same rows for transformers (one by one) and for us (packed)."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jax_sft.config import ModelConfig, OptimizerConfig, Run
from jax_sft.packed import Rows, empty_rows
from jax_sft.training.placement import DeviceBatch

STEPS = 20
OPTIMIZER = OptimizerConfig(
    learning_rate=2e-3, schedule="constant", warmup_fraction=0.0, weight_decay=0.05, clip_norm=0.7
)
LENGTHS = ((20, 9, 13), (31,), (16, 15), (5, 6, 7, 8))
"""Examples in each packed row; two packed rows make a micro-batch, two micro-batches a step."""
ROW_LENGTH = 48
VOCABULARY = 61


@dataclass(frozen=True)
class Example:
    """Tokens, and how many of them are the prompt."""

    ids: np.ndarray
    prompt: int


def examples(step: int) -> list[list[Example]]:
    """The examples of one step, by packed row."""
    rng = np.random.default_rng(100 + step)
    return [
        [
            Example(rng.integers(0, VOCABULARY, length).astype(np.int32), int(rng.integers(1, length // 2)))
            for length in row
        ]
        for row in LENGTHS
    ]


def target_count(step: int) -> int:
    """Tokens the loss of a step is a mean over."""
    return sum(len(example.ids) - example.prompt for row in examples(step) for example in row)


def packed_batch(step: int) -> DeviceBatch:
    """The same examples as two micro-batches of two packed rows."""
    shape = (len(LENGTHS), ROW_LENGTH)
    rows = empty_rows(shape)
    for row, members in enumerate(examples(step)):
        start = 0
        for number, example in enumerate(members, start=1):
            size = len(example.ids)
            rows.tokens[row, start : start + size] = example.ids
            rows.targets[row, start : start + size - 1] = example.ids[1:]
            rows.positions[row, start : start + size] = np.arange(size)
            rows.segments[row, start : start + size] = number
            rows.weights[row, start + example.prompt - 1 : start + size - 1] = 1 / target_count(step)
            start += size
    rows = Rows(*(jnp.asarray(x.reshape(2, 2, ROW_LENGTH)) for x in rows))
    return DeviceBatch(rows, jnp.asarray(2, jnp.int32))


def make_run(model: ModelConfig) -> Run:
    """The run whose steps these are."""
    return Run(model=model, optimizer=OPTIMIZER, compute_dtype="float32")


def describe(gradients: dict[str, np.ndarray]) -> np.ndarray:
    """Two numbers for each tensor, in the order of the names: its norm, and its product with fixed noise."""
    described = []
    for name in sorted(gradients):
        flat = gradients[name].astype(np.float64).ravel()
        noise = np.random.default_rng(flat.size).standard_normal(flat.size)
        described.append((np.linalg.norm(flat), flat @ noise))
    return np.asarray(described)
