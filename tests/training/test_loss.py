"""The chunked loss against the plain one that makes every logit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.config import ParallelismConfig
from jax_sft.models.vocabulary import TILE_ELEMENTS, Options
from jax_sft.sharding import make_mesh
from jax_sft.training.loss import weighted_nll

pytestmark = pytest.mark.short

R, T, D, V = 3, 20, 16, 60
CHUNKS = (1, 3 * 6, 3 * 7, 10_000)
"""Tokens at once: one; 6 a row; 7, which does not divide a row; more than there are."""
OPTIONS = Options(chunk_tokens=18)


def naive(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    by_probability: bool = False,
) -> jax.Array:
    """The definition, in float32."""
    logits_RTV = hidden_RTD.astype(jnp.float32) @ kernel_DV.astype(jnp.float32)
    nll_RT = -jnp.take_along_axis(jax.nn.log_softmax(logits_RTV), targets_RT[:, :, None], axis=-1)[:, :, 0]
    probability_RT = jax.lax.stop_gradient(jnp.exp(-nll_RT)) if by_probability else 1.0
    return jnp.sum(weights_RT * probability_RT * nll_RT)


def problem(kind: str) -> tuple[jax.Array, ...]:
    """Random hidden states, kernel and targets, and weights of the named kind."""
    rng = np.random.default_rng(0)
    weights_RT = rng.normal(size=(R, T)) / 10
    if kind == "sparse":
        weights_RT *= rng.random((R, T)) < 0.3
    if kind == "a row without weights":
        weights_RT[1] = 0
    if kind == "padding alone":
        weights_RT[:] = 0
    hidden_RTD, kernel_DV = rng.normal(size=(R, T, D)), rng.normal(size=(D, V))
    return (
        jnp.asarray(hidden_RTD, jnp.float32),
        jnp.asarray(kernel_DV, jnp.float32),
        jnp.asarray(rng.integers(0, V, (R, T)), jnp.int32),
        jnp.asarray(weights_RT, jnp.float32),
    )


value_and_gradients = jax.jit(jax.value_and_grad(weighted_nll, argnums=(0, 1)), static_argnums=4)
naive_value_and_gradients = jax.jit(jax.value_and_grad(naive, argnums=(0, 1)), static_argnums=4)


@pytest.mark.parametrize("tile_elements", [TILE_ELEMENTS, D * 20], ids=["one tile", "four tiles"])
@pytest.mark.parametrize("chunk_tokens", CHUNKS)
@pytest.mark.parametrize("kind", ["dense", "sparse", "a row without weights", "padding alone"])
@pytest.mark.parametrize("by_probability", [False, True], ids=["nll", "dft"])
def test_equals_the_plain_loss_and_its_gradients(
    by_probability: bool, kind: str, chunk_tokens: int, tile_elements: int
) -> None:
    arrays = problem(kind)
    loss, gradients = value_and_gradients(*arrays, Options(chunk_tokens, tile_elements, by_probability))
    want, want_gradients = naive_value_and_gradients(*arrays, by_probability)
    np.testing.assert_allclose(loss, want, rtol=1e-5, atol=1e-6)
    for got, wanted in zip(gradients, want_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert (kind == "padding alone") == (not np.asarray(loss).any())


@pytest.mark.parametrize("tile_elements", [TILE_ELEMENTS, D * 10], ids=["one tile", "tiles"])
@pytest.mark.parametrize("sizes", [(1, 4, 1, 1), (2, 1, 1, 4), (1, 2, 2, 2)])
@pytest.mark.parametrize("by_probability", [False, True], ids=["nll", "dft"])
def test_equals_the_plain_loss_on_a_mesh(
    by_probability: bool, sizes: tuple[int, ...], tile_elements: int
) -> None:
    hidden_RTD, kernel_DV, targets_RT, weights_RT = problem("sparse")
    arrays = (
        jnp.tile(hidden_RTD[:2], (2, 1, 1)),
        kernel_DV,
        *(jnp.tile(x[:2], (2, 1)) for x in (targets_RT, weights_RT)),
    )
    want, want_gradients = naive_value_and_gradients(*arrays, by_probability)
    mesh = make_mesh(ParallelismConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    with jax.set_mesh(mesh):
        loss, gradients = value_and_gradients(*arrays, Options(8, tile_elements, by_probability))
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    for got, wanted in zip(gradients, want_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_loss_alone_equals_loss_with_gradients() -> None:
    arrays = problem("sparse")
    assert np.array_equal(
        jax.jit(weighted_nll, static_argnums=4)(*arrays, OPTIONS), value_and_gradients(*arrays, OPTIONS)[0]
    )


def test_gradient_is_scaled_by_what_the_loss_is_used_for() -> None:
    arrays = problem("sparse")
    doubled = jax.grad(lambda hidden: 2.5 * weighted_nll(hidden, *arrays[1:], OPTIONS))(arrays[0])
    np.testing.assert_allclose(doubled, 2.5 * value_and_gradients(*arrays, OPTIONS)[1][0], rtol=1e-6)


def test_bfloat16_products_with_float32_sums() -> None:
    hidden, kernel, targets, weights = problem("dense")
    loss, (d_hidden, d_kernel) = value_and_gradients(
        hidden.astype(jnp.bfloat16), kernel, targets, weights, OPTIONS
    )
    rounded = hidden.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16).astype(jnp.float32), targets, weights
    want, (want_hidden, want_kernel) = naive_value_and_gradients(*rounded)
    assert (loss.dtype, d_hidden.dtype, d_kernel.dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    np.testing.assert_allclose(d_kernel, want_kernel, atol=0.01 * float(jnp.abs(want_kernel).max()))
    difference = d_hidden.astype(jnp.float32) - want_hidden.astype(jnp.float32)
    assert float(jnp.abs(difference).max()) <= 0.02 * float(jnp.abs(want_hidden.astype(jnp.float32)).max())


def test_hidden_states_without_weight_have_no_say() -> None:
    """Bitwise: not in the loss, not in any gradient, and their own gradient is zero."""
    hidden, kernel, targets, weights = problem("sparse")
    unweighted = (weights == 0)[:, :, None]
    loss, (d_hidden, d_kernel) = value_and_gradients(hidden, kernel, targets, weights, OPTIONS)
    other = value_and_gradients(jnp.where(unweighted, -3 * hidden, hidden), kernel, targets, weights, OPTIONS)
    assert np.array_equal(loss, other[0])
    assert np.array_equal(d_hidden, other[1][0])
    assert np.array_equal(d_kernel, other[1][1])
    assert not np.asarray(jnp.where(unweighted, d_hidden, 0)).any()
