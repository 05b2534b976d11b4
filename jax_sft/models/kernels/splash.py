"""Splash attention (jax's Pallas kernel for TPU) over packed rows, skipping blocks that share no example.

The kernel takes per block of queries and keys whether to compute it. jax builds that table from a mask that
is known when compiling; here it is made from the segment ids of the very rows, so that a packed row costs
what its examples cost and not what their concatenation would. Tokens may be sharded: queries stay where
they are, keys and values are gathered.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo
from jax.sharding import PartitionSpec as P

from jax_sft.sharding import BATCH_AXES

ATTENTION_BLOCK = 128
"""The least number of tokens that the kernel works on at once."""
BLOCKS = (512, 256, ATTENTION_BLOCK)
"""Block sizes in order of preference; 512 is what MaxText ships."""
RESIDUALS = "attention"
"""Checkpoint name of the kernel's output and log-sum-exp, for remat policies that keep them."""
PADDING = jnp.iinfo(jnp.int32).max
LEAST_TOTAL = -1e30
_ROWS, _ROW_HEADS = P(BATCH_AXES, "sequence"), P(BATCH_AXES, "sequence", "tensor", None)
_WHOLE, _WHOLE_HEADS = P(BATCH_AXES, None), P(BATCH_AXES, None, "tensor", None)


class Way(NamedTuple):
    """How the kernel runs."""

    interpret: bool
    """Its body on any device, slowly."""
    with_totals: bool = False
    """The log-sum-exps of each query's scores come out as well; there is no gradient then."""


def block_size(queries: int) -> int | None:
    """The block for this many queries on one device, or None if no block divides them."""
    return next((block for block in BLOCKS if queries % block == 0), None)


def splash_rows(
    q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array, segments_BT: jax.Array, interpret: bool = False
) -> jax.Array:
    """Causal attention within each segment of packed rows -> [B, T, H, d], on the mesh that is set.

    `interpret` runs the kernel's body on any device, slowly.
    """
    attend = jax.shard_map(
        partial(_attend_shard, way=Way(interpret)),
        in_specs=(_ROW_HEADS, _WHOLE_HEADS, _WHOLE_HEADS, _ROWS, _WHOLE),
        out_specs=_ROW_HEADS,
        check_vma=False,
    )
    return attend(q_BTHd * q_BTHd.shape[-1] ** -0.5, k_BTKd, v_BTKd, segments_BT, segments_BT)


def splash_branches(
    q_BTHd: jax.Array,
    k_BTKd: jax.Array,
    v_BTKd: jax.Array,
    segments_BT: jax.Array,
    branches_BT: jax.Array,
    interpret: bool = False,
) -> jax.Array:
    """As `splash_rows`, of segments with branches: tokens of one see each other and those of branch 0.

    The kernel knows equal ids alone, so that the softmax is taken in two parts, of a token's own branch and,
    in branches, of what comes before them; their log-sum-exps say how much each part counts.
    """
    changes_BT = (jnp.diff(segments_BT, axis=1, prepend=0) != 0) | (
        jnp.diff(branches_BT, axis=1, prepend=0) != 0
    )
    own_BT = jnp.where(segments_BT > 0, jnp.cumsum(changes_BT, axis=1), 0)
    # Ids near those of the example, so that the blocks it does not touch are still skipped: 4n for keys
    # before branches and for queries in them; others see nothing and are seen by none.
    in_branch_BT = branches_BT > 0
    queries_BT = jnp.where(segments_BT > 0, 4 * segments_BT + jnp.where(in_branch_BT, 0, 1), 0)
    before_BT = jnp.where(segments_BT > 0, 4 * segments_BT + jnp.where(in_branch_BT, 2, 0), 0)
    attend = jax.shard_map(
        partial(_attend_shard, way=Way(interpret, with_totals=True)),
        in_specs=(_ROW_HEADS, _WHOLE_HEADS, _WHOLE_HEADS, _ROWS, _WHOLE),
        out_specs=(_ROW_HEADS, P(BATCH_AXES, "sequence", "tensor")),
        check_vma=False,
    )
    q_BTHd = q_BTHd * q_BTHd.shape[-1] ** -0.5
    own_BTHd, own_total_BTH = attend(q_BTHd, k_BTKd, v_BTKd, own_BT, own_BT)
    before_BTHd, before_total_BTH = attend(q_BTHd, k_BTKd, v_BTKd, queries_BT, before_BT)
    # A query that sees none of the keys before its branch has a total of next to nothing, or of nothing.
    seen_BTH = in_branch_BT[:, :, None] & (before_total_BTH > LEAST_TOTAL)
    share_BTH1 = jnp.where(seen_BTH, jax.nn.sigmoid(before_total_BTH - own_total_BTH), 0.0)[..., None]
    before_BTHd = jnp.where(seen_BTH[..., None], before_BTHd, 0)
    return ((1 - share_BTH1) * own_BTHd + share_BTH1 * before_BTHd).astype(q_BTHd.dtype)


