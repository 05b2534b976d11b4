"""Matrices of 8-bit integers with a scale for each output channel, made from weights as they are loaded.

value = round(w / scale), scale = max |w| / 127 over what a product sums: symmetric, no zero point. The
product is that of the integers in the compute type, which hold them exactly, times the scales: what a TPU
reads of such a matrix is half of bfloat16's bytes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_sft.models import Params

LARGEST = 127


class Quantised(NamedTuple):
    """Integers, and what each output channel of a product with them is multiplied by."""

    values: jax.Array
    scale: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        return self.values.shape

    @property
    def T(self) -> "Quantised":
        """Of an embedding, whose scales are its rows': the head that is tied to it."""
        return Quantised(self.values.T, self.scale)

    def scaled(self, product: jax.Array) -> jax.Array:
        """A product with the integers, as a product with what they stand for."""
        missing = (1,) * (product.ndim - self.scale.ndim)
        return product * self.scale.reshape(missing + self.scale.shape)


def rows_of(table: "jax.Array | Quantised", tokens: jax.Array, dtype: Any) -> jax.Array:
    """Rows of an embedding [V, D]."""
    if isinstance(table, Quantised):
        return (table.values[tokens] * table.scale[tokens][..., None]).astype(dtype)
    return table.astype(dtype)[tokens]


def quantise(matrix: jax.Array, summed: tuple[int, ...]) -> Quantised:
    """`matrix` in 8 bits, its product summing over the axes `summed`; the scales have the others."""
    peak = jnp.max(jnp.abs(matrix.astype(jnp.float32)), axis=summed, keepdims=True)
    scale = jnp.where(peak > 0, peak / LARGEST, 1.0)
    values = jnp.round(matrix.astype(jnp.float32) / scale).astype(jnp.int8)
    return Quantised(values, jnp.squeeze(scale, summed))


def quantise_weights(
    params: Params, quantise: Callable[[Any, tuple[int, ...]], Quantised] = quantise
) -> Params:
    """A decoder's parameters with all matrices in 8 bits; norms, biases and a reward's head stay as they are.

    Layers are stacked; `quantise` does it to each matrix. The embedding has a scale for each token, as a row
    of it and as a tied head's channel.
    """

    def of_path(path: Any, leaf: jax.Array) -> Any:
        names = [entry.key for entry in path]
        if names[-1] == "embedding":
            return quantise(leaf, (1,))
        if names[-1] != "kernel" or "score" in names:
            return leaf
        if names[-2] in ("o", "down"):
            return quantise(leaf, tuple(range(1, leaf.ndim - 1)))
        return quantise(leaf, (0,) if names[-2] == "head" else (1,))

    return jax.tree_util.tree_map_with_path(of_path, params)
