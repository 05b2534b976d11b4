"""What a model makes of given tokens: how likely each is, and how far two models are apart there.

The logits of a vocabulary never exist whole (`models.vocabulary`). Nothing here has a gradient.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jax_sft.models.vocabulary import (
    DEFAULTS,
    Options,
    Problem,
    chunk,
    chunk_logits,
    put,
    tile,
    totals,
    weighted_first,
    write,
)
from jax_sft.sharding import BATCH_AXES


def target_logprobs(
    hidden_RTD: jax.Array, kernel_DV: jax.Array, targets_RT: jax.Array, options: Options = DEFAULTS
) -> tuple[jax.Array, jax.Array]:
    """log softmax(hidden @ kernel)[target], float32 [R, T], and whether no token is likelier, bool [R, T].

    Both are 0 where a target is negative: nothing is asked there.
    """

    def share(
        hidden_RTD: jax.Array, kernel_DV: jax.Array, targets_RT: jax.Array, vocab_axis: str | None
    ) -> tuple[jax.Array, jax.Array]:
        p, order_RN = _asked_first(hidden_RTD, kernel_DV, targets_RT, options, vocab_axis)
        found = totals(p)
        asked_RN = p.weights_RN > 0
        logprob_RN = jnp.where(asked_RN, found.target_RN - found.log_total_RN, 0.0)
        likeliest_RN = asked_RN & (found.target_RN >= found.highest_RN)
        zeros_RT = jnp.zeros_like(targets_RT)
        return (
            put(zeros_RT.astype(jnp.float32), order_RN, logprob_RN),
            put(zeros_RT.astype(bool), order_RN, likeliest_RN),
        )

    return _on_devices(share, (hidden_RTD,), (kernel_DV,), targets_RT)


def divergences(
    hidden: tuple[jax.Array, jax.Array],
    kernels: tuple[jax.Array, jax.Array],
    asked_RT: jax.Array,
    options: Options = DEFAULTS,
) -> tuple[jax.Array, jax.Array]:
    """KL(p || q) and KL(q || p) of two next-token distributions, in nats, float32 [R, T].

    Over the whole vocabulary, exactly; 0 where nothing is asked. Each is of two models' final hidden states
    [R, T, D] and heads [D, V]; both heads are of one shape.
    """

    def share(
        p_hidden_RTD: jax.Array,
        q_hidden_RTD: jax.Array,
        p_kernel_DV: jax.Array,
        q_kernel_DV: jax.Array,
        asked_RT: jax.Array,
        vocab_axis: str | None,
    ) -> tuple[jax.Array, jax.Array]:
        targets_RT = jnp.where(asked_RT, 0, -1)
        p, order_RN = _asked_first(p_hidden_RTD, p_kernel_DV, targets_RT, options, vocab_axis)
        q, _ = _asked_first(q_hidden_RTD, q_kernel_DV, targets_RT, options, vocab_axis)
        zeros_RT = jnp.zeros(asked_RT.shape, jnp.float32)
        forward_RN, reverse_RN = (jnp.where(p.weights_RN > 0, x_RN, 0.0) for x_RN in _divergences(p, q))
        return put(zeros_RT, order_RN, forward_RN), put(zeros_RT, order_RN, reverse_RN)

    return _on_devices(share, hidden, kernels, asked_RT)


def _divergences(p: Problem, q: Problem) -> tuple[jax.Array, jax.Array]:
    """Of each place the two divergences: a second look at each tile, with both log-sum-exps known."""
    p_total_RN, q_total_RN = totals(p).log_total_RN, totals(q).log_total_RN

    def one_tile(carry: tuple[jax.Array, ...], t: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        p_kernel_DW, _ = tile(p.kernel_DV, p.tiles, t)
        q_kernel_DW, _ = tile(q.kernel_DV, q.tiles, t)

        def body(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            p_RCW, q_RCW = (
                chunk_logits(m.hidden_RND, i, m.C, kernel_DW) - chunk(total_RN, i, m.C)[:, :, None]
                for m, kernel_DW, total_RN in ((p, p_kernel_DW, p_total_RN), (q, q_kernel_DW, q_total_RN))
            )
            parts = _positive_terms(p_RCW, q_RCW), _positive_terms(q_RCW, p_RCW)
            return tuple(
                write(sum_RN, i, p.C, chunk(sum_RN, i, p.C) + part_RCW.sum(axis=-1))
                for sum_RN, part_RCW in zip(carry, parts, strict=True)
            )

        return jax.lax.fori_loop(0, p.chunks, body, carry), None

    zeros_RN = jnp.zeros_like(p.weights_RN)
    start: tuple[jax.Array, ...] = (zeros_RN, zeros_RN)
    sums, _ = jax.lax.scan(one_tile, start, jnp.arange(p.tiles))
    if p.vocab_axis:
        sums = jax.lax.psum(sums, p.vocab_axis)
    return sums[0], sums[1]


def _positive_terms(p_x: jax.Array, q_x: jax.Array) -> jax.Array:
    """p (log p - log q) - p + q of log-probabilities: terms of KL(p || q) that are never negative.

    The sum of q - p is 0; with it no rounding of large terms hides a small divergence.
    """
    gap_x = p_x - q_x
    near_x = jnp.exp(p_x) * (gap_x + jnp.expm1(-jnp.clip(gap_x, -1, 1)))
    far_x = jnp.exp(p_x) * gap_x + (jnp.exp(q_x) - jnp.exp(p_x))
    return jnp.where(jnp.abs(gap_x) < 1, near_x, far_x)


def _asked_first(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    options: Options,
    vocab_axis: str | None,
) -> tuple[Problem, jax.Array]:
    """The device's problem with positions of negative targets last, and which position each place holds."""
    weights_RT = (targets_RT >= 0).astype(jnp.float32)
    if vocab_axis:
        targets_RT = targets_RT - jax.lax.axis_index(vocab_axis) * kernel_DV.shape[1]
    kernel_DV = kernel_DV.astype(hidden_RTD.dtype)
    return weighted_first(hidden_RTD, kernel_DV, targets_RT, weights_RT, options, vocab_axis)


def _on_devices(share: Any, hidden: tuple[Any, ...], kernels: tuple[Any, ...], asked_RT: Any) -> Any:
    """`share` on each device's rows; of the heads it has all, or its part of the vocabulary."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return share(*hidden, *kernels, asked_RT, None)
    vocab_axis = None if kernels[0].shape[1] % mesh.shape["tensor"] else "tensor"
    rows = P(BATCH_AXES)
    return jax.shard_map(
        partial(share, vocab_axis=vocab_axis),
        in_specs=(*(rows for _ in hidden), *(P(None, vocab_axis) for _ in kernels), rows),
        out_specs=(rows, rows),
        check_vma=False,
    )(*hidden, *kernels, asked_RT)
