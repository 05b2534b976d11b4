"""Likelihoods and divergences in chunks and tiles against the plain ones that make every logit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ParallelismConfig
from jax_sft.models.likelihood import divergences, target_logprobs
from jax_sft.models.vocabulary import TILE_ELEMENTS, Options
from jax_sft.sharding import make_mesh

R, T, D, V = 4, 20, 16, 64
OPTIONS = [Options(chunk_tokens=20, tile_elements=tiles) for tiles in (TILE_ELEMENTS, D * 20)]
both = pytest.mark.parametrize("options", OPTIONS, ids=["one tile", "four tiles"])
meshes = pytest.mark.parametrize("tensor", [None, 1, 2], ids=["no mesh", "rows split", "vocabulary split"])


def problem(seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hidden states, a head, and targets of which some are not asked, none in the second row."""
    rng = np.random.default_rng(seed)
    targets_RT = np.where(rng.random((R, T)) < 0.6, rng.integers(0, V, (R, T)), -1)
    targets_RT[1] = -1
    return (
        jnp.asarray(2 * rng.normal(size=(R, T, D)), jnp.float32),
        jnp.asarray(rng.normal(size=(D, V)), jnp.float32),
        jnp.asarray(targets_RT, jnp.int32),
    )


def logprobs(hidden_RTD: jax.Array, kernel_DV: jax.Array) -> np.ndarray:
    """log softmax in float64."""
    logits_RTV = np.asarray(hidden_RTD, np.float64) @ np.asarray(kernel_DV, np.float64)
    return logits_RTV - np.logaddexp.reduce(logits_RTV, axis=-1, keepdims=True)


def run(function: partial, *arrays: object, tensor: int | None) -> list[np.ndarray]:
    """The function compiled, on a mesh of four or eight devices or without."""
    if tensor is None:
        return list(map(np.asarray, jax.jit(function)(*arrays)))
    with jax.set_mesh(make_mesh(ParallelismConfig(fsdp=R, tensor=tensor), jax.devices()[: R * tensor])):
        return list(map(np.asarray, jax.jit(function)(*arrays)))


@both
@meshes
def test_logprobs_of_targets_equal_the_definition(options: Options, tensor: int | None) -> None:
    hidden_RTD, kernel_DV, targets_RT = problem()
    best_RT = logprobs(hidden_RTD, kernel_DV).argmax(-1)
    targets_RT = targets_RT.at[:, ::5].set(best_RT[:, ::5])  # some are the likeliest
    found_RT, likeliest_RT = run(
        partial(target_logprobs, options=options), hidden_RTD, kernel_DV, targets_RT, tensor=tensor
    )
    asked_RT = np.asarray(targets_RT) >= 0
    wanted_RTV = logprobs(hidden_RTD, kernel_DV)
    wanted_RT = np.take_along_axis(wanted_RTV, np.maximum(targets_RT, 0)[:, :, None], axis=-1)[:, :, 0]
    np.testing.assert_allclose(found_RT, np.where(asked_RT, wanted_RT, 0), atol=1e-5)
    np.testing.assert_array_equal(likeliest_RT, asked_RT & (best_RT == np.asarray(targets_RT)))


@both
@meshes
def test_divergences_equal_the_definition(options: Options, tensor: int | None) -> None:
    """Of models that have nothing in common, and of such as are almost the same."""
    p_hidden, p_kernel, targets_RT = problem()
    asked_RT = targets_RT >= 0
    for q_hidden, q_kernel in (problem(1)[:2], (1.001 * p_hidden, p_kernel)):
        found = run(
            partial(divergences, options=options),
            (p_hidden, q_hidden),
            (p_kernel, q_kernel),
            asked_RT,
            tensor=tensor,
        )
        p, q = logprobs(p_hidden, p_kernel), logprobs(q_hidden, q_kernel)
        for found_RT, a, b in zip(found, (p, q), (q, p), strict=True):
            wanted_RT = np.where(asked_RT, (np.exp(a) * (a - b)).sum(-1), 0)
            np.testing.assert_allclose(found_RT, wanted_RT, rtol=2e-2 if wanted_RT.max() < 1e-3 else 1e-5)
            assert (found_RT >= 0).all()


@both
def test_the_divergence_of_a_model_from_itself_is_zero(options: Options) -> None:
    hidden, kernel, targets_RT = problem()
    found = run(
        partial(divergences, options=options), (hidden,) * 2, (kernel,) * 2, targets_RT >= 0, tensor=2
    )
    assert all((found_RT == 0).all() for found_RT in found)


def test_no_probability_is_too_small() -> None:
    """Logits hundreds of nats apart give large divergences, and nothing that is not a number."""
    hidden, kernel, targets_RT = problem()
    forward, reverse = divergences((50 * hidden, -50 * hidden), (kernel, kernel), targets_RT >= 0)
    p, q = logprobs(5 * hidden, 10 * kernel), logprobs(-5 * hidden, 10 * kernel)
    wanted_RT = np.where(targets_RT >= 0, (np.exp(p) * (p - q)).sum(-1), 0)
    np.testing.assert_allclose(forward, wanted_RT, rtol=1e-4)
    assert np.isfinite(reverse).all()
