"""The passes over chunks of tokens and tiles of vocabulary that make a device's share of the loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jax_sft.models.vocabulary import Problem, chunk, chunk_logits, combine, pick, tile, totals, write


def one_pass(
    p: Problem, gradients: bool, reduce: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, Any, Any]:
    """(loss, d hidden, d kernel) with the logits of a chunk made once."""

    def body(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        loss, d_hidden_RND, d_kernel_DV = carry
        logits_RCV = chunk_logits(p.hidden_RND, i, p.C, p.kernel_DV)
        targets_RC = chunk(p.targets_RN, i, p.C)
        peak_RC = logits_RCV.max(axis=-1)
        total_RC = jnp.exp(logits_RCV - peak_RC[:, :, None]).sum(axis=-1)
        log_total_RC, target_RC, _ = combine(p.vocab_axis, peak_RC, total_RC, pick(logits_RCV, targets_RC))
        weights_RC = _weights(p, chunk(p.weights_RN, i, p.C), log_total_RC, target_RC)
        loss = loss + jnp.sum(weights_RC * (log_total_RC - target_RC))
        if gradients:
            d_logits_RCV = _logit_gradients(p, logits_RCV, weights_RC, log_total_RC, targets_RC)
            d_part_RCD, d_part_DV = _chunk_gradients(p, i, d_logits_RCV, p.kernel_DV)
            d_hidden_RND = write(d_hidden_RND, i, p.C, d_part_RCD.astype(d_hidden_RND.dtype))
            d_kernel_DV = d_kernel_DV + d_part_DV
        return loss, d_hidden_RND, d_kernel_DV

    zero = jnp.zeros((), jnp.float32)
    empty = (zero, jnp.zeros_like(p.hidden_RND), jnp.zeros_like(p.kernel_DV, jnp.float32))
    loss, d_hidden_RND, d_kernel_DV = jax.lax.fori_loop(
        0, p.chunks, body, empty if gradients else (zero, zero, zero)
    )
    # The sum over devices travels in the compute type.
    return loss, d_hidden_RND, reduce(d_kernel_DV.astype(p.kernel_DV.dtype)) if gradients else None


def two_passes(
    p: Problem, gradients: bool, reduce: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, Any, Any]:
    """(loss, d hidden, d kernel) with logits made tile by tile, twice."""
    log_total_RN, target_RN, _ = totals(p)
    weights_RN = _weights(p, p.weights_RN, log_total_RN, target_RN)
    loss = jnp.sum(jnp.where(p.weights_RN != 0, weights_RN * (log_total_RN - target_RN), 0.0))
    if not gradients:
        return loss, None, None

    def one_tile(d_hidden_RND: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        kernel_DW, offset = tile(p.kernel_DV, p.tiles, t)

        def body(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            d_hidden_RND, d_kernel_DW = carry
            weights_RC, log_total_RC, targets_RC = (
                chunk(x_RN, i, p.C) for x_RN in (weights_RN, log_total_RN, p.targets_RN - offset)
            )
            logits_RCW = chunk_logits(p.hidden_RND, i, p.C, kernel_DW)
            d_logits_RCW = _logit_gradients(p, logits_RCW, weights_RC, log_total_RC, targets_RC)
            d_part_RCD, d_part_DW = _chunk_gradients(p, i, d_logits_RCW, kernel_DW)
            d_part_RCD = d_part_RCD + chunk(d_hidden_RND, i, p.C)
            return write(d_hidden_RND, i, p.C, d_part_RCD), d_kernel_DW + d_part_DW

        empty = (d_hidden_RND, jnp.zeros_like(kernel_DW, jnp.float32))
        d_hidden_RND, d_kernel_DW = jax.lax.fori_loop(0, p.chunks, body, empty)
        return d_hidden_RND, reduce(d_kernel_DW.astype(p.kernel_DV.dtype))

    d_hidden_RND, d_kernel_tDW = jax.lax.scan(
        one_tile, jnp.zeros_like(p.hidden_RND, jnp.float32), jnp.arange(p.tiles)
    )
    return loss, d_hidden_RND, d_kernel_tDW.transpose(1, 0, 2).reshape(d_kernel_tDW.shape[1], -1)


def _weights(p: Problem, weights_RC: jax.Array, log_total_RC: jax.Array, target_RC: jax.Array) -> jax.Array:
    """Weights of the targets, multiplied by their probabilities if those are asked for."""
    if not p.by_probability:
        return weights_RC
    return jnp.where(weights_RC == 0, 0.0, weights_RC * jnp.exp(target_RC - log_total_RC))


def _logit_gradients(
    p: Problem, logits_RCV: jax.Array, weights_RC: jax.Array, log_total_RC: jax.Array, targets_RC: jax.Array
) -> jax.Array:
    """Gradients with respect to the logits, in the compute type."""
    probability_RCV = jnp.exp(logits_RCV - log_total_RC[:, :, None])
    is_target_RCV = jnp.arange(logits_RCV.shape[-1])[None, None] == targets_RC[:, :, None]
    return (weights_RC[:, :, None] * (probability_RCV - is_target_RCV)).astype(p.kernel_DV.dtype)


def _chunk_gradients(
    p: Problem, i: jax.Array, d_logits_RCV: jax.Array, kernel_DV: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients with respect to the chunk's hidden states and to the kernel, both float32."""
    d_hidden_RCD = jnp.einsum("rcv,dv->rcd", d_logits_RCV, kernel_DV, preferred_element_type=jnp.float32)
    d_kernel_DV = jnp.einsum(
        "rcd,rcv->dv", chunk(p.hidden_RND, i, p.C), d_logits_RCV, preferred_element_type=jnp.float32
    )
    return d_hidden_RCD, d_kernel_DV
