"""The loss: sum over targets of weight * negative log-likelihood, never holding all logits at once.

Targets without weight (prompts, padding) are skipped: each packed row's weighted positions are taken first,
in chunks, and the loop ends when the fullest row of the device has none left. Loss and gradients come out
of the forward pass, so that the backward pass recomputes nothing of vocabulary size.

A large head is worked on in tiles of its vocabulary, so that its gradient never exists whole either: one
pass over the tiles for each token's log-sum-exp, a second for the gradients, each tile's being summed over
the devices and split among them as soon as it is done. A small head (one tile) takes a single pass.

On a mesh every device works on its own tokens with the head gathered over `fsdp`; the vocabulary stays
split over `tensor`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jax_sft.sharding import BATCH_AXES

CHUNK_TOKENS = 2048
TILE_ELEMENTS = 2**27
"""Most elements of a tile of the head: half a GiB in float32."""
LOWEST = -1e30


class _Problem(NamedTuple):
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


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def weighted_nll(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    chunk_tokens: int = CHUNK_TOKENS,
    tile_elements: int = TILE_ELEMENTS,
) -> jax.Array:
    """Sum of `weights * -log softmax(hidden @ kernel)[targets]`, a float32 scalar.

    Differentiable in `hidden_RTD` and `kernel_DV`. A device holds the logits of about `chunk_tokens` tokens
    and of one tile of the vocabulary at once.
    """
    loss, *_ = _run(
        hidden_RTD, kernel_DV, targets_RT, weights_RT, chunk_tokens, tile_elements, gradients=False
    )
    return loss


def _forward(*problem: Any) -> tuple[jax.Array, list[jax.Array]]:
    loss, *gradients = partial(_run, gradients=True)(*problem)
    return loss, gradients


def _backward(
    chunk_tokens: int, tile_elements: int, residuals: list[jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    del chunk_tokens, tile_elements
    d_hidden_RTD, d_kernel_DV = (
        (gradient.astype(jnp.float32) * cotangent).astype(gradient.dtype) for gradient in residuals
    )
    return d_hidden_RTD, d_kernel_DV, None, None


weighted_nll.defvjp(_forward, _backward)


def _run(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    chunk_tokens: int,
    tile_elements: int,
    gradients: bool,
) -> tuple[jax.Array, ...]:
    """(loss, d hidden, d kernel), or the loss alone."""
    mesh = jax.sharding.get_abstract_mesh()
    run = partial(
        _run_shard,
        chunk_tokens=chunk_tokens,
        tile_elements=tile_elements,
        gradients=gradients,
        sharded=not mesh.empty,
        vocab_axis=None if mesh.empty or kernel_DV.shape[1] % mesh.shape["tensor"] else "tensor",
    )
    if mesh.empty:
        return run(hidden_RTD, kernel_DV, targets_RT, weights_RT)
    tokens, hidden = P(BATCH_AXES, "sequence"), P(BATCH_AXES, "sequence", None)
    kernel = P("fsdp", run.keywords["vocab_axis"])
    return jax.shard_map(
        run,
        in_specs=(hidden, kernel, tokens, tokens),
        out_specs=(P(), hidden, kernel) if gradients else (P(),),
        check_vma=False,
    )(hidden_RTD, kernel_DV, targets_RT, weights_RT)


def _run_shard(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    chunk_tokens: int,
    tile_elements: int,
    gradients: bool,
    sharded: bool,
    vocab_axis: str | None,
) -> tuple[jax.Array, ...]:
    R, T, _ = hidden_RTD.shape
    C = min(T, max(1, chunk_tokens // R))
    gathered_DV = kernel_DV.astype(hidden_RTD.dtype)
    if sharded:
        gathered_DV = jax.lax.all_gather(gathered_DV, "fsdp", axis=0, tiled=True)
    if vocab_axis:
        targets_RT = targets_RT - jax.lax.axis_index(vocab_axis) * gathered_DV.shape[1]
    # Weighted positions first, in order; places beyond the row read its last token and carry no weight.
    order_RN = jnp.argsort(weights_RT == 0, axis=1, stable=True)
    order_RN = jnp.pad(order_RN, ((0, 0), (0, -T % C)), constant_values=T)
    problem = _Problem(
        jnp.take_along_axis(hidden_RTD, order_RN[:, :, None], axis=1, mode="clip"),
        jnp.take_along_axis(targets_RT, order_RN, axis=1, mode="clip"),
        jnp.take_along_axis(weights_RT, order_RN, axis=1, mode="fill", fill_value=0),
        (jnp.count_nonzero(weights_RT, axis=1).max() + C - 1) // C,
        C,
        gathered_DV,
        _tiles(gathered_DV, tile_elements),
        vocab_axis,
    )
    reduce = _reduce_scatter if sharded else (lambda d_kernel: d_kernel)
    solve = _one_pass if problem.tiles == 1 else _two_passes
    loss, d_hidden_RND, d_kernel_DV = solve(problem, gradients, reduce)
    if sharded:
        loss = jax.lax.psum(loss, (*BATCH_AXES, "sequence"))
    if not gradients:
        return (loss,)
    if vocab_axis:
        d_hidden_RND = jax.lax.psum(d_hidden_RND, vocab_axis)
    d_hidden_RTD = _put(jnp.zeros_like(hidden_RTD), order_RN, d_hidden_RND.astype(hidden_RTD.dtype))
    return loss, d_hidden_RTD, d_kernel_DV.astype(kernel_DV.dtype)


def _tiles(kernel_DV: jax.Array, tile_elements: int) -> int:
    """Into how many tiles the vocabulary is cut: the least power of two that suffices and divides it."""
    tiles = 1
    while tiles * tile_elements < kernel_DV.size and kernel_DV.shape[1] % (2 * tiles) == 0:
        tiles *= 2
    return tiles


def _reduce_scatter(d_kernel_DV: jax.Array) -> jax.Array:
    """This device's rows of the sum over all devices that hold other tokens."""
    d_kernel_DV = jax.lax.psum_scatter(d_kernel_DV, "fsdp", scatter_dimension=0, tiled=True)
    d_kernel_DV = jax.lax.psum(d_kernel_DV, ("replica", "sequence"))
    # XLA for TPU fails an internal check when it tries to move this reduction out of the micro-batch loop.
    return jax.lax.optimization_barrier(d_kernel_DV)


