"""Attention over packed rows (training, scoring), and what attention is to: a context.

What a token attends to is the context that a decoder is given: a pytree whose `attend` takes a layer's
queries, keys and values. Keys and values that were kept are in `models.paged`.

On TPU packed rows go through the splash kernel; everywhere else this is plain JAX. It folds the query heads
that share one key/value head into rows of a single batched matrix product, and divides by the softmax sum
after the product with the values, which is smaller than the weights. Softmax is computed in float32.
"""

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jax_sft.models.kernels.splash import block_size, splash_rows
from jax_sft.sharding import platform

QKV = "qkv"
"""Checkpoint name of queries, keys and values, for remat policies that keep them."""
QUERY_CHUNK = 128
MASKED = -1e30


class Context(Protocol):
    """What the tokens of one layer attend to."""

    def attend(self, q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array) -> tuple[jax.Array, Any]:
        """Attention of new tokens [B, T, H, d], and what is kept of their keys and values."""


class Segments(NamedTuple):
    """Packed rows: a token sees the earlier tokens of its own example. Nothing is kept."""

    segments_BT: jax.Array

    def attend(self, q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array) -> tuple[jax.Array, None]:
        q_BTHd, k_BTKd, v_BTKd = (checkpoint_name(x, QKV) for x in (q_BTHd, k_BTKd, v_BTKd))
        return attend(q_BTHd, k_BTKd, v_BTKd, self.segments_BT), None


def attend(q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array, segments_BT: jax.Array) -> jax.Array:
    """Causal attention within each segment of packed rows -> [B, T, H, d], by the best way there is.

    That is splash attention where the mesh that is set is of TPUs and a block divides each device's tokens,
    and `attend_rows` elsewhere.
    """
    if has_kernel(q_BTHd.shape[1]):
        return splash_rows(q_BTHd, k_BTKd, v_BTKd, segments_BT)
    return attend_rows(q_BTHd, k_BTKd, v_BTKd, segments_BT)


def has_kernel(length: int) -> bool:
    """Whether rows of so many tokens are attended to by the splash kernel, on the mesh that is set."""
    mesh = jax.sharding.get_abstract_mesh()
    tokens = length // mesh.shape.get("sequence", 1)
    return not mesh.empty and platform() == "tpu" and block_size(tokens) is not None


def attend_rows(
    q_BTHd: jax.Array,
    k_BTKd: jax.Array,
    v_BTKd: jax.Array,
    segments_BT: jax.Array,
    branches_BT: jax.Array | None = None,
) -> jax.Array:
    """Causal attention within each segment of packed rows -> [B, T, H, d].

    Where a segment has branches, tokens of one see each other and those of branch 0. Queries are taken in
    chunks that see only the keys up to their own end, so that no T x T array is ever made and half of the
    products are never computed; each chunk is recomputed in the backward pass.
    """
    B, T, H, d = q_BTHd.shape
    K = k_BTKd.shape[2]
    G = H // K
    q_BKGTd = (q_BTHd * d**-0.5).reshape(B, T, K, G, d).transpose(0, 2, 3, 1, 4)
    k_BKTd, v_BKTd = k_BTKd.transpose(0, 2, 1, 3), v_BTKd.transpose(0, 2, 1, 3)
    marks = _Marks(segments_BT, branches_BT)
    outputs = []
    for start in range(0, T, QUERY_CHUNK):
        end = min(start + QUERY_CHUNK, T)
        outputs.append(
            _attend_chunk(
                q_BKGTd[:, :, :, start:end],
                k_BKTd[:, :, :end],
                v_BKTd[:, :, :end],
                marks.part(start, end),
                marks.part(0, end),
            )
        )
    return jnp.concatenate(outputs, axis=3).transpose(0, 3, 1, 2, 4).reshape(B, T, H, d)


class _Marks(NamedTuple):
    """What decides which tokens of a row may see each other, besides their order."""

    segments_BT: jax.Array
    branches_BT: jax.Array | None

    def part(self, start: int, end: int) -> "_Marks":
        """Those of some tokens."""
        branches_BT = None if self.branches_BT is None else self.branches_BT[:, start:end]
        return _Marks(self.segments_BT[:, start:end], branches_BT)

    def see(self, keys: "_Marks") -> jax.Array:
        """Whether each of C tokens may see each of S keys, bool [B, C, S]."""
        seen_BCS = self.segments_BT[:, :, None] == keys.segments_BT[:, None, :]
        if self.branches_BT is None or keys.branches_BT is None:
            return seen_BCS
        branches_B1S = keys.branches_BT[:, None, :]
        return seen_BCS & ((branches_B1S == 0) | (branches_B1S == self.branches_BT[:, :, None]))


@partial(jax.checkpoint, policy=jax.checkpoint_policies.nothing_saveable)
def _attend_chunk(
    q_BKGCd: jax.Array, k_BKSd: jax.Array, v_BKSd: jax.Array, queries: _Marks, keys: _Marks
) -> jax.Array:
    B, K, G, C, d = q_BKGCd.shape
    S = k_BKSd.shape[2]
    causal_CS = jnp.arange(C)[:, None] + (S - C) >= jnp.arange(S)[None, :]
    visible_BCS = causal_CS[None] & queries.see(keys)
    scores_BKRS = jnp.einsum(
        "bkrd,bksd->bkrs", q_BKGCd.reshape(B, K, G * C, d), k_BKSd, preferred_element_type=jnp.float32
    )
    scores_BKGCS = jnp.where(visible_BCS[:, None, None], scores_BKRS.reshape(B, K, G, C, S), MASKED)
    return _softmax_values(scores_BKGCS.reshape(B, K, G * C, S), v_BKSd).reshape(B, K, G, C, d)


def _softmax_values(scores_BKRS: jax.Array, v_BKSd: jax.Array) -> jax.Array:
    peak_BKR1 = jax.lax.stop_gradient(scores_BKRS.max(-1, keepdims=True))
    weights_BKRS = jnp.exp(scores_BKRS - peak_BKR1)
    total_BKR1 = weights_BKRS.sum(-1, keepdims=True)
    values_BKRd = jnp.einsum(
        "bkrs,bksd->bkrd", weights_BKRS.astype(v_BKSd.dtype), v_BKSd, preferred_element_type=jnp.float32
    )
    return (values_BKRd / total_BKR1).astype(v_BKSd.dtype)
