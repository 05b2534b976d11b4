"""Rotary position embeddings (arXiv 2104.09864) with the scalings that long-context models use.

Frequencies that depend on the configuration alone are computed on the host in float64: at position 30,000
one float32 rounding of a frequency is already an angle of 0.002, and powers on a TPU round worse.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jax_sft.config import ModelConfig, RopeScaling

Rope = tuple[jax.Array, jax.Array]


def rope_tables(positions_BT: jax.Array, config: ModelConfig, segments_BT: jax.Array | None = None) -> Rope:
    """Cosines and sines [B, T, 1, d/2] of each position, for half-split pairs.

    Dynamic NTK scaling depends on the length of the sequence. In rows that is the length of the example a
    token belongs to, so each example is turned as transformers turns it when alone, whatever is packed beside
    it. While decoding (T = 1) it is the length so far, and cached keys keep the frequencies of the step that
    wrote them, which is also what transformers does. A chunk of a prompt in pages is turned by where it ends,
    padding included, which transformers does otherwise. Up to `max_positions` all are the same.

    Args:
        positions_BT: of each token in its example, from 0.
        config: of the model.
        segments_BT: number of each token's example; needed only where padding continues the positions.
    """
    frequency_h, factor = base_frequencies(config)
    angle_BT1h = positions_BT[:, :, None, None].astype(jnp.float32) * frequency_h.reshape(1, 1, 1, -1)
    if config.rope_scaling.kind == "dynamic":
        angle_BT1h = angle_BT1h * _dynamic_stretch(example_lengths(positions_BT, segments_BT), config)
    return jnp.cos(angle_BT1h) * factor, jnp.sin(angle_BT1h) * factor


def rotate(x_BTHd: jax.Array, rope: Rope) -> jax.Array:
    """Turn the pairs (x[i], x[i + d/2]) by their angles, in float32."""
    cos, sin = rope
    a, b = jnp.split(x_BTHd.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTHd.dtype)


def base_frequencies(config: ModelConfig) -> tuple[np.ndarray, float]:
    """Radians per position of each pair, float32 [d/2], and what multiplies cosines and sines.

    Dynamic scaling is left out: it depends on the sequence.
    """
    half = config.head_dim // 2
    frequency_h = config.rope_theta ** (-np.arange(half) / half)
    scaling, factor = config.rope_scaling, 1.0
    if scaling.kind == "linear":
        frequency_h = frequency_h / scaling.factor
    elif scaling.kind == "llama3":
        frequency_h = _llama3(frequency_h, scaling, _original_positions(config))
    elif scaling.kind == "yarn":
        frequency_h = _yarn(frequency_h, config)
        factor = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0
    return frequency_h.astype(np.float32), factor


def example_lengths(positions_BT: jax.Array, segments_BT: jax.Array | None) -> jax.Array:
    """For each token, the number of tokens of its example up to the row's end, int32 [B, T].

    An example starts where the position is 0 or the segment changes; with T = 1 it is the length so far.
    """
    T = positions_BT.shape[1]
    starts_BT = positions_BT == 0
    if segments_BT is not None:
        starts_BT = starts_BT.at[:, 1:].set(starts_BT[:, 1:] | (segments_BT[:, 1:] != segments_BT[:, :-1]))
    index_1T = jnp.arange(T)[None]
    next_start_BT = jnp.where(starts_BT, index_1T, T)[:, 1:]
    next_start_BT = jnp.pad(next_start_BT, ((0, 0), (0, 1)), constant_values=T)
    next_start_BT = jax.lax.cummin(next_start_BT, axis=1, reverse=True)
    return positions_BT + next_start_BT - index_1T


def _original_positions(config: ModelConfig) -> int:
    return config.rope_scaling.original_positions or config.max_positions


def _dynamic_stretch(length_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """What dynamic NTK multiplies each frequency by, [B, T, 1, d/2]; 1 up to max_positions.

    The base grows by g ^ (d / (d - 2)), g = factor * length / max_positions - (factor - 1), so the frequency
    of pair i shrinks by g ^ (2i / (d - 2)).
    """
    d, factor = config.head_dim, config.rope_scaling.factor
    ratio_BT = jnp.maximum(length_BT / config.max_positions, 1.0)
    log_g_BT = jnp.log(factor * ratio_BT - (factor - 1.0))
    power_h = (2.0 * np.arange(d // 2) / (d - 2)).astype(np.float32)
    return jnp.exp(-log_g_BT[:, :, None, None] * power_h.reshape(1, 1, 1, -1))


def _llama3(frequency_h: np.ndarray, scaling: RopeScaling, original: int) -> np.ndarray:
    """Long wavelengths stretched, short ones kept, a ramp between (Llama 3.1)."""
    turns_h = original * frequency_h / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep_h = np.clip((turns_h - low) / (high - low), 0.0, 1.0)
    return frequency_h * (keep_h + (1.0 - keep_h) / scaling.factor)


def _yarn(frequency_h: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Pairs that turn rarely stretched, those that turn often kept, a ramp over pairs (arXiv 2309.00071)."""
    scaling, d = config.rope_scaling, config.head_dim

    def pair_turning(times: float) -> float:
        wavelengths = _original_positions(config) / (times * 2 * math.pi)
        return d * math.log(wavelengths) / (2 * math.log(config.rope_theta))

    low, high = pair_turning(scaling.beta_fast), pair_turning(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    width = high - low if high != low else 0.001
    stretch_h = np.clip((np.arange(d // 2) - low) / width, 0.0, 1.0)
    return frequency_h * ((1.0 - stretch_h) + stretch_h / scaling.factor)
