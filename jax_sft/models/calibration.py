"""Scales of keys and values in 8-bit integers: how large each channel of a model's heads becomes.

Keys have a few channels that are much larger than the others whatever the text is (arXiv 2402.02750), so
each channel has a scale of its own. They are found from the weights alone, by reading a fixed row of random
tokens: what a completion is depends on no other prompt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_sft.config import ModelConfig
from jax_sft.models import Params
from jax_sft.models.attention import attend_rows
from jax_sft.models.decoder import forward_cached
from jax_sft.models.quantised import LARGEST
from jax_sft.models.ragged import Scales

ROW_TOKENS, SEED = 512, 0
MARGIN = 1.25
"""Room above the largest that was seen; what is still larger is held to the largest integer."""


class Watched(NamedTuple):
    """A row of which only the largest keys and values are kept."""

    segments_BT: jax.Array

    def attend(self, q_BTHd: jax.Array, k_BTKd: jax.Array, v_BTKd: jax.Array) -> tuple[jax.Array, Scales]:
        def scale(x_BTKd: jax.Array) -> jax.Array:
            peak_Kd = jnp.abs(x_BTKd.astype(jnp.float32)).max(axis=(0, 1))
            return jnp.maximum(peak_Kd, 1e-6) * MARGIN / LARGEST

        return attend_rows(q_BTHd, k_BTKd, v_BTKd, self.segments_BT), Scales(scale(k_BTKd), scale(v_BTKd))


def calibrate(params: Params, config: ModelConfig, dtype: jnp.dtype) -> tuple[Scales, ...]:
    """The scales of every layer."""
    tokens_T = np.random.default_rng(SEED).integers(0, config.vocab_size, ROW_TOKENS)
    positions_BT = jnp.arange(ROW_TOKENS)[None]
    context = Watched(jnp.ones((1, ROW_TOKENS), jnp.int32))
    contexts = [context] * config.num_layers
    return forward_cached(params, config, jnp.asarray(tokens_T)[None], positions_BT, contexts, dtype)[1]
