"""The loss: sum over targets of weight * negative log-likelihood, never holding all logits at once.

Targets without weight (prompts, padding) are skipped: each packed row's weighted positions are taken
first, in chunks, and the loop ends when the fullest row has none left. Loss and gradients come out of the
same pass over a chunk's logits, so that the backward pass recomputes nothing of vocabulary size.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

CHUNK_TOKENS = 2048


class _Chunk(NamedTuple):
    index_RC: jax.Array
    hidden_RCD: jax.Array
    targets_RC: jax.Array
    weights_RC: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def weighted_nll(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    chunk_tokens: int = CHUNK_TOKENS,
) -> jax.Array:
    """Sum of `weights * -log softmax(hidden @ kernel)[targets]`, a float32 scalar.

    Differentiable in `hidden_RTD` and `kernel_DV`. At most about `chunk_tokens` rows of logits exist at once.
    """
    return _run(hidden_RTD, kernel_DV, targets_RT, weights_RT, chunk_tokens, gradients=False)[0]


def _forward(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    chunk_tokens: int,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    loss, d_hidden_RTD, d_kernel_DV = _run(
        hidden_RTD, kernel_DV, targets_RT, weights_RT, chunk_tokens, gradients=True
    )
    return loss, (d_hidden_RTD, d_kernel_DV.astype(kernel_DV.dtype))


def _backward(
    chunk_tokens: int, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    del chunk_tokens
    d_hidden_RTD, d_kernel_DV = residuals
    scale = cotangent.astype(jnp.float32)
    d_hidden_RTD = (d_hidden_RTD.astype(jnp.float32) * scale).astype(d_hidden_RTD.dtype)
    return d_hidden_RTD, (d_kernel_DV.astype(jnp.float32) * scale).astype(d_kernel_DV.dtype), None, None


weighted_nll.defvjp(_forward, _backward)


def _run(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    chunk_tokens: int,
    gradients: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(loss, d hidden, d kernel); the gradients are empty unless asked for."""
    R, T, D = hidden_RTD.shape
    V = kernel_DV.shape[1]
    C = min(T, max(1, chunk_tokens // R))
    kernel_DV = kernel_DV.astype(hidden_RTD.dtype)
    order_RT = jnp.argsort(weights_RT == 0, axis=1, stable=True)
    order_RT = jnp.pad(order_RT, ((0, 0), (0, -T % C)), constant_values=T)
    chunks = (jnp.count_nonzero(weights_RT, axis=1).max() + C - 1) // C

    def body(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        loss, d_hidden_RTD, d_kernel_DV = carry
        chunk = _take(i, C, order_RT, hidden_RTD, targets_RT, weights_RT)
        part, d_logits_RCV = _chunk_loss(chunk, kernel_DV)
        loss = loss + part
        if gradients:
            d_part_RCD = jnp.einsum("rcv,dv->rcd", d_logits_RCV, kernel_DV)
            d_hidden_RTD = _put(d_hidden_RTD, chunk.index_RC, d_part_RCD)
            d_kernel_DV = d_kernel_DV + jnp.einsum(
                "rcd,rcv->dv", chunk.hidden_RCD, d_logits_RCV, preferred_element_type=jnp.float32
            )
        return loss, d_hidden_RTD, d_kernel_DV

    empty = (
        jnp.zeros((), jnp.float32),
        jnp.zeros_like(hidden_RTD) if gradients else jnp.zeros((), jnp.float32),
        jnp.zeros((D, V), jnp.float32) if gradients else jnp.zeros((), jnp.float32),
    )
    return jax.lax.fori_loop(0, chunks, body, empty)


def _take(
    i: jax.Array,
    C: int,
    order_RT: jax.Array,
    hidden_RTD: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
) -> _Chunk:
    index_RC = jax.lax.dynamic_slice_in_dim(order_RT, i * C, C, axis=1)

    def pick(x_RT: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x_RT, index_RC, axis=1, mode="fill", fill_value=0)

    hidden_RCD = jnp.take_along_axis(hidden_RTD, index_RC[:, :, None], axis=1, mode="clip")
    return _Chunk(index_RC, hidden_RCD, pick(targets_RT), pick(weights_RT))


@jax.vmap
def _put(old_TD: jax.Array, index_C: jax.Array, new_CD: jax.Array) -> jax.Array:
    """Write at the given positions. Mapped over rows, so that sharded rows stay where they are."""
    return old_TD.at[index_C].set(new_CD, mode="drop")


def _chunk_loss(chunk: _Chunk, kernel_DV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The chunk's weighted loss and its gradient with respect to the logits (in the type of hidden)."""
    logits_RCV = jnp.einsum("rcd,dv->rcv", chunk.hidden_RCD, kernel_DV, preferred_element_type=jnp.float32)
    log_total_RC = jax.nn.logsumexp(logits_RCV, axis=-1)
    target_RC = jnp.take_along_axis(logits_RCV, chunk.targets_RC[:, :, None], axis=-1)[:, :, 0]
    loss = jnp.sum(chunk.weights_RC * (log_total_RC - target_RC))
    probability_RCV = jnp.exp(logits_RCV - log_total_RC[:, :, None])
    is_target_RCV = jnp.arange(kernel_DV.shape[1])[None, None] == chunk.targets_RC[:, :, None]
    d_logits_RCV = chunk.weights_RC[:, :, None] * (probability_RCV - is_target_RCV)
    return loss, d_logits_RCV.astype(chunk.hidden_RCD.dtype)
