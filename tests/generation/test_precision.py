"""How far two ways of computing are apart, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import EvaluationConfig
from jax_sft.generation.precision import agreement, difference, text_logits
from jax_sft.models.decoder import forward_rows, logits
from jax_sft.packed import Rows
from tests.generation.tiny import MODEL, params


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


def test_logits_in_fewer_bits_are_near_those_of_the_whole_model() -> None:
    text = [7 * n % 96 for n in range(40)]
    tokens, places = jnp.asarray([text]), jnp.arange(40)[None]
    hidden = forward_rows(params(), MODEL, Rows.to_read(tokens, places, jnp.ones_like(tokens)))
    whole = logits(params(), MODEL, hidden)[0]
    evaluation = EvaluationConfig(compute_dtype="float32")
    np.testing.assert_allclose(text_logits(params(), MODEL, text, evaluation), whole, atol=2e-4)
    nats = {}
    for bits in ({"weight_dtype": "int8"}, {"kv_dtype": "int8"}, {"kv_dtype": "float8_e5m2"}):
        coarse = text_logits(params(), MODEL, text, EvaluationConfig(compute_dtype="float32", **bits))
        nats[next(iter(bits.values())), "weight_dtype" in bits] = difference(whole, coarse).nats
    assert 0 < nats["int8", False] < nats["float8_e5m2", False], "8 bits with scales are finer than e5m2"
    assert 0 < nats["int8", True] < 1
