"""Loss weights against rules written out by hand, the original trainer's among them."""

import numpy as np
import pytest

from jax_sft.config import DataConfig, replace
from jax_sft.data.weights import row_weights
from jax_sft.errors import UsageError


def original_loss(nll: list[np.ndarray], ranks: int, micro_batch: int) -> float:
    """The original trainer's effective loss, played out rank by rank and micro-batch by micro-batch."""
    per_rank = []
    for rank in range(ranks):
        mine = nll[rank::ranks]
        total = 0.0
        for start in range(0, len(mine), micro_batch):
            tokens = np.concatenate(mine[start : start + micro_batch])
            total += tokens.sum() / max(len(tokens), 1)
        per_rank.append(total)
    return sum(per_rank) / ranks


@pytest.mark.parametrize(
    ("rows", "micro_batch", "micro_batches"),
    [(256, 4, 8), (256, 2, 16), (32, 4, 1), (200, 4, 7), (250, 4, 8)],
)
def test_original_equals_the_trainer_played_out(rows: int, micro_batch: int, micro_batches: int) -> None:
    rng = np.random.default_rng(0)
    nll = [rng.exponential(size=rng.integers(0, 40)) for _ in range(rows)]
    config = replace(DataConfig(), weighting="original", original_micro_batch=micro_batch)
    targets_E = np.array([len(tokens) for tokens in nll])
    weights_E = row_weights(config, targets_E, rng.normal(size=rows))
    loss = sum(float(weight) * tokens.sum() for weight, tokens in zip(weights_E, nll, strict=True))
    assert loss == pytest.approx(original_loss(nll, 8, micro_batch), rel=1e-6)
    if rows % 8 == 0:
        assert weights_E @ targets_E == pytest.approx(micro_batches, rel=1e-6)


def test_token_mean_and_sequence_mean() -> None:
    targets_E, ones_E = np.array([1, 3, 0, 6]), np.ones(4)
    np.testing.assert_allclose(row_weights(DataConfig(), targets_E, ones_E), [0.1, 0.1, 0, 0.1], rtol=1e-7)
    config = replace(DataConfig(), weighting="sequence_mean")
    weights_E = row_weights(config, targets_E, ones_E)
    np.testing.assert_allclose(weights_E, [1 / 4, 1 / 12, 0, 1 / 24], rtol=1e-6)
    assert weights_E.dtype == np.float32


def test_advantage_multiplies() -> None:
    targets_E = np.array([2, 2])
    for rule in ("token_mean", "sequence_mean"):
        config = replace(DataConfig(), weighting=rule)
        plain_E = row_weights(config, targets_E, np.ones(2))
        np.testing.assert_allclose(row_weights(config, targets_E, np.array([-2.0, 0.5])), plain_E * [-2, 0.5])


def test_a_batch_without_targets_weighs_nothing() -> None:
    for rule in ("token_mean", "sequence_mean", "original"):
        config = replace(DataConfig(), weighting=rule)
        assert row_weights(config, np.zeros(16, int), np.ones(16)).tolist() == [0.0] * 16


def test_unknown_rule() -> None:
    with pytest.raises(UsageError, match=r"data\.weighting 'mean' is not one of token_mean"):
        row_weights(replace(DataConfig(), weighting="mean"), np.ones(2), np.ones(2))
