"""Splash attention (jax's Pallas kernel for TPU) over packed rows, skipping blocks that share no example.

The kernel takes per block of queries and keys whether to compute it. jax builds that table from a mask that
is known when compiling; here it is made from the segment ids of the very rows, so that a packed row costs
what its examples cost and not what their concatenation would. Tokens may be sharded: queries stay where
they are, keys and values are gathered.
"""

from functools import partial
from typing import Any

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


def block_size(queries: int) -> int | None:
    """The block for this many queries on one device, or None if no block divides them."""
    return next((block for block in BLOCKS if queries % block == 0), None)


def splash_rows(
    q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array, segments_BT: jax.Array, interpret: bool = False
) -> jax.Array:
    """Causal attention within each segment of packed rows -> [B, T, H, d], on the mesh that is set.

    `interpret` runs the kernel's body on any device, slowly.
    """
    rows, row_heads = P(BATCH_AXES, "sequence"), P(BATCH_AXES, "sequence", "tensor", None)
    whole, whole_heads = P(BATCH_AXES, None), P(BATCH_AXES, None, "tensor", None)
    attend = jax.shard_map(
        partial(_attend_shard, interpret=interpret),
        in_specs=(row_heads, whole_heads, whole_heads, rows, whole),
        out_specs=row_heads,
        check_vma=False,
    )
    return attend(q_BTHd * q_BTHd.shape[-1] ** -0.5, k_BTKd, v_BTKd, segments_BT, segments_BT)


def _attend_shard(
    q_BTHd: jax.Array,
    k_BSKd: jax.Array,
    v_BSKd: jax.Array,
    segments_BT: jax.Array,
    segments_BS: jax.Array,
    interpret: bool,
) -> jax.Array:
    """T queries of this device against all S keys of their rows."""
    T = q_BTHd.shape[1]
    block = block_size(T)
    assert block is not None, f"no block divides {T} queries"
    start = jax.lax.axis_index("sequence") * T

    def attend_row(row: tuple[jax.Array, ...]) -> jax.Array:
        q_THd, k_SKd, v_SKd, segments_T, segments_S = row
        kernel = _kernel(segments_T, segments_S, start, block, interpret)
        q_HTd, k_KSd, v_KSd = (x.transpose(1, 0, 2) for x in (q_THd, k_SKd, v_SKd))
        out_HTd = kernel(q_HTd, k_KSd, v_KSd, splash.SegmentIds(q=segments_T, kv=segments_S))
        return out_HTd.transpose(1, 0, 2)

    return jax.lax.map(attend_row, (q_BTHd, k_BSKd, v_BSKd, segments_BT, segments_BS))


def _kernel(
    segments_T: jax.Array, segments_S: jax.Array, start: jax.Array, block: int, interpret: bool
) -> Any:
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
        save_residuals=False,
        mask_value=splash.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=RESIDUALS,
        mask_function=_causal,
        interpret=interpret,
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