def _one_pass(
    p: _Problem, gradients: bool, reduce: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, Any, Any]:
    """(loss, d hidden, d kernel) with the logits of a chunk made once."""

    def body(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        loss, d_hidden_RND, d_kernel_DV = carry
        logits_RCV = _logits(p, i, p.kernel_DV)
        weights_RC, targets_RC = _chunk(p.weights_RN, i, p.C), _chunk(p.targets_RN, i, p.C)
        peak_RC = logits_RCV.max(axis=-1)
        total_RC = jnp.exp(logits_RCV - peak_RC[:, :, None]).sum(axis=-1)
        log_total_RC, target_RC = _combine(p, peak_RC, total_RC, _pick(logits_RCV, targets_RC))
        loss = loss + jnp.sum(weights_RC * (log_total_RC - target_RC))
        if gradients:
            d_part_RCD, d_part_DV = _chunk_gradients(p, i, logits_RCV, log_total_RC, targets_RC, p.kernel_DV)
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


def _two_passes(
    p: _Problem, gradients: bool, reduce: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, Any, Any]:
    """(loss, d hidden, d kernel) with logits made tile by tile, twice."""
    log_total_RN, target_RN = _totals(p)
    weighted_RN = p.weights_RN != 0
    loss = jnp.sum(jnp.where(weighted_RN, p.weights_RN * (log_total_RN - target_RN), 0.0))
    if not gradients:
        return loss, None, None

    def tile(d_hidden_RND: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        kernel_DW, offset = _tile(p, t)

        def body(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            d_hidden_RND, d_kernel_DW = carry
            targets_RC = _chunk(p.targets_RN, i, p.C) - offset
            log_total_RC = _chunk(log_total_RN, i, p.C)
            d_part_RCD, d_part_DW = _chunk_gradients(
                p, i, _logits(p, i, kernel_DW), log_total_RC, targets_RC, kernel_DW
            )
            d_part_RCD = d_part_RCD + _chunk(d_hidden_RND, i, p.C)
            return _write(d_hidden_RND, i, p.C, d_part_RCD), d_kernel_DW + d_part_DW

        empty = (d_hidden_RND, jnp.zeros_like(kernel_DW, jnp.float32))
        d_hidden_RND, d_kernel_DW = jax.lax.fori_loop(0, p.chunks, body, empty)
        return d_hidden_RND, reduce(d_kernel_DW.astype(p.kernel_DV.dtype))

    d_hidden_RND, d_kernel_tDW = jax.lax.scan(
        tile, jnp.zeros_like(p.hidden_RND, jnp.float32), jnp.arange(p.tiles)
    )
    return loss, d_hidden_RND, d_kernel_tDW.transpose(1, 0, 2).reshape(d_kernel_tDW.shape[1], -1)


def _totals(p: _Problem) -> tuple[jax.Array, jax.Array]:
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
    p: _Problem, peak_RC: jax.Array, total_RC: jax.Array, target_RC: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-sum-exp and target logit over the whole vocabulary, from those over this device's part."""
    if p.vocab_axis:
        highest_RC = jax.lax.pmax(peak_RC, p.vocab_axis)
        total_RC = jax.lax.psum(total_RC * jnp.exp(peak_RC - highest_RC), p.vocab_axis)
        peak_RC, target_RC = highest_RC, jax.lax.psum(target_RC, p.vocab_axis)
    return peak_RC + jnp.log(total_RC), target_RC


def _chunk_gradients(
    p: _Problem,
    i: jax.Array,
    logits_RCV: jax.Array,
    log_total_RC: jax.Array,
    targets_RC: jax.Array,
    kernel_DV: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Gradients with respect to the chunk's hidden states and to the kernel, both float32."""
    weights_RC1 = _chunk(p.weights_RN, i, p.C)[:, :, None]
    probability_RCV = jnp.exp(logits_RCV - log_total_RC[:, :, None])
    d_logits_RCV = weights_RC1 * (probability_RCV - _is_target(logits_RCV, targets_RC))
    d_logits_RCV = d_logits_RCV.astype(kernel_DV.dtype)
    d_hidden_RCD = jnp.einsum("rcv,dv->rcd", d_logits_RCV, kernel_DV, preferred_element_type=jnp.float32)
    d_kernel_DV = jnp.einsum(
        "rcd,rcv->dv", _chunk(p.hidden_RND, i, p.C), d_logits_RCV, preferred_element_type=jnp.float32
    )
    return d_hidden_RCD, d_kernel_DV


def _logits(p: _Problem, i: jax.Array, kernel_DV: jax.Array) -> jax.Array:
    hidden_RCD = _chunk(p.hidden_RND, i, p.C)
    return jnp.einsum("rcd,dv->rcv", hidden_RCD, kernel_DV, preferred_element_type=jnp.float32)


def _tile(p: _Problem, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Columns of tile t of the head, and the number of the first."""
    width = p.kernel_DV.shape[1] // p.tiles
    return jax.lax.dynamic_slice_in_dim(p.kernel_DV, t * width, width, axis=1), t * width


def _is_target(logits_RCV: jax.Array, targets_RC: jax.Array) -> jax.Array:
    return jnp.arange(logits_RCV.shape[-1])[None, None] == targets_RC[:, :, None]


def _pick(logits_RCV: jax.Array, targets_RC: jax.Array) -> jax.Array:
    """The targets' logits; 0 for targets that are not among these."""
    found_RC = jnp.take_along_axis(logits_RCV, targets_RC[:, :, None], axis=-1, mode="clip")[:, :, 0]
    return jnp.where((targets_RC >= 0) & (targets_RC < logits_RCV.shape[-1]), found_RC, 0.0)


def _chunk(x_RN: jax.Array, i: jax.Array, C: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x_RN, i * C, C, axis=1)


def _write(x_RN: jax.Array, i: jax.Array, C: int, new_RC: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x_RN, new_RC, i * C, axis=1)


@jax.vmap
def _put(old_TD: jax.Array, index_N: jax.Array, new_ND: jax.Array) -> jax.Array:
    """Write at the given positions; those beyond the row are dropped."""
    return old_TD.at[index_N].set(new_ND, mode="drop")