def _attend_shard(
    q_BTHd: jax.Array,
    k_BSKd: jax.Array,
    v_BSKd: jax.Array,
    segments_BT: jax.Array,
    segments_BS: jax.Array,
    way: Way,
) -> Any:
    """T queries of this device against all S keys of their rows, with log-sum-exps [B, T, H] if asked."""
    T = q_BTHd.shape[1]
    block = block_size(T)
    assert block is not None, f"no block divides {T} queries"
    start = jax.lax.axis_index("sequence") * T

    def attend_row(row: tuple[jax.Array, ...]) -> Any:
        q_THd, k_SKd, v_SKd, segments_T, segments_S = row
        kernel = _kernel(segments_T, segments_S, start, block, way)
        q_HTd, k_KSd, v_KSd = (x.transpose(1, 0, 2) for x in (q_THd, k_SKd, v_SKd))
        out = kernel(q_HTd, k_KSd, v_KSd, splash.SegmentIds(q=segments_T, kv=segments_S))
        if not way.with_totals:
            return out.transpose(1, 0, 2)
        out_HTd, (total_HT,) = out
        return out_HTd.transpose(1, 0, 2), total_HT.T

    return jax.lax.map(attend_row, (q_BTHd, k_BSKd, v_BSKd, segments_BT, segments_BS))


def _kernel(segments_T: jax.Array, segments_S: jax.Array, start: jax.Array, block: int, way: Way) -> Any:
    q_sequence_T: Any = start + jnp.arange(segments_T.shape[0], dtype=jnp.int32)
    needed_IJ = needed_blocks(segments_T, segments_S, start, block)

    def info(axis: int) -> MaskInfo:
        fetched_IJ = _clip_to_needed(needed_IJ, axis)
        return MaskInfo(fetched_IJ[None], None, needed_IJ[None].astype(jnp.int32), None, q_sequence_T)

    return splash.SplashAttentionKernel(
        info(1),
        info(1),
        info(0),
        block_sizes=_block_sizes(block),
        is_mqa=False,
        save_residuals=way.with_totals,
        mask_value=splash.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=RESIDUALS,
        mask_function=_causal,
        interpret=way.interpret,
    )


def _block_sizes(block: int) -> splash.BlockSizes:
    return splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )


def needed_blocks(
    segments_T: jax.Array, segments_S: jax.Array, start: jax.Array | int, block: int
) -> jax.Array:
    """Whether queries of block I (from position `start` on) may see keys of block J -> bool [I, J].

    True when J is not after I and their ranges of segments overlap; in packed rows, whose segments are
    in order, that is exactly when they share an example.
    """
    low_I, high_I = _segment_range(segments_T, block)
    low_J, high_J = _segment_range(segments_S, block)
    first_I = start // block + jnp.arange(low_I.shape[0])
    causal_IJ = first_I[:, None] >= jnp.arange(low_J.shape[0])[None, :]
    return causal_IJ & (low_I[:, None] <= high_J[None, :]) & (low_J[None, :] <= high_I[:, None])


def _segment_range(segments_T: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest segment of each block; padding (segment 0), which ends a row, counts as last."""
    blocks_IC = jnp.where(segments_T == 0, PADDING, segments_T).reshape(-1, block)
    return blocks_IC.min(axis=1), blocks_IC.max(axis=1)


def _clip_to_needed(needed_IJ: jax.Array, axis: int) -> jax.Array:
    """The block to have in memory at each place: itself where needed, else the nearest that is needed.

    A skipped block then fetches nothing that is not used next.
    """
    index_IJ = jax.lax.broadcasted_iota(jnp.int32, needed_IJ.shape, axis)
    first = jnp.where(needed_IJ, index_IJ, needed_IJ.shape[axis] - 1).min(axis=axis, keepdims=True)
    last = jnp.where(needed_IJ, index_IJ, 0).max(axis=axis, keepdims=True)
    return jnp.minimum(jnp.maximum(index_IJ, first), jnp.broadcast_to(last, index_IJ.shape))


def _causal(q_positions: jax.Array, k_positions: jax.Array) -> jax.Array:
    return q_positions >= k_positions
