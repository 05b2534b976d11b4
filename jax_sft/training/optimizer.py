"""AdamW with warm-up and a schedule: clipping, an Optax chain, and one update of weights and moments.

The learning rate comes from outside of the chain. Moments may be fetched from the host, layer by layer.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jax_sft.config import OptimizerConfig, Run
from jax_sft.models import Params
from jax_sft.models.decoder import LAYERS


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


def idle_steps(config: OptimizerConfig, total_steps: int) -> int:
    """How many of the updates have a learning rate of 0, so that they change nothing."""
    rates_S = learning_rate(config, jnp.arange(total_steps), total_steps)
    return int(jax.device_get(jnp.sum(rates_S == 0)))


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


Part = Callable[[Params, Params, optax.OptState], tuple[Params, optax.OptState]]


def update(
    run: Run,
    params: Params,
    gradients: Params,
    opt_state: optax.OptState,
    rate: jax.Array,
    finite: jax.Array,
) -> tuple[Params, optax.OptState]:
    """Weights and optimizer state after an update at learning rate `rate`; the old ones unless `finite`.

    The moments lie in the memory that the run names, before and after. Of those in the host's, the device
    holds those of one layer at a time.
    """
    optimizer = make_optimizer(run.optimizer)

    def part(params: Params, gradients: Params, opt_state: optax.OptState) -> tuple[Params, optax.OptState]:
        directions, after = optimizer.update(gradients, opt_state, params)
        updated = jax.tree.map(lambda p, d: p.astype(jnp.float32) - rate * d, params, directions)
        return _keep(finite, updated, params), _keep(finite, after, opt_state)

    gradients = clipped(gradients, run.optimizer)
    apply = _streamed(part) if run.optimizer_memory == "host" else part
    return apply(params, gradients, opt_state)


def _keep(finite: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(finite, a.astype(b.dtype), b), new, old)


def _streamed(part: Part) -> Part:
    """`part`, applied to one layer after the other and then to what lies outside of the layers."""

    def outside(tree: Params) -> Params:
        return {name: value for name, value in tree.items() if name != LAYERS}

    def apply(params: Params, gradients: Params, opt_state: optax.OptState) -> tuple[Params, optax.OptState]:
        adam = _adam(opt_state)

        def fetched(
            params: Params, gradients: Params, mu: Params, nu: Params
        ) -> tuple[Params, tuple[Params, Params], jax.Array]:
            held = _with_moments(opt_state, *jax.device_put((mu, nu), jax.memory.Space.Device))
            params, after = part(params, gradients, held)
            moved = _adam(after)
            return params, jax.device_put((moved.mu, moved.nu), jax.memory.Space.Host), moved.count

        def layer(
            moments: tuple[Params, Params], at: tuple[jax.Array, Params, Params]
        ) -> tuple[tuple[Params, Params], Params]:
            number, params, gradients = at
            mine = jax.tree.map(
                lambda x_L: jax.lax.dynamic_index_in_dim(x_L, number, keepdims=False), moments
            )
            params, mine, _ = fetched(params, gradients, *mine)
            put = jax.lax.dynamic_update_index_in_dim
            return jax.tree.map(lambda x_L, new: put(x_L, new, number, 0), moments, mine), params

        numbers = jnp.arange(len(jax.tree.leaves(params[LAYERS])[0]))
        (mu, nu), layers = jax.lax.scan(
            layer, (adam.mu[LAYERS], adam.nu[LAYERS]), (numbers, params[LAYERS], gradients[LAYERS])
        )
        out, (mu_out, nu_out), count = fetched(*map(outside, (params, gradients, adam.mu, adam.nu)))
        moments = ({**mu_out, LAYERS: mu}, {**nu_out, LAYERS: nu})
        return {**out, LAYERS: layers}, _with_moments(opt_state, *moments, count)

    return apply


def _adam(opt_state: Any) -> optax.ScaleByAdamState:
    return next(each for each in opt_state if isinstance(each, optax.ScaleByAdamState))


def _with_moments(opt_state: Any, mu: Params, nu: Params, count: jax.Array | None = None) -> optax.OptState:
    """The optimizer's state with these moments (and count) in it."""
    old = _adam(opt_state)
    new = optax.ScaleByAdamState(old.count if count is None else count, mu, nu)
    return tuple(new if each is old else each for each in opt_state)
