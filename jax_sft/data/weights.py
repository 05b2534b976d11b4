"""Rules that give each target token its weight in the loss; the device computes `sum(weight * nll)`.

Every rule here gives all targets of one row the same weight, so a rule is a function from the batch's
target counts to one number per row. Losses that need the model's own probabilities cannot live here.
"""

from collections.abc import Callable

import numpy as np

from jax_sft.config import DataConfig
from jax_sft.errors import UsageError


def row_weights(config: DataConfig, targets_E: np.ndarray, advantage_E: np.ndarray) -> np.ndarray:
    """Weight of each target token of every row of one batch, float32 [E].

    `targets_E` counts the targets of each row, in the order of the batch; rows without targets weigh
    nothing. Rules, by `config.weighting`:

    - `token_mean`: 1 / targets of the batch, times the row's advantage.
    - `sequence_mean`: 1 / (rows of the batch * targets of the row), times the row's advantage.
    - `original`: as the trainer of arXiv 2604.06628 does it, see `_original`.
    """
    rules: dict[str, Callable[[DataConfig, np.ndarray], np.ndarray]] = {
        "token_mean": _token_mean,
        "sequence_mean": _sequence_mean,
        "original": _original,
    }
    if config.weighting not in rules:
        raise UsageError(f"data.weighting {config.weighting!r} is not one of {', '.join(rules)}")
    weights_E = rules[config.weighting](config, targets_E.astype(np.float64))
    # The original's objective takes an advantage column and does not use it.
    factor_E = 1.0 if config.weighting == "original" else advantage_E
    return np.where(targets_E > 0, weights_E * factor_E, 0.0).astype(np.float32)


def _token_mean(config: DataConfig, targets_E: np.ndarray) -> np.ndarray:
    return np.full(targets_E.shape, 1.0 / max(targets_E.sum(), 1.0))


def _sequence_mean(config: DataConfig, targets_E: np.ndarray) -> np.ndarray:
    return 1.0 / (len(targets_E) * np.maximum(targets_E, 1.0))


def _original(config: DataConfig, targets_E: np.ndarray) -> np.ndarray:
    """Token mean inside each micro-batch of each rank, summed over micro-batches, averaged over ranks.

    Rank r of W holds rows r, r+W, r+2W, … of the batch and cuts them into micro-batches of b rows (the
    last may be shorter). Gradients of a rank's micro-batches are added up undivided, so the weights of a
    batch sum to its number of micro-batches per rank.
    """
    ranks, micro_batch = config.original_ranks, config.original_micro_batch
    row_E = np.arange(len(targets_E))
    group_E = (row_E // ranks // micro_batch) * ranks + row_E % ranks
    group_targets = np.bincount(group_E, weights=targets_E)
    return 1.0 / (ranks * np.maximum(group_targets[group_E], 1.0))
