"""AdamW with warm-up and a schedule: clipping, and an Optax chain whose learning rate comes from outside."""

import jax
import jax.numpy as jnp
import optax

from jax_sft.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: jax.Array, total_steps: int) -> jax.Array:
    """Learning rate of the update that turns `step` finished updates into `step + 1`.

    Linear from zero over the warm-up (the first update therefore changes nothing, as in the original),
    then half a cosine to zero at `total_steps`, or constant.
    """
    warmup = round(config.warmup_fraction * total_steps)
    step = step.astype(jnp.float32)
    rising = step / max(warmup, 1)
    if config.schedule == "constant":
        after = jnp.ones_like(step)
    else:
        progress = jnp.clip((step - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
        after = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return config.learning_rate * jnp.where(step < warmup, rising, after)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam moments, decoupled weight decay; the caller clips before, multiplies by -learning rate after."""
    return optax.chain(
        optax.scale_by_adam(
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            mu_dtype=jnp.bfloat16 if config.first_moment == "bfloat16" else None,
        ),
        optax.add_decayed_weights(config.weight_decay),
    )


def clipped(gradients: optax.Updates, config: OptimizerConfig) -> optax.Updates:
    """Gradients scaled down to the global norm that is allowed; 0 allows all."""
    if config.clip_norm == 0:
        return gradients
    return optax.clip_by_global_norm(config.clip_norm).update(gradients, optax.EmptyState())[0]
