"""Cohen's kappa: textbook values, and intervals that cover."""

import numpy as np

from jax_sft.statistics.agreement import cohen_kappa


def one_each(*cells: tuple[bool, bool, int]) -> dict[str, list[tuple[bool, bool]]]:
    pairs = [(first, second) for first, second, count in cells for _ in range(count)]
    return {str(number): [pair] for number, pair in enumerate(pairs)}


def test_a_textbook_example() -> None:
    """50 proposals, 20 accepted by both and 15 by neither (Wikipedia, Cohen's kappa): 0.4."""
    share, kappa = cohen_kappa(
        one_each((True, True, 20), (True, False, 5), (False, True, 10), (False, False, 15))
    )
    assert share == 0.7
    np.testing.assert_allclose(kappa.mean, 0.4)
    # By the standard error of Fleiss, Cohen and Everitt (1969), 0.127: 0.15 to 0.65.
    np.testing.assert_allclose([kappa.low, kappa.high], [0.15, 0.65], atol=0.05)
    assert kappa.n == 50


def test_agreement_without_an_exception_has_a_width_and_of_one_word_no_kappa() -> None:
    share, kappa = cohen_kappa(one_each((True, True, 6), (False, False, 6)))
    assert (share, kappa.mean, kappa.high) == (1.0, 1.0, 1.0)
    assert 0.2 < kappa.low < 0.8
    share, kappa = cohen_kappa(one_each((True, True, 9)))
    assert (share, kappa.n) == (1.0, 0)
    assert cohen_kappa({})[1].n == 0


def test_samples_of_an_item_are_no_further_items() -> None:
    """Ten copies of every rating say no more than one."""
    single = one_each((True, True, 8), (True, False, 4), (False, False, 8))
    tenfold = {item: pairs * 10 for item, pairs in single.items()}
    few, many = cohen_kappa(single)[1], cohen_kappa(tenfold)[1]
    np.testing.assert_allclose(few.mean, many.mean)
    assert many.high - many.low > 0.8 * (few.high - few.low)


def test_intervals_cover() -> None:
    """Two judges, each right 9 times in 10 about what is so half of the time: kappa is 0.64."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        truth = rng.random(60) < 0.5
        first, second = (np.where(rng.random(60) < 0.9, truth, ~truth) for _ in range(2))
        kappa = cohen_kappa({str(i): [pair] for i, pair in enumerate(zip(first, second, strict=True))})[1]
        hits += kappa.low <= 0.64 <= kappa.high
    assert 0.90 <= hits / 200 <= 0.99
