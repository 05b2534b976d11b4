"""Keys and values in pages for the TPU's ragged paged attention: a memory as `models.memory` asks for it.

A layer's pages are one array (see `kernels.paged`), split over data shards and heads. New tokens are written
into their pages and attended to there, so that decoding and prefill hold nothing beside the pages.

Pages of 8-bit integers have a scale for each channel of a head: the keys' is multiplied into the queries, the
values' into what comes out, so that the kernel does not know of it. `models.calibration` finds them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jax_sft.config import ModelConfig
from jax_sft.models.kernels import paged
from jax_sft.sharding import BATCH_AXES, platform, split_over

if TYPE_CHECKING:  # the memories are made known there
    from jax_sft.models.memory import Layers, Orders

POOL = P(BATCH_AXES, None, "tensor", None)
TOKENS = P(BATCH_AXES, None, "tensor", None)
ROWS = P(BATCH_AXES)


HEADS = P("tensor", None)


class Scales(NamedTuple):
    """What each channel of keys and values in 8-bit integers is multiplied by."""

    k_Kd: jax.Array
    v_Kd: jax.Array


class Pool(NamedTuple):
    """Keys and values of one layer."""

    kv_PSCd: jax.Array
    scales: Scales | None = None


def pool_spec(pool: Pool) -> Any:
    """How the mesh splits a layer."""
    return jax.tree.map(lambda leaf: POOL if leaf.ndim == 4 else HEADS, pool)


class NewTokens(NamedTuple):
    """New tokens of each sequence, which are written to its pages and then attend to them."""

    pool: Pool
    table_BN: jax.Array
    start_B: jax.Array
    """Positions before the new tokens."""
    place_BX: jax.Array
    """Where in the shard's pool they go: the page of each page of new tokens, or, of one new token, page x
    positions of a page + offset. Nowhere where there is no such place."""

    def attend(self, q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array) -> tuple[jax.Array, Pool]:
        pool = pool_spec(self.pool)
        specs = TOKENS, TOKENS, TOKENS, pool, ROWS, ROWS, ROWS
        given = q_BTHd, k_BTKd, v_BTKd, self.pool, self.table_BN, self.start_B, self.place_BX
        return split_over(_attend, specs, (TOKENS, pool))(*given)


def _attend(
    q_BTHd: jax.Array,
    k_BTKd: jax.Array,
    v_BTKd: jax.Array,
    pool: Pool,
    table_BN: jax.Array,
    start_B: jax.Array,
    place_BX: jax.Array,
) -> tuple[jax.Array, Pool]:
    (B, T, H, d), K = q_BTHd.shape, k_BTKd.shape[2]
    pages, S, *row = kv_shape = pool.kv_PSCd.shape
    kernel = platform() == "tpu"
    q_BTHd = q_BTHd * d**-0.5
    if (scales := pool.scales) is not None:
        q_BTHd = of_channels(q_BTHd, scales.k_Kd)
        k_BTKd, v_BTKd = of_channels(k_BTKd, 1 / scales.k_Kd), of_channels(v_BTKd, 1 / scales.v_Kd)
    new_NCd = paged.combine(k_BTKd.reshape(B * T, K, d), v_BTKd.reshape(B * T, K, d), pool.kv_PSCd)
    # One token is a row of the pool seen token by token, more of them are whole pages.
    unit = (pages * S, *row) if T == 1 else kv_shape
    rows_Xr = new_NCd.reshape(-1, *unit[1:])
    written = paged.write_rows(pool.kv_PSCd.reshape(unit), rows_Xr, place_BX.reshape(-1), kernel)
    pool = Pool(written.reshape(kv_shape), scales)
    rows = paged.Ragged(
        lengths_B=start_B + T,
        table_BJ=jnp.clip(table_BN, 0, pages - 1),
        starts_S=jnp.arange(B + 1, dtype=jnp.int32) * T,
        count_1=jnp.full(1, B, jnp.int32),
    )
    attend = paged.attend_pages if kernel else paged.attend_pages_plainly
    out_BTHd = attend(q_BTHd.reshape(B * T, H, d), pool.kv_PSCd, rows, K).reshape(B, T, H, d)
    return out_BTHd if scales is None else of_channels(out_BTHd, scales.v_Kd), pool


def of_channels(x_BTHd: jax.Array, scale_Kd: jax.Array) -> jax.Array:
    """`x` with each channel of its heads scaled; several heads may share one of the K."""
    B, T, H, d = x_BTHd.shape
    scaled = x_BTHd.reshape(B, T, -1, H // scale_Kd.shape[0], d) * scale_Kd[None, None, :, None]
    return scaled.reshape(B, T, H, d).astype(x_BTHd.dtype)


class RaggedDesk(NamedTuple):
    """The pages themselves change from token to token."""

    start: "Layers"
    table_BN: jax.Array

    def contexts(
        self, changed: "Layers", column: jax.Array, position_B: jax.Array, active_B: jax.Array
    ) -> list[NewTokens]:
        S = changed[0].kv_PSCd.shape[1]
        nth_B1 = jnp.minimum(position_B // S, self.table_BN.shape[1] - 1)[:, None]
        page_B1 = jnp.take_along_axis(self.table_BN, nth_B1, axis=1)
        place_B1 = jnp.where(active_B[:, None], page_B1 * S + position_B[:, None] % S, -1)
        start_B = jnp.where(active_B, position_B, 0)
        return [NewTokens(layer, self.table_BN, start_B, place_B1) for layer in changed]

    def close(self, changed: "Layers", start_B: jax.Array, made_B: jax.Array) -> "Layers":
        return changed


class RaggedPages:
    """Pages that the TPU's kernel reads; elsewhere plain JAX reads the same ones, slowly."""

    units = 1

    def empty(self, config: ModelConfig, pages: int, page: int, dtype: Any) -> "Layers":
        tensor = jax.sharding.get_abstract_mesh().shape.get("tensor", 1)
        shape = paged.page_shape(pages, page, config.num_kv_heads, config.head_dim, dtype, tensor)
        ones = jnp.ones((config.num_kv_heads, config.head_dim), jnp.float32)
        scales = Scales(ones, ones) if jnp.issubdtype(dtype, jnp.integer) else None
        return tuple(Pool(jnp.zeros(shape, dtype), scales) for _ in range(config.num_layers))

    def spec(self, layers: "Layers") -> Any:
        return tuple(pool_spec(layer) for layer in layers)

    def prompts(self, layers: "Layers", orders: "Orders") -> list[NewTokens]:
        start_R = orders.start_R.astype(jnp.int32)
        return [NewTokens(layer, orders.table_RN, start_R, orders.write_RW) for layer in layers]

    def open(
        self, layers: "Layers", table_BN: jax.Array, position_B: jax.Array, active_B: jax.Array, chunk: int
    ) -> RaggedDesk:
        return RaggedDesk(layers, table_BN)

    def copy(self, layers: "Layers", from_B: jax.Array, to_B: jax.Array) -> "Layers":
        def copied(pool: Pool, from_B: jax.Array, to_B: jax.Array) -> Pool:
            kv_PSCd = pool.kv_PSCd
            rows = kv_PSCd[jnp.clip(from_B, 0, kv_PSCd.shape[0] - 1)]
            return pool._replace(kv_PSCd=paged.write_rows(kv_PSCd, rows, to_B, platform() == "tpu"))

        spec = pool_spec(layers[0])
        split: Callable[..., Pool] = split_over(copied, (spec, ROWS, ROWS), spec)
        return tuple(split(layer, from_B, to_B) for layer in layers)
