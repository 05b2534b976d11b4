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

from jax_sft.models.vocabulary import DEFAULTS, Options, put, weighted_first
from jax_sft.sharding import BATCH_AXES, WEIGHT_AXES
from jax_sft.training.loss_passes import one_pass, two_passes


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
    problem, order_RN = weighted_first(
        hidden_RTD, gathered_DV, targets_RT, weights_RT, share.options, share.vocab_axis
    )
    reduce = _reduce_scatter if share.sharded else (lambda d_kernel: d_kernel)
    solve = one_pass if problem.tiles == 1 else two_passes
    loss, d_hidden_RND, d_kernel_DV = solve(problem, share.gradients, reduce)
    if share.sharded:
        loss = jax.lax.psum(loss, (*BATCH_AXES, "sequence"))
    if not share.gradients:
        return (loss,)
    if share.vocab_axis:
        d_hidden_RND = jax.lax.psum(d_hidden_RND, share.vocab_axis)
    d_hidden_RTD = put(jnp.zeros_like(hidden_RTD), order_RN, d_hidden_RND.astype(hidden_RTD.dtype))
    return loss, d_hidden_RTD, d_kernel_DV.astype(kernel_DV.dtype)


def _reduce_scatter(d_kernel_DV: jax.Array) -> jax.Array:
    """This device's rows of the sum over all devices that hold other tokens."""
    d_kernel_DV = jax.lax.psum_scatter(d_kernel_DV, WEIGHT_AXES, scatter_dimension=0, tiled=True)
    d_kernel_DV = jax.lax.psum(d_kernel_DV, "replica")
    # XLA for TPU fails an internal check when it tries to move this reduction out of the micro-batch loop.
    return jax.lax.optimization_barrier(d_kernel_DV)
