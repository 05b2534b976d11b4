"""How often 95% intervals hold, and how often a change or a dip is found where there is none.

Simulated benchmarks: every item has a rate of its own, from a beta distribution with the score as its mean,
from items that are all alike (correlation 0 of an item's samples) to nearly all or nothing (0.95); the rates
of two snapshots are those of the same ranks (kept 1), or move (a Gaussian copula with correlation `kept`).

    python benchmarks/coverage.py                # every cell, about 25 minutes on a core
    python benchmarks/coverage.py --worlds 200   # a look
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from jax_sft.statistics.changes import ALPHA, paired_change
from jax_sft.statistics.intervals import estimate, mean_of
from jax_sft.statistics.signs import holm

SCORES = (0.0, 0.02, 0.5, 0.97, 1.0)
ITEMS = (30, 100, 500)
SAMPLES = (1, 8)
ALIKE = (0.0, 0.2, 0.6, 0.95)
KEPT = (0.0, 0.5, 0.95, 1.0)
SNAPSHOTS = 8
QUANTILES = 4000


@dataclass(frozen=True)
class Cell:
    """One simulated benchmark: its true scores at the base and later, and what its items are like."""

    items: int
    samples: int
    base: float
    final: float
    alike: float
    kept: float = 1.0

    @property
    def informative(self) -> float:
        """Items that are expected to differ between two snapshots, or (final nan) to lie off the edge."""
        rng = np.random.default_rng(0)
        if np.isnan(self.final):
            of = draw(self, 200, rng, 1)[0]
            few, many = (of > 0).sum(1).mean(), (of < 1).sum(1).mean()
            return float(min(few, many))
        before, after = draw(self, 200, rng, 2)
        differ, keep = (before != after).sum(1).mean(), (np.abs(after - before) < 1).sum(1).mean()
        return float(min(differ, keep))


def draw(cell: Cell, worlds: int, rng: np.random.Generator, snapshots: int) -> list[np.ndarray]:
    """Item scores [worlds, items] of each snapshot: the first is the base, the others are later."""
    shared_WI = rng.standard_normal((worlds, cell.items))
    found = []
    for i in range(snapshots):
        moved_WI = rng.standard_normal((worlds, cell.items))
        normal_WI = cell.kept * shared_WI + np.sqrt(1 - cell.kept**2) * moved_WI if i else shared_WI
        rates_WI = _rates(cell.final if i else cell.base, cell.alike, normal_WI)
        found.append(rng.binomial(cell.samples, rates_WI) / cell.samples)
    return found


def _rates(score: float, alike: float, normal_WI: np.ndarray) -> np.ndarray:
    if score in (0.0, 1.0) or alike == 0:
        return np.full(normal_WI.shape, score)
    strength = 1 / alike - 1
    middles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    table = np.nan_to_num(stats.beta.ppf(middles, score * strength, (1 - score) * strength))
    places_WI = (stats.norm.cdf(normal_WI) * QUANTILES).astype(int)
    return table[np.minimum(places_WI, QUANTILES - 1)]


def score_coverage(cell: Cell, worlds: int, rng: np.random.Generator) -> float:
    """Share of worlds whose interval holds the true score."""
    held = 0
    for values_I in draw(cell, worlds, rng, 1)[0]:
        hits_I = np.rint(values_I * cell.samples).astype(int)
        rows = {str(i): [1.0] * hit + [0.0] * (cell.samples - hit) for i, hit in enumerate(hits_I)}
        found = estimate(rows)
        held += found.low <= cell.base <= found.high
    return held / worlds


def change_coverage(cell: Cell, worlds: int, rng: np.random.Generator) -> tuple[float, float]:
    """Shares of worlds whose interval holds the true change, and in which a change is found."""
    before_WI, after_WI = draw(cell, worlds, rng, 2)
    held = found = 0
    truth = cell.final - cell.base
    for before_I, after_I in zip(before_WI, after_WI, strict=True):
        change = paired_change(before_I, after_I, cell.samples, share=True)
        held += change.low - 1e-9 <= truth <= change.high + 1e-9
        found += change.p <= ALPHA
    return held / worlds, found / worlds


def false_dips(cell: Cell, worlds: int, rng: np.random.Generator) -> float:
    """Share of worlds in which the lowest of `SNAPSHOTS` equal snapshots is called a dip."""
    base_WI, *later = draw(cell, worlds, rng, 1 + SNAPSHOTS)
    dips = 0
    for world in range(worlds):
        changes = [
            paired_change(base_WI[world], after_WI[world], cell.samples, share=True) for after_WI in later
        ]
        lowest = int(np.argmin([change.mean for change in changes]))
        dips += changes[lowest].mean < 0 and holm([c.p_fall for c in changes])[lowest] <= ALPHA
    return dips / worlds


def mean_coverage(draw_I: Callable[[int], np.ndarray], truth: float, items: int, worlds: int) -> float:
    """Share of worlds whose interval of a mean of unbounded numbers holds the true mean."""
    found = [mean_of(draw_I(items)) for _ in range(worlds)]
    return sum(one.low <= truth <= one.high for one in found) / worlds


def score_cells() -> Iterator[Cell]:
    """Every cell of a single score; `final` is not a number."""
    for items, samples, score, alike in itertools.product(ITEMS, SAMPLES, SCORES, ALIKE):
        if (samples > 1 or alike == 0) and (score not in (0.0, 1.0) or alike == 0):
            yield Cell(items, samples, score, float("nan"), alike)


def change_cells() -> Iterator[Cell]:
    """Every cell of a change upwards; those downwards are the same turned round."""
    for items, samples, base, final in itertools.product(ITEMS, SAMPLES, SCORES, SCORES):
        if final < base:
            continue
        for alike, kept in itertools.product(ALIKE, KEPT):
            edges = {base, final} <= {0.0, 1.0}
            fixed = edges or alike == 0 or bool({base, final} & {0.0, 1.0})
            if (not edges or alike == 0) and (not fixed or kept == 1.0):
                yield Cell(items, samples, base, final, alike, kept)


def _summary(name: str, rows: list[tuple[Cell, float]]) -> None:
    """Lowest and highest coverage by number of items and samples, few informative items apart."""
    print(f"\n{name}: cells, lowest, highest; of cells with 5 or more informative items the same, in 93-97%")
    for items, samples in itertools.product(ITEMS, SAMPLES):
        of = [(cell, share) for cell, share in rows if (cell.items, cell.samples) == (items, samples)]
        many = [share for cell, share in of if cell.informative >= 5]
        every = [share for _, share in of]
        within = sum(0.93 <= share <= 0.97 for share in many)
        print(
            f"| {items} | {samples} | {len(every)} | {min(every):.1%} | {max(every):.1%} "
            f"| {len(many)} | {min(many):.1%} | {max(many):.1%} | {within} |"
        )


def _print_cells(kind: str, cells: list[Cell], of: Callable[[Cell], float]) -> list[tuple[Cell, float]]:
    rows = []
    for cell in cells:
        share = of(cell)
        rows.append((cell, share))
        mark = "below" if share < 0.93 else "above" if share > 0.97 else ""
        names = f"{cell.items} {cell.samples} {cell.base} {cell.final} {cell.alike} {cell.kept}"
        print(f"{kind} {names} {share:.1%} {mark}", flush=True)
    return rows


def main() -> None:
    """Print every cell and the tables of docs/statistics.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=2000, help="simulated studies a cell")
    worlds = parser.parse_args().worlds
    start = time.perf_counter()
    rng = np.random.default_rng(0)
    found: dict[Cell, float] = {}

    def changed(cell: Cell) -> float:
        held, found[cell] = change_coverage(cell, worlds, rng)
        return held

    scores = _print_cells("score", list(score_cells()), lambda cell: score_coverage(cell, worlds, rng))
    changes = _print_cells("change", list(change_cells()), changed)
    null = [cell for cell in found if cell.base == cell.final and cell.kept == 1.0]
    print(f"false changes: at most {max(found[cell] for cell in null):.1%} of {len(null)} cells")
    dips = [(false_dips(cell, worlds, rng), cell) for cell in null if 0 < cell.base < 1 and cell.items == 30]
    print(f"false dips: at most {max(share for share, _ in dips):.1%} of {len(dips)} cells")
    for items in ITEMS:
        normal = mean_coverage(lambda n: rng.normal(size=n), 0.0, items, worlds)
        skewed = mean_coverage(lambda n: rng.exponential(size=n), 1.0, items, worlds)
        print(f"mean of {items} numbers: normal {normal:.1%}, exponential {skewed:.1%}")
    _summary("Scores", scores)
    _summary("Changes", changes)
    print(f"\n{worlds} worlds a cell, {(time.perf_counter() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
