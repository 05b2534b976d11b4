"""The paired bootstrap of changes over many steps: a band that holds for all of them at once."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class ChangeBands:
    """Changes against the base at each step, with the margin that holds for all steps at once.

    The margin may judge a step picked because it was the lowest or the highest.
    """

    mean: np.ndarray
    margin: np.ndarray


def change_bands(changes: Sequence[np.ndarray], seed: int = 0) -> ChangeBands:
    """The band for the mean over benchmarks of the mean over items of paired changes.

    `changes` holds one array [items, steps] per benchmark: the item's score at the step minus its score at
    the base. Items are resampled with replacement, the same items for all steps, each benchmark on its own.
    The joint margin is the 95% point of the largest studentised deviation over the steps, times each step's
    standard error (the max-t method). Raises ValueError for no benchmark, or one without items.
    """
    if not changes or any(change.ndim != 2 or len(change) == 0 for change in changes):
        raise ValueError("every benchmark needs at least one paired item")
    means_RS = np.zeros((RESAMPLES, changes[0].shape[1]))
    for i, change_IS in enumerate(changes):
        counts_RI = _resample_counts(len(change_IS), seed + i)
        means_RS += (counts_RI @ change_IS.astype(np.float32)) / len(change_IS)
    means_RS /= len(changes)
    mean_S = np.mean([change.mean(axis=0) for change in changes], axis=0)
    error_S = means_RS.std(axis=0)
    deviation_RS = np.abs(means_RS - mean_S) / np.where(error_S > 1e-9, error_S, np.inf)
    margin_S = np.quantile(deviation_RS.max(axis=1), LEVEL) * error_S
    return ChangeBands(mean_S, margin_S)


@functools.lru_cache(maxsize=4)
def _resample_counts(items: int, seed: int) -> np.ndarray:
    """How often each item is drawn in each resample, [resamples, items]."""
    rng = np.random.default_rng((seed, items))
    return rng.multinomial(items, np.full(items, 1 / items), size=RESAMPLES).astype(np.float32)
