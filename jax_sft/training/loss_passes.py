"""The passes over chunks of tokens and tiles of vocabulary that make a device's share of the loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LOWEST = -1e30


class Problem(NamedTuple):
    """One device's share, its weighted tokens (of N = chunks * C places a row) first."""

    hidden_RND: jax.Array
    targets_RN: jax.Array
    """Within this device's part of the vocabulary; outside of 0 … V-1 for targets of other parts."""
    weights_RN: jax.Array
    chunks: jax.Array
    C: int
    kernel_DV: jax.Array
    tiles: int
    vocab_axis: str | None
    """The mesh axis that splits the vocabulary, if one does."""
    by_probability: bool


def one_pass(
    p: Problem, gradients: bool, reduce: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, Any, Any]:
    """(loss, d hidden, d kernel) with the logits of a chunk made once."""

    def body(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        loss, d_hidden_RND, d_kernel_DV = carry
        logits_RCV = _logits(p, i, p.kernel_DV)
        targets_RC = _chunk(p.targets_RN, i, p.C)
        peak_RC = logits_RCV.max(axis=-1)
        total_RC = jnp.exp(logits_RCV - peak_RC[:, :, None]).sum(axis=-1)
        log_total_RC, target_RC = _combine(p, peak_RC, total_RC, _pick(logits_RCV, targets_RC))
        weights_RC = _weights(p, _chunk(p.weights_RN, i, p.C), log_total_RC, target_RC)
        loss = loss + jnp.sum(weights_RC * (log_total_RC - target_RC))
        if gradients:
            d_logits_RCV = _logit_gradients(p, logits_RCV, weights_RC, log_total_RC, targets_RC)
            d_part_RCD, d_part_DV = _chunk_gradients(p, i, d_logits_RCV, p.kernel_DV)
            d_hidden_RND = _write(d_hidden_RND, i, p.C, d_part_RCD.astype(d_hidden_RND.dtype))
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
    log_total_RN, target_RN = _totals(p)
    weights_RN = _weights(p, p.weights_RN, log_total_RN, target_RN)
    loss = jnp.sum(jnp.where(p.weights_RN != 0, weights_RN * (log_total_RN - target_RN), 0.0))
    if not gradients:
        return loss, None, None

    def tile(d_hidden_RND: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        kernel_DW, offset = _tile(p, t)

        def body(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            d_hidden_RND, d_kernel_DW = carry
            weights_RC, log_total_RC, targets_RC = (
                _chunk(x_RN, i, p.C) for x_RN in (weights_RN, log_total_RN, p.targets_RN - offset)
            )
            logits_RCW = _logits(p, i, kernel_DW)
            d_logits_RCW = _logit_gradients(p, logits_RCW, weights_RC, log_total_RC, targets_RC)
            d_part_RCD, d_part_DW = _chunk_gradients(p, i, d_logits_RCW, kernel_DW)
            d_part_RCD = d_part_RCD + _chunk(d_hidden_RND, i, p.C)
            return _write(d_hidden_RND, i, p.C, d_part_RCD), d_kernel_DW + d_part_DW

        empty = (d_hidden_RND, jnp.zeros_like(kernel_DW, jnp.float32))
        d_hidden_RND, d_kernel_DW = jax.lax.fori_loop(0, p.chunks, body, empty)
        return d_hidden_RND, reduce(d_kernel_DW.astype(p.kernel_DV.dtype))

    d_hidden_RND, d_kernel_tDW = jax.lax.scan(
        tile, jnp.zeros_like(p.hidden_RND, jnp.float32), jnp.arange(p.tiles)
    )
    return loss, d_hidden_RND, d_kernel_tDW.transpose(1, 0, 2).reshape(d_kernel_tDW.shape[1], -1)


def _totals(p: Problem) -> tuple[jax.Array, jax.Array]:
    """Each token's log-sum-exp over the vocabulary and its target's logit, both [R, N]."""

    def tile(carry: tuple[jax.Array, ...], t: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        kernel_DW, offset = _tile(p, t)

        def body(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            peak_RC, total_RC, target_RC = (_chunk(x_RN, i, p.C) for x_RN in carry)
            logits_RCW = _logits(p, i, kernel_DW)
            higher_RC = jnp.maximum(peak_RC, logits_RCW.max(axis=-1))
            total_RC = total_RC * jnp.exp(peak_RC - higher_RC)
            total_RC = total_RC + jnp.exp(logits_RCW - higher_RC[:, :, None]).sum(axis=-1)
            target_RC = target_RC + _pick(logits_RCW, _chunk(p.targets_RN, i, p.C) - offset)
            new = (higher_RC, total_RC, target_RC)
            return tuple(_write(x_RN, i, p.C, x_RC) for x_RN, x_RC in zip(carry, new, strict=True))

        return jax.lax.fori_loop(0, p.chunks, body, carry), None

    zeros_RN = jnp.zeros_like(p.weights_RN)
    start: tuple[jax.Array, ...] = (zeros_RN + LOWEST, zeros_RN, zeros_RN)
    carry, _ = jax.lax.scan(tile, start, jnp.arange(p.tiles))
    return _combine(p, *carry)


def _combine(
    p: Problem, peak_RC: jax.Array, total_RC: jax.Array, target_RC: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-sum-exp and target logit over the whole vocabulary, from those over this device's part."""
    if p.vocab_axis:
        highest_RC = jax.lax.pmax(peak_RC, p.vocab_axis)
        total_RC = jax.lax.psum(total_RC * jnp.exp(peak_RC - highest_RC), p.vocab_axis)
        peak_RC, target_RC = highest_RC, jax.lax.psum(target_RC, p.vocab_axis)
    return peak_RC + jnp.log(total_RC), target_RC


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
        "rcd,rcv->dv", _chunk(p.hidden_RND, i, p.C), d_logits_RCV, preferred_element_type=jnp.float32
    )
    return d_hidden_RCD, d_kernel_DV


def _logits(p: Problem, i: jax.Array, kernel_DV: jax.Array) -> jax.Array:
    hidden_RCD = _chunk(p.hidden_RND, i, p.C)
    return jnp.einsum("rcd,dv->rcv", hidden_RCD, kernel_DV, preferred_element_type=jnp.float32)


def _tile(p: Problem, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Columns of tile t of the head, and the number of the first."""
    width = p.kernel_DV.shape[1] // p.tiles
    return jax.lax.dynamic_slice_in_dim(p.kernel_DV, t * width, width, axis=1), t * width


def _pick(logits_RCV: jax.Array, targets_RC: jax.Array) -> jax.Array:
    """The targets' logits; 0 for targets that are not among these."""
    found_RC = jnp.take_along_axis(logits_RCV, targets_RC[:, :, None], axis=-1, mode="clip")[:, :, 0]
    return jnp.where((targets_RC >= 0) & (targets_RC < logits_RCV.shape[-1]), found_RC, 0.0)


def _chunk(x_RN: jax.Array, i: jax.Array, C: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x_RN, i * C, C, axis=1)


def _write(x_RN: jax.Array, i: jax.Array, C: int, new_RC: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x_RN, new_RC, i * C, axis=1)
