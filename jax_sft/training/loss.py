"""The loss: sum over targets of weight * negative log-likelihood, never holding all logits at once.

Targets without weight (prompts, padding) are skipped: each packed row's weighted positions are taken first,
in chunks, and the loop ends when the fullest row of the device has none left. Loss and gradients come out
of the forward pass, so that the backward pass recomputes nothing of vocabulary size.

A large head is worked on in tiles of its vocabulary, so that its gradient never exists whole either: one
pass over the tiles for each token's log-sum-exp, a second for the gradients, each tile's being summed over
the devices and split among them as soon as it is done. A small head (one tile) takes a single pass.

On a mesh every device works on its own tokens with the head gathered along its width; the vocabulary
stays split over `tensor`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jax_sft.sharding import BATCH_AXES, WEIGHT_AXES
from jax_sft.training.loss_passes import Problem, one_pass, two_passes

CHUNK_TOKENS = 2048
TILE_ELEMENTS = 2**27
"""Most elements of a tile of the head: half a GiB in float32."""


def chunk_length(rows: int, length: int, chunk_tokens: int = CHUNK_TOKENS) -> int:
    """Weighted positions of each row worked on at once on a device that holds `rows` of `length` tokens."""
    return min(length, max(1, chunk_tokens // rows))


class Options(NamedTuple):
    """What the loss depends on besides its arrays; constants of the compiled program."""

    chunk_tokens: int = CHUNK_TOKENS
    """A device holds the logits of about so many tokens at once."""
    tile_elements: int = TILE_ELEMENTS
    by_probability: bool = False
    """Each target's weight is multiplied by its probability, through which no gradient flows (DFT, arXiv
    2508.05629)."""


DEFAULTS = Options()


class _Share(NamedTuple):
    """How a device works on its share of the tokens."""

    options: Options
    gradients: bool
    """Whether they are made, and not the loss alone."""
    sharded: bool
    vocab_axis: str | None
    """The mesh axis that splits the vocabulary, if one does."""


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def weighted_nll(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    options: Options = DEFAULTS,
) -> jax.Array:
    """Sum of `weights * -log softmax(hidden @ kernel)[targets]`, a float32 scalar.

    Differentiable in `hidden_RTD` and `kernel_DV`. A device holds the logits of one chunk of tokens and of
    one tile of the vocabulary at once.
    """
    loss, *_ = _run(hidden_RTD, kernel_DV, targets_RT, weights_RT, options, gradients=False)
    return loss


def _forward(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    options: Options,
) -> tuple[jax.Array, list[jax.Array]]:
    loss, *gradients = _run(hidden_RTD, kernel_DV, targets_RT, weights_RT, options, gradients=True)
    return loss, gradients


def _backward(
    options: Options, residuals: list[jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    del options
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
    options: Options,
    gradients: bool,
) -> tuple[jax.Array, ...]:
    """(loss, d hidden, d kernel), or the loss alone."""
    mesh = jax.sharding.get_abstract_mesh()
    vocab_axis = None if mesh.empty or kernel_DV.shape[1] % mesh.shape["tensor"] else "tensor"
    run = partial(_run_shard, share=_Share(options, gradients, not mesh.empty, vocab_axis))
    if mesh.empty:
        return run(hidden_RTD, kernel_DV, targets_RT, weights_RT)
    tokens, hidden = P(BATCH_AXES, "sequence"), P(BATCH_AXES, "sequence", None)
    kernel = P(WEIGHT_AXES, vocab_axis)
    return jax.shard_map(
        run,
        in_specs=(hidden, kernel, tokens, tokens),
        out_specs=(P(), hidden, kernel) if gradients else (P(),),
        check_vma=False,
    )(hidden_RTD, kernel_DV, targets_RT, weights_RT)


def _run_shard(
    hidden_RTD: jax.Array, kernel_DV: jax.Array, targets_RT: jax.Array, weights_RT: jax.Array, share: _Share
) -> tuple[jax.Array, ...]:
    gathered_DV = kernel_DV.astype(hidden_RTD.dtype)
    if share.sharded:
        gathered_DV = jax.lax.all_gather(gathered_DV, WEIGHT_AXES, axis=0, tiled=True)
    if share.vocab_axis:
        targets_RT = targets_RT - jax.lax.axis_index(share.vocab_axis) * gathered_DV.shape[1]
    problem, order_RN = _weighted_first(hidden_RTD, gathered_DV, targets_RT, weights_RT, share)
    reduce = _reduce_scatter if share.sharded else (lambda d_kernel: d_kernel)
    solve = one_pass if problem.tiles == 1 else two_passes
    loss, d_hidden_RND, d_kernel_DV = solve(problem, share.gradients, reduce)
    if share.sharded:
        loss = jax.lax.psum(loss, (*BATCH_AXES, "sequence"))
    if not share.gradients:
        return (loss,)
    if share.vocab_axis:
        d_hidden_RND = jax.lax.psum(d_hidden_RND, share.vocab_axis)
    d_hidden_RTD = _put(jnp.zeros_like(hidden_RTD), order_RN, d_hidden_RND.astype(hidden_RTD.dtype))
    return loss, d_hidden_RTD, d_kernel_DV.astype(kernel_DV.dtype)


def _weighted_first(
    hidden_RTD: jax.Array, kernel_DV: jax.Array, targets_RT: jax.Array, weights_RT: jax.Array, share: _Share
) -> tuple[Problem, jax.Array]:
    """The device's problem, weighted positions first, and which position of its row each place holds."""
    R, T, _ = hidden_RTD.shape
    C = chunk_length(R, T, share.options.chunk_tokens)
    # In order; places beyond the row read its last token and carry no weight.
    order_RN = jnp.argsort(weights_RT == 0, axis=1, stable=True)
    order_RN = jnp.pad(order_RN, ((0, 0), (0, -T % C)), constant_values=T)
    problem = Problem(
        jnp.take_along_axis(hidden_RTD, order_RN[:, :, None], axis=1, mode="clip"),
        jnp.take_along_axis(targets_RT, order_RN, axis=1, mode="clip"),
        jnp.take_along_axis(weights_RT, order_RN, axis=1, mode="fill", fill_value=0),
        (jnp.count_nonzero(weights_RT, axis=1).max() + C - 1) // C,
        C,
        kernel_DV,
        _tiles(kernel_DV, share.options.tile_elements),
        share.vocab_axis,
        share.options.by_probability,
    )
    return problem, order_RN


def _tiles(kernel_DV: jax.Array, tile_elements: int) -> int:
    """Into how many tiles the vocabulary is cut: the least power of two that suffices and divides it."""
    tiles = 1
    while tiles * tile_elements < kernel_DV.size and kernel_DV.shape[1] % (2 * tiles) == 0:
        tiles *= 2
    return tiles


def _reduce_scatter(d_kernel_DV: jax.Array) -> jax.Array:
    """This device's rows of the sum over all devices that hold other tokens."""
    d_kernel_DV = jax.lax.psum_scatter(d_kernel_DV, WEIGHT_AXES, scatter_dimension=0, tiled=True)
    d_kernel_DV = jax.lax.psum(d_kernel_DV, "replica")
    # XLA for TPU fails an internal check when it tries to move this reduction out of the micro-batch loop.
    return jax.lax.optimization_barrier(d_kernel_DV)


@jax.vmap
def _put(old_TD: jax.Array, index_N: jax.Array, new_ND: jax.Array) -> jax.Array:
    """Write at the given positions; those beyond the row are dropped."""
    return old_TD.at[index_N].set(new_ND, mode="drop")
