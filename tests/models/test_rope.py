"""Rotary scalings: what depends on the length of an example, and what stays as it was."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ModelConfig, RopeScaling, replace
from jax_sft.models.rope import base_frequencies, example_lengths, rope_tables

pytestmark = pytest.mark.short

CONFIG = ModelConfig(head_dim=16, max_positions=8, rope_scaling=RopeScaling("dynamic", 2.0))


def positions(*lengths: int) -> jnp.ndarray:
    return jnp.concatenate([jnp.arange(length) for length in lengths])[None]


def test_lengths_are_those_of_the_examples() -> None:
    assert example_lengths(positions(3, 1, 4), None)[0].tolist() == [3, 3, 3, 1, 4, 4, 4, 4]
    # Padding that counts on from a prompt of three tokens belongs to another segment.
    segments_1T = jnp.asarray([[1, 1, 1, 0, 0]])
    assert example_lengths(positions(5), segments_1T)[0, :3].tolist() == [3, 3, 3]
    # Decoding sees one token a slot: the length so far.
    assert example_lengths(jnp.asarray([[6], [0]]), None).tolist() == [[7], [1]]


def test_dynamic_scaling_of_an_example_ignores_its_neighbours() -> None:
    packed = rope_tables(positions(5, 20, 7), CONFIG)
    for start, length in ((0, 5), (5, 20), (25, 7)):
        alone = rope_tables(positions(length), CONFIG)
        for ours, wanted in zip(packed, alone, strict=True):
            np.testing.assert_array_equal(ours[:, start : start + length], wanted)


def test_dynamic_scaling_acts_beyond_the_original_length_only() -> None:
    plain = replace(CONFIG, rope_scaling=RopeScaling())
    for length, same in ((8, True), (9, False)):
        ours, wanted = (rope_tables(positions(length), config)[0] for config in (CONFIG, plain))
        assert np.array_equal(ours, wanted) == same


def test_decoding_turns_a_token_as_the_whole_row_does_at_its_last_token() -> None:
    whole = rope_tables(positions(20), CONFIG)
    step = rope_tables(jnp.asarray([[19]]), CONFIG)
    for ours, wanted in zip(step, whole, strict=True):
        np.testing.assert_array_equal(ours[:, 0], wanted[:, -1])


def test_scaled_frequencies_lie_between_plain_and_stretched_ones() -> None:
    plain_h, _ = base_frequencies(replace(CONFIG, rope_scaling=RopeScaling()))
    np.testing.assert_allclose(
        base_frequencies(replace(CONFIG, rope_scaling=RopeScaling("linear", 4.0)))[0], plain_h / 4, rtol=1e-6
    )
    kinds: tuple[Literal["llama3", "yarn"], ...] = ("llama3", "yarn")
    for kind in kinds:
        scaling = RopeScaling(kind, 4.0, original_positions=512)
        scaled_h, factor = base_frequencies(replace(CONFIG, rope_scaling=scaling))
        assert scaled_h[0] == plain_h[0]
        assert scaled_h[-1] == pytest.approx(plain_h[-1] / 4, rel=1e-6)
        assert (np.diff(plain_h / scaled_h) >= -1e-6).all()
        assert factor == pytest.approx(1.0 if kind == "llama3" else 0.1 * np.log(4) + 1)
