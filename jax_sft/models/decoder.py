"""One decoder-only transformer for every family, use and size.

RMSNorm, rotary positions, grouped-query attention with optional q/k norm and biases, SwiGLU, optionally
tied embeddings. Parameters are stacked over layers. `forward_rows` runs packed rows (training, scoring),
scanning the layers; `forward_cached` runs new tokens of sequences whose earlier ones are kept in pages, to
decode and to prefill, unrolled. What tokens attend to is a context (`models.attention`, `models.paged`): one
for all layers of rows, one for each layer of pages.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jax_sft.config import LoraConfig, ModelConfig, Remat
from jax_sft.models import Params
from jax_sft.models.attention import Context, Segments
from jax_sft.models.lora import adapted, has_adapter
from jax_sft.models.quantised import Quantised, rows_of
from jax_sft.models.remat import rematerialised
from jax_sft.models.rope import Rope, rope_tables, rotate
from jax_sft.packed import Rows
from jax_sft.sharding import alone, constrain, platform

Matrix = jax.Array | Quantised
FULL = LoraConfig()
"""No adapters."""
LAYERS = "layers"
"""Where a parameter tree holds the layers' parameters, stacked."""
CPU_UNROLL = 8
"""Layers in one iteration of the scan on CPU, where unrolled layers train about a fifth faster."""


def _init(scale: float, *axes: str | None) -> Any:
    return nn.with_logical_partitioning(nn.initializers.normal(scale), axes)


def _in_type(kernel: Matrix, dtype: Any) -> Matrix:
    """A layer's weight in the compute type, or as it is in 8 bits.

    The barrier has the compiler for TPUs gather it as a matrix and not as a slice of all layers' weights;
    the backward pass of a 14B model then holds one copy of such a matrix less.
    """
    if isinstance(kernel, Quantised) or kernel.dtype == dtype:
        return kernel
    return _barrier(kernel).astype(dtype)


@jax.custom_vjp
def _barrier(x: jax.Array) -> jax.Array:
    return jax.lax.optimization_barrier(x)


_barrier.defvjp(lambda x: (_barrier(x), None), lambda _, d_x: (d_x,))


def product(x: jax.Array, kernel: Matrix, contracted: int = 1) -> jax.Array:
    """x[..., *c] @ kernel[*c, ...], summed over that many axes.

    On one device it is a product of two matrices, which is what compilers know best: with the batch as an
    axis of its own the MLP of a small model trains at two thirds of the speed on CPU.
    """
    if isinstance(kernel, Quantised):
        return kernel.scaled(product(x, kernel.values.astype(x.dtype), contracted)).astype(x.dtype)
    kept, summed = x.shape[: x.ndim - contracted], kernel.shape[:contracted]
    if alone():
        y = x.reshape(math.prod(kept), math.prod(summed)) @ kernel.reshape(math.prod(summed), -1)
        return y.reshape(*kept, *kernel.shape[contracted:])
    axes = (tuple(range(len(kept), x.ndim)), tuple(range(contracted)))
    return jax.lax.dot_general(x, kernel, (axes, ((), ())))


