"""The exact paired test: if nothing changed, each item's difference is as likely to have the other sign."""

from collections.abc import Sequence

import numpy as np
from scipy import special

FINEST = 64
"""Differences that are multiples of 1/2 … 1/64 (means of so many samples) have an exact distribution."""
DRAWS = 20_000
"""Of what has no exact one."""
_TINY = 1e-9


def flipped_signs(differences: Sequence[np.ndarray], seed: int = 0) -> tuple[float, float]:
    """(two-sided, lower) p-values of the mean over benchmarks of their mean item differences.

    The distribution is that of all ways to give the differences other signs (Fisher's randomisation test;
    McNemar's exact test where all differ by one amount): exact for one benchmark of sample means,
    otherwise from `DRAWS` draws with a fixed seed, themselves counted in so that the p-values hold.
    """
    known = [np.asarray(difference_I, np.float64) for difference_I in differences]
    if len(known) == 1 and (step := _step(known[0])):
        return _exact(np.rint(known[0] * step).astype(int))
    rng = np.random.default_rng(seed)
    drawn_R = np.zeros(DRAWS)
    for difference_I in known:
        drawn_R += _drawn_sums(difference_I, rng) / len(difference_I)
    seen = sum(float(difference_I.mean()) for difference_I in known)
    return _counted(np.abs(drawn_R) >= abs(seen) - _TINY), _counted(drawn_R <= seen + _TINY)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that all of those at most alpha hold together (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[int(at)] = highest
    return adjusted


def _step(difference_I: np.ndarray) -> int:
    """The fewest parts of 1 of which all differences are whole numbers; 0 where there are none."""
    for step in range(1, FINEST + 1):
        steps_I = difference_I * step
        if np.abs(steps_I - np.rint(steps_I)).max(initial=0.0) < 1e-7:
            return step
    return 0


def _exact(steps_I: np.ndarray) -> tuple[float, float]:
    sums, chances = _distribution(steps_I)
    seen = int(steps_I.sum())
    two_sided = float(chances[np.abs(sums) >= abs(seen)].sum())
    return min(two_sided, 1.0), min(float(chances[sums <= seen].sum()), 1.0)


def _distribution(steps_I: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the whole numbers with all signs, ascending, and their chances."""
    sizes, counts = np.unique(np.abs(steps_I[steps_I != 0]), return_counts=True)
    chances = np.ones(1)  # of sums from -total to total, two apart
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        chances = np.convolve(chances, _signed_sum(size, count))
    return np.arange(len(chances)) * 2 - (len(chances) - 1), chances


def _signed_sum(size: int, count: int) -> np.ndarray:
    """Chances of the sums of `count` numbers +-size, from the lowest on, two apart."""
    chances = np.zeros(size * count + 1)
    ways_C = special.gammaln(count + 1) - special.gammaln(np.arange(count + 1) + 1)
    ways_C -= special.gammaln(count - np.arange(count + 1) + 1)
    chances[::size] = np.exp(ways_C - count * np.log(2))
    return chances


def _drawn_sums(difference_I: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sums of the differences with random signs, `DRAWS` of them."""
    if step := _step(difference_I):
        sums, chances = _distribution(np.rint(difference_I * step).astype(int))
        places_R = np.searchsorted(np.cumsum(chances), rng.random(DRAWS) * chances.sum(), side="right")
        return sums[np.minimum(places_R, len(sums) - 1)] / step
    sizes_I = np.abs(difference_I[np.abs(difference_I) > _TINY])
    drawn_R = np.zeros(DRAWS)
    for size in sizes_I:
        drawn_R += size * (2.0 * rng.integers(0, 2, DRAWS) - 1)
    return drawn_R


def _counted(extreme_R: np.ndarray) -> float:
    return (1 + int(extreme_R.sum())) / (1 + len(extreme_R))
