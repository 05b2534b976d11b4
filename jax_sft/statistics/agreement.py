"""How far two judges agree beyond chance: Cohen's kappa, with an interval that knows items."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from jax_sft.statistics.intervals import Estimate

RESAMPLES = 4000
_PRIOR = 0.5


def cohen_kappa(ratings: Mapping[str, Sequence[tuple[bool, bool]]], seed: int = 0) -> tuple[float, Estimate]:
    """The share of ratings that agree, and Cohen's kappa (1960) of two judges with its 95% interval.

    `ratings` holds, by item, what the first and the second judge say of each of its samples. The interval is
    that of the Bayesian bootstrap (Rubin 1981) over items, with half an observation in each of the four
    cells, so that it has a width where few items show no disagreement. Where both always say the same one
    thing kappa is not defined: it comes with n 0.
    """
    patterns = Counter(_cells(of) for of in ratings.values() if of)
    items = sum(patterns.values())
    cells_P4, times_P = np.array(list(patterns), float).reshape(-1, 4), np.array(list(patterns.values()))
    total_4 = times_P @ cells_P4 if items else np.zeros(4)
    if total_4.sum() == 0 or max(total_4[0], total_4[3]) == total_4.sum():
        return float(total_4.sum() > 0), Estimate(0.0, -1.0, 1.0, 0)
    rng = np.random.default_rng(seed)
    # The weights of items alike add up to a gamma draw.
    weights_RP = rng.gamma(times_P, size=(RESAMPLES, len(times_P)))
    drawn_R4 = weights_RP @ cells_P4 + rng.gamma(_PRIOR, size=(RESAMPLES, 4))
    low, high = np.quantile(_kappa(drawn_R4), (0.025, 0.975))
    kappa = float(_kappa(total_4[None])[0])
    share = float((total_4[0] + total_4[3]) / total_4.sum())
    return share, Estimate(kappa, min(float(low), kappa), max(float(high), kappa), items)


def _cells(pairs: Sequence[tuple[bool, bool]]) -> tuple[int, int, int, int]:
    """How often both say no, only the second yes, only the first yes, both yes."""
    found = Counter((bool(first), bool(second)) for first, second in pairs)
    return (found[False, False], found[False, True], found[True, False], found[True, True])


def _kappa(cells_R4: np.ndarray) -> np.ndarray:
    share_R4 = cells_R4 / cells_R4.sum(axis=1, keepdims=True)
    first_R, second_R = share_R4[:, 2] + share_R4[:, 3], share_R4[:, 1] + share_R4[:, 3]
    chance_R = first_R * second_R + (1 - first_R) * (1 - second_R)
    return (share_R4[:, 0] + share_R4[:, 3] - chance_R) / (1 - chance_R)