class Table(nn.Module):
    """One matrix outside the layers: the embedding, or a head that is not tied to it."""

    label: str
    shape: tuple[int, int]
    axes: tuple[str | None, str | None]

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param(self.label, _init(0.02, *self.axes), self.shape, jnp.float32)


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis, computed in float32 (arXiv 1910.07467)."""

    eps: float
    axis: str | None = "embed"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), (self.axis,))
        scale = self.param("scale", ones, (x.shape[-1],), jnp.float32)
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return (x32 * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class Projection(nn.Module):
    """x[..., D] @ kernel[D, *features] (+ bias), parameters float32, product in the type of x."""

    features: tuple[int, ...]
    axes: tuple[str | None, ...]
    use_bias: bool = False
    lora: LoraConfig = FULL

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        init = _init(width**-0.5, "embed", *self.axes)
        kernel = self.param("kernel", init, (width, *self.features), jnp.float32)
        y = product(x, _in_type(kernel, x.dtype))
        if self.use_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes)
            bias = self.param("bias", zeros, self.features, jnp.float32).astype(x.dtype)
            y = y + bias.reshape((1,) * (x.ndim - 1) + self.features)
        if has_adapter(self.lora, self.name):
            y = y + adapted(self, x, self.features, ("embed", *self.axes), self.lora)
        return y


class OutProjection(nn.Module):
    """x[..., *features] @ kernel[*features, D], back to the residual stream."""

    width: int
    axes: tuple[str | None, ...]
    num_layers: int
    lora: LoraConfig = FULL

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n = len(self.axes)
        features = x.shape[-n:]
        init = _init((2 * self.num_layers * math.prod(features)) ** -0.5, *self.axes, "embed")
        kernel = self.param("kernel", init, (*features, self.width), jnp.float32)
        y = product(x, _in_type(kernel, x.dtype), n)
        if has_adapter(self.lora, self.name):
            flat = x.reshape(*x.shape[:-n], math.prod(features))
            y = y + adapted(self, flat, (self.width,), (self.axes[0], "embed"), self.lora)
        return y


class Attention(nn.Module):
    """Grouped-query attention to a context; returns its output, and what the context keeps."""

    config: ModelConfig
    lora: LoraConfig = FULL

    @nn.compact
    def __call__(self, x_BTD: jax.Array, rope: Rope, context: Context) -> tuple[jax.Array, Any]:
        c = self.config
        heads = (c.num_heads, c.head_dim), ("heads", None), c.qkv_bias, self.lora
        kv_heads = (c.num_kv_heads, c.head_dim), ("kv_heads", None), c.qkv_bias, self.lora
        q_BTHd = Projection(*heads, name="q")(x_BTD)
        k_BTKd, v_BTKd = Projection(*kv_heads, name="k")(x_BTD), Projection(*kv_heads, name="v")(x_BTD)
        if c.qk_norm:
            q_BTHd = RMSNorm(c.norm_eps, None, name="q_norm")(q_BTHd)
            k_BTKd = RMSNorm(c.norm_eps, None, name="k_norm")(k_BTKd)
        out_BTHd, kept = context.attend(rotate(q_BTHd, rope), rotate(k_BTKd, rope), v_BTKd)
        o = OutProjection(c.hidden_size, ("heads", None), c.num_layers, self.lora, name="o")
        return o(out_BTHd), kept


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    config: ModelConfig
    lora: LoraConfig = FULL

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        columns = (c.mlp_size,), ("mlp",), False, self.lora
        gate, up = Projection(*columns, name="gate")(x), Projection(*columns, name="up")(x)
        down = OutProjection(c.hidden_size, ("mlp",), c.num_layers, self.lora, name="down")
        return down(nn.silu(gate) * up)


class Block(nn.Module):
    """One layer: attention and MLP, each on a normed input and added to the residual stream."""

    config: ModelConfig
    lora: LoraConfig = FULL

    @nn.compact
    def __call__(self, x_BTD: jax.Array, rope: Rope, context: Context) -> tuple[jax.Array, Any]:
        c = self.config
        x_BTD = checkpoint_name(x_BTD, "residual")
        normed = RMSNorm(c.norm_eps, name="attention_norm")(x_BTD)
        mixed, kept = Attention(c, self.lora, name="attention")(normed, rope, context)
        x_BTD = x_BTD + mixed
        x_BTD = x_BTD + MLP(c, self.lora, name="mlp")(RMSNorm(c.norm_eps, name="mlp_norm")(x_BTD))
        return constrain(x_BTD, "batch", "time", None), kept


class Decoder(nn.Module):
    """Embedding, scanned layers, final norm (and the parameters of a head that is not tied)."""

    config: ModelConfig
    dtype: Any = jnp.float32
    remat: Remat = "none"
    lora: LoraConfig = FULL

    @nn.compact
    def __call__(self, rows: Rows, context: Context) -> tuple[jax.Array, Any]:
        c = self.config
        size = (c.vocab_size, c.hidden_size)
        table_VD = Table("embedding", size, ("vocab", "embed"), name="embed")()
        # The table's split of its width becomes a split of rows first, then of their tokens: two exchanges.
        x_BTD = constrain(table_VD.astype(self.dtype)[rows.tokens], "batch", None, "time")
        x_BTD = constrain(x_BTD, "batch", "time", None)
        block = rematerialised(Block, self.remat)
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=c.num_layers,
            unroll=min(CPU_UNROLL, c.num_layers) if platform() == "cpu" else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        rope = rope_tables(rows.positions, c, rows.segments)
        x_BTD, kept = layers(c, self.lora, name=LAYERS)(x_BTD, rope, context)
        if c.head == "score":
            Table("kernel", (c.hidden_size, 1), ("embed", None), name="score")()
        elif not c.tie_embeddings:
            Table("kernel", size[::-1], ("embed", "vocab"), name="head")()
        return RMSNorm(c.norm_eps, name="final_norm")(x_BTD), kept


def init_params(config: ModelConfig, key: jax.Array, lora: LoraConfig = FULL) -> Params:
    """Random parameters, still carrying their logical axis names (unbox with `flax.linen.unbox`)."""
    ids = jnp.zeros((1, 8), jnp.int32)
    return Decoder(config, lora=lora).init(key, Rows.to_read(ids, ids, ids), Segments(ids))["params"]


def head_kernel(params: Params, config: ModelConfig) -> Any:
    """The output head as [D, V]."""
    return params["embed"]["embedding"].T if config.tie_embeddings else params["head"]["kernel"]


def forward_rows(
    params: Params,
    config: ModelConfig,
    rows: Rows,
    dtype: Any = jnp.float32,
    remat: Remat = "none",
    lora: LoraConfig = FULL,
) -> jax.Array:
    """Final hidden states [B, T, D] of packed rows; a token sees the earlier tokens of its own example."""
    decoder = Decoder(config, dtype, remat, lora)
    hidden_BTD, _ = decoder.apply({"params": params}, rows, Segments(rows.segments))
    return hidden_BTD


def forward_cached(
    params: Params,
    config: ModelConfig,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    contexts: Sequence[Context],
    dtype: Any,
) -> tuple[jax.Array, tuple[Any, ...]]:
    """Final hidden states [B, T, D] of new tokens of sequences, and what each layer's context keeps.

    The layers' parameters are stacked, as everywhere, or parted (`part_layers`).
    """
    x_BTD = rows_of(params["embed"]["embedding"], tokens_BT, dtype)
    rope = rope_tables(positions_BT, config)
    kept = []
    for layer, context in enumerate(contexts):
        x_BTD, of_layer = Block(config).apply({"params": of_layers(params, layer)}, x_BTD, rope, context)
        kept.append(of_layer)
    return RMSNorm(config.norm_eps).apply({"params": params["final_norm"]}, x_BTD), tuple(kept)


def of_layers(params: Params, layer: int) -> Params:
    """The parameters of one layer."""
    layers = params[LAYERS]
    return layers[layer] if isinstance(layers, tuple) else jax.tree.map(lambda x: x[layer], layers)


def part_layers(params: Params, config: ModelConfig) -> Params:
    """The same parameters with those of each layer in arrays of their own.

    In a loop over tokens a CPU copies each layer's weights out of stacked ones for every token.
    """
    return {**params, LAYERS: tuple(of_layers(params, layer) for layer in range(config.num_layers))}


def logits(params: Params, config: ModelConfig, hidden_xD: jax.Array) -> jax.Array:
    """Vocabulary logits in float32 of hidden states [..., D]."""
    kernel_DV = head_kernel(params, config)
    values_DV = kernel_DV.values if isinstance(kernel_DV, Quantised) else kernel_DV
    logits_xV = jnp.matmul(hidden_xD, values_DV.astype(hidden_xD.dtype), preferred_element_type=jnp.float32)
    return kernel_DV.scaled(logits_xV) if isinstance(kernel_DV, Quantised) else logits_xV
