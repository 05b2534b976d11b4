"""How far two ways of computing are apart, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.generation.precision import agreement, difference


def test_agreement_counts_tokens_before_the_first_that_differs() -> None:
    found = agreement({"a": (1, 2, 3, 4), "b": (5, 6), "c": (7,)}, {"a": (1, 2, 9, 4), "b": (5, 6), "c": ()})
    assert found.completions == pytest.approx(1 / 3)
    assert found.tokens == pytest.approx(4 / 7)
    assert found.first == (("c", 0), ("a", 2))


def test_the_difference_of_logits_is_the_divergence_of_what_they_mean() -> None:
    p = np.array([[0.5, 0.5], [0.9, 0.1]])
    q = np.array([[0.25, 0.75], [0.9, 0.1]])
    found = difference(jnp.log(p) + 3, jnp.log(q))
    assert found.nats == pytest.approx((0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)) / 2, abs=1e-6)
    assert found.largest == pytest.approx(np.log(2), abs=1e-6)
    assert found.greedy == 0.5
