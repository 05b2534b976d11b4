"""Running the body of jax's ragged paged attention on any device, in the TPU interpret mode of Pallas."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import kernel

Descriptor: Any = kernel.MultiPageAsyncCopyDescriptor


class Values:
    """A buffer's values under the views that the kernel takes: the interpreter follows no reshaped reference.

    `bitcast` packs rows that follow one another into one row of wider numbers, as a TPU's registers do.
    """

    def __init__(self, values: jax.Array) -> None:
        self.values, self.dtype = values, values.dtype

    def reshape(self, *shape: int) -> "Values":
        return Values(self.values.reshape(*shape))

    def bitcast(self, dtype: Any) -> "Values":
        packing = jnp.dtype(dtype).itemsize // self.dtype.itemsize
        rows, width = self.values.shape
        packed = self.values.reshape(rows // packing, packing, width).swapaxes(1, 2)
        return Values(jax.lax.bitcast_convert_type(packed, dtype))

    def __getitem__(self, index: Any) -> jax.Array:
        return self.values[index]


def _wait(copies: Any) -> Values:
    for each in copies._async_copies:
        each.wait()
    return Values(copies._vmem_buf[...])


def _store(reference: Any, values: jax.Array, *, mask: jax.Array) -> None:
    """A store under a mask, as a whole store: the interpreter takes no mask for a part of a buffer."""
    reference[...] = jnp.where(mask, values, reference[...])


@contextmanager
def interpreted() -> Iterator[None]:
    """Kernels that are traced within are interpreted."""
    kernel.ragged_paged_attention.clear_cache()
    with pytest.MonkeyPatch.context() as patch, pltpu.force_tpu_interpret_mode():
        patch.setattr(Descriptor, "wait", _wait)
        patch.setattr(pltpu, "store", _store)
        yield
    kernel.ragged_paged_attention.clear_cache()
