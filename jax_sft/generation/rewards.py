"""Reward models and judges: one number for each row, from a decoder whose head is `score`."""

from typing import Any

import jax
import jax.numpy as jnp

from jax_sft.config import ModelConfig
from jax_sft.models import Params
from jax_sft.models.decoder import forward_rows
from jax_sft.packed import Rows


def score_rows(
    params: Params,
    config: ModelConfig,
    tokens_BT: jax.Array,
    lengths_B: jax.Array,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """The score of each row, float32 [B], read at its last token as `ForSequenceClassification` does.

    Args:
        params: of a model with `config.head == "score"`.
        config: of the model.
        tokens_BT: one conversation a row, from the left; anything after its length is ignored.
        lengths_B: tokens of each row, at least 1.
        dtype: of activations.
    """
    B, T = tokens_BT.shape
    index_1T = jnp.arange(T)[None]
    segments_BT = (index_1T < lengths_B[:, None]).astype(jnp.int32)
    positions_BT = jnp.broadcast_to(index_1T, (B, T)) * segments_BT
    hidden_BTD = forward_rows(params, config, Rows.to_read(tokens_BT, positions_BT, segments_BT), dtype)
    last_BD = hidden_BTD[jnp.arange(B), lengths_B - 1]
    kernel_D1 = params["score"]["kernel"].astype(dtype)
    return jnp.matmul(last_BD, kernel_D1, preferred_element_type=jnp.float32)[:, 0]
