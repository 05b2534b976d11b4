"""Scores of several samples an item: the mean, one right in k, and the answer that most give."""

import math
from collections.abc import Mapping, Sequence

from jax_sft.statistics.intervals import Estimate, estimate

Sample = tuple[float, str]
"""A sample's value, and its answer as read; empty where it holds none."""


def pass_at_k(right: int, samples: int, k: int) -> float:
    """Chance that one of k samples is right, unbiased: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021).

    ValueError unless 1 <= k <= samples and 0 <= right <= samples.
    """
    if not 1 <= k <= samples or not 0 <= right <= samples:
        raise ValueError(f"pass@{k} of {right} right among {samples} samples")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def majority(samples: Sequence[Sample]) -> float:
    """Value of the answer that most samples give; of tied ones their mean, which is what a coin would give.

    Answers are compared as they were read. An answer's value is the mean over its samples; those that hold no
    answer have no vote, and if none has, the value is 0.
    """
    votes: dict[str, list[float]] = {}
    for value, answer in samples:
        if answer:
            votes.setdefault(answer, []).append(value)
    most = max(map(len, votes.values()), default=0)
    winners = [sum(values) / most for values in votes.values() if len(values) == most]
    return sum(winners) / len(winners) if winners else 0.0


def sampled_scores(
    samples_by_item: Mapping[str, Sequence[Sample]], weights: Mapping[str, float] | None = None
) -> dict[str, Estimate]:
    """`avg@n`, `pass@k` for k = 1, 2, 4, … n and `majority@n`; empty unless each item has n > 1 samples.

    `weights` are those of the items in the means. `pass@k` is given where all values are 0 or 1.
    """
    counts = {len(samples) for samples in samples_by_item.values()}
    if len(counts) != 1 or counts == {1}:
        return {}
    (count,) = counts
    values = {item: [value for value, _ in samples] for item, samples in samples_by_item.items()}
    found = {f"avg@{count}": estimate(values, weights)}
    if all(value in (0, 1) for of in values.values() for value in of):
        for k in sorted({*(2**i for i in range(count.bit_length()) if 2**i <= count), count}):
            passed = {item: [pass_at_k(int(sum(of)), count, k)] for item, of in values.items()}
            found[f"pass@{k}"] = estimate(values if k == 1 else passed, weights)
    most = {item: [majority(of)] for item, of in samples_by_item.items()}
    found[f"majority@{count}"] = estimate(most, weights)
    return found
