"""Work on the logits of a vocabulary that never exist whole: chunks of tokens, tiles of the head.

What is asked of tokens (a loss, a likelihood, a divergence) is asked of some: each row's asked positions are
taken first, in chunks, and the loops end when the fullest row of the device has none left. A large head is
worked on in tiles of its vocabulary. On a mesh every device works on its own tokens; the vocabulary may stay
split over an axis.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LOWEST = -1e30
CHUNK_TOKENS = 2048
TILE_ELEMENTS = 2**27
"""Most elements of a tile of the head: half a GiB in float32."""


class Options(NamedTuple):
    """What the work depends on besides its arrays; constants of the compiled program."""

    chunk_tokens: int = CHUNK_TOKENS
    """A device holds the logits of about so many tokens at once."""
    tile_elements: int = TILE_ELEMENTS
    by_probability: bool = False
    """Each target's weight is multiplied by its probability, through which no gradient flows (DFT, arXiv
    2508.05629)."""


DEFAULTS = Options()


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


class Totals(NamedTuple):
    """Of each token, over the whole vocabulary, float32 [R, N]."""

    log_total_RN: jax.Array
    """Log-sum-exp of its logits."""
    target_RN: jax.Array
    """Its target's logit."""
    highest_RN: jax.Array
    """Its highest logit."""


def chunk_length(rows: int, length: int, chunk_tokens: int = CHUNK_TOKENS) -> int:
    """Weighted positions of each row worked on at once on a device that holds `rows` of `length` tokens."""
    return min(length, max(1, chunk_tokens // rows))


def weighted_first(
    hidden_RTD: jax.Array,
    kernel_DV: jax.Array,
    targets_RT: jax.Array,
    weights_RT: jax.Array,
    options: Options,
    vocab_axis: str | None,
) -> tuple[Problem, jax.Array]:
    """The device's problem, weighted positions first, and which position of its row each place holds."""
    R, T, _ = hidden_RTD.shape
    C = chunk_length(R, T, options.chunk_tokens)
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
        tile_count(kernel_DV, options.tile_elements),
        vocab_axis,
        options.by_probability,
    )
    return problem, order_RN


def tile_count(kernel_DV: jax.Array, tile_elements: int) -> int:
    """Into how many tiles the vocabulary is cut: the least power of two that suffices and divides it."""
    tiles = 1
    while tiles * tile_elements < kernel_DV.size and kernel_DV.shape[1] % (2 * tiles) == 0:
        tiles *= 2
    return tiles


@jax.vmap
def put(old_TX: jax.Array, index_N: jax.Array, new_NX: jax.Array) -> jax.Array:
    """Of every row, write at the given positions; those beyond the row are dropped."""
    return old_TX.at[index_N].set(new_NX, mode="drop")


def totals(p: Problem) -> Totals:
    """Each token's log-sum-exp, target logit and highest logit, from logits made once, tile by tile."""

    def one_tile(carry: tuple[jax.Array, ...], t: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        kernel_DW, offset = tile(p.kernel_DV, p.tiles, t)

        def body(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            peak_RC, total_RC, target_RC = (chunk(x_RN, i, p.C) for x_RN in carry)
            logits_RCW = chunk_logits(p.hidden_RND, i, p.C, kernel_DW)
            higher_RC = jnp.maximum(peak_RC, logits_RCW.max(axis=-1))
            total_RC = total_RC * jnp.exp(peak_RC - higher_RC)
            total_RC = total_RC + jnp.exp(logits_RCW - higher_RC[:, :, None]).sum(axis=-1)
            target_RC = target_RC + pick(logits_RCW, chunk(p.targets_RN, i, p.C) - offset)
            new = (higher_RC, total_RC, target_RC)
            return tuple(write(x_RN, i, p.C, x_RC) for x_RN, x_RC in zip(carry, new, strict=True))

        return jax.lax.fori_loop(0, p.chunks, body, carry), None

    zeros_RN = jnp.zeros_like(p.weights_RN)
    start: tuple[jax.Array, ...] = (zeros_RN + LOWEST, zeros_RN, zeros_RN)
    carry, _ = jax.lax.scan(one_tile, start, jnp.arange(p.tiles))
    return combine(p.vocab_axis, *carry)


def combine(vocab_axis: str | None, peak_RC: jax.Array, total_RC: jax.Array, target_RC: jax.Array) -> Totals:
    """Totals over the whole vocabulary, from those over this device's part.

    `total_RC` is the sum of exp(logit - peak).
    """
    if vocab_axis:
        highest_RC = jax.lax.pmax(peak_RC, vocab_axis)
        total_RC = jax.lax.psum(total_RC * jnp.exp(peak_RC - highest_RC), vocab_axis)
        peak_RC, target_RC = highest_RC, jax.lax.psum(target_RC, vocab_axis)
    return Totals(peak_RC + jnp.log(total_RC), target_RC, peak_RC)


def chunk_logits(hidden_RND: jax.Array, i: Any, C: int, kernel_DV: jax.Array) -> jax.Array:
    """Logits of chunk i of the tokens, float32 [R, C, V]."""
    hidden_RCD = chunk(hidden_RND, i, C)
    return jnp.einsum("rcd,dv->rcv", hidden_RCD, kernel_DV, preferred_element_type=jnp.float32)


def tile(kernel_DV: jax.Array, tiles: int, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Columns of tile t of the head, and the number of the first."""
    width = kernel_DV.shape[1] // tiles
    return jax.lax.dynamic_slice_in_dim(kernel_DV, t * width, width, axis=1), t * width


def pick(logits_RCV: jax.Array, targets_RC: jax.Array) -> jax.Array:
    """The targets' logits; 0 for targets that are not among these."""
    found_RC = jnp.take_along_axis(logits_RCV, targets_RC[:, :, None], axis=-1, mode="clip")[:, :, 0]
    return jnp.where((targets_RC >= 0) & (targets_RC < logits_RCV.shape[-1]), found_RC, 0.0)


def chunk(x_RN: jax.Array, i: Any, C: int) -> jax.Array:
    """Places of chunk i."""
    return jax.lax.dynamic_slice_in_dim(x_RN, i * C, C, axis=1)


def write(x_RN: jax.Array, i: Any, C: int, new_RC: jax.Array) -> jax.Array:
    """`x_RN` with chunk i replaced."""
    return jax.lax.dynamic_update_slice_in_dim(x_RN, new_RC, i * C, axis=1)
