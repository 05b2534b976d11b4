"""The best of several snapshots, chosen on the very items that then score it: by how much that flatters."""

import functools
from collections.abc import Sequence

import numpy as np

HALVINGS = 400


def held_out_best(changes: Sequence[np.ndarray], seed: int = 0) -> float:
    """Change of the snapshot chosen as the best, measured on items that it was not chosen on.

    `changes` holds an array [items, steps] of item changes for each benchmark. Mean over `HALVINGS` random
    halvings of the items: one half chooses the step with the highest mean over benchmarks, the other half
    scores it (repeated split-half validation). NaN where a benchmark has fewer than 2 items.
    """
    if any(len(change_IS) < 2 for change_IS in changes):
        return float("nan")
    chosen_RS, scored_RS = (np.zeros((HALVINGS, changes[0].shape[1])) for _ in range(2))
    for i, change_IS in enumerate(changes):
        items = len(change_IS)
        first_RI = _halves(items, seed + i)
        sums_RS, whole_S = first_RI @ change_IS, change_IS.sum(axis=0)
        chosen_RS += sums_RS / (items // 2)
        scored_RS += (whole_S - sums_RS) / (items - items // 2)
    best_R = chosen_RS.argmax(axis=1)
    return float(scored_RS[np.arange(HALVINGS), best_R].mean()) / len(changes)


@functools.lru_cache(maxsize=16)
def _halves(items: int, seed: int) -> np.ndarray:
    """1 where an item is in the first half, [halvings, items]."""
    rng = np.random.default_rng((seed, items))
    return (rng.random((HALVINGS, items)).argsort(axis=1) < items // 2).astype(np.float64)
