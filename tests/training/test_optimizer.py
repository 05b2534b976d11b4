"""Schedule and update rule against Optax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_sft.config import OptimizerConfig, replace
from jax_sft.training.optimizer import clipped, idle_steps, learning_rate, make_optimizer


def rates(config: OptimizerConfig, total_steps: int) -> np.ndarray:
    steps_S = jnp.arange(total_steps + 1)
    return np.asarray(jax.vmap(lambda step: learning_rate(config, step, total_steps))(steps_S))


@pytest.mark.parametrize(("total", "fraction"), [(640, 0.1), (27, 0.1), (7, 0.5), (1, 0.1), (10, 0.0)])
def test_cosine_schedule_is_that_of_optax(total: int, fraction: float) -> None:
    config = OptimizerConfig(learning_rate=5e-5, warmup_fraction=fraction)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 5e-5, round(fraction * total), total, 0.0)
    want = [schedule(step) for step in range(total + 1)]
    np.testing.assert_allclose(rates(config, total), want, rtol=1e-5, atol=1e-11)


def test_schedules_at_the_steps_that_matter() -> None:
    cosine = rates(OptimizerConfig(learning_rate=2.0), 100)
    assert (cosine[0], cosine[5], cosine[10], cosine[100]) == (0.0, 1.0, 2.0, 0.0)
    assert cosine[55] == pytest.approx(1.0)
    constant = rates(OptimizerConfig(learning_rate=2.0, schedule="constant"), 100)
    assert (constant[0], constant[5]) == (0.0, 1.0)
    assert (constant[10:] == 2.0).all()
    assert (rates(OptimizerConfig(learning_rate=2.0, schedule="constant", warmup_fraction=0), 9) == 2.0).all()


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_update_is_adamw_of_optax(clip_norm: float) -> None:
    config = OptimizerConfig(learning_rate=0.03, weight_decay=0.2, beta2=0.95, clip_norm=clip_norm)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.03, 1, 8, 0.0)
    adamw = optax.adamw(schedule, config.beta1, config.beta2, config.epsilon, weight_decay=0.2)
    want_optimizer = optax.chain(optax.clip_by_global_norm(1.0), adamw) if clip_norm else adamw
    params = want = {"a": jnp.linspace(-1, 1, 12).reshape(3, 4), "b": jnp.ones(5)}
    ours = make_optimizer(config)
    state, want_state = ours.init(params), want_optimizer.init(want)
    for step in range(8):
        # Small and large in turn, so that clipping acts on some steps only.
        keys = jax.random.split(jax.random.key(step), 2)
        size = (0.05, 3.0)[step % 2]
        gradients = {
            name: size * jax.random.normal(key, params[name].shape)
            for name, key in zip("ab", keys, strict=True)
        }
        directions, state = ours.update(clipped(gradients, config), state, params)
        rate = learning_rate(config, jnp.asarray(step), 8)
        params = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params, directions)
        updates, want_state = want_optimizer.update(gradients, want_state, want)
        want = optax.apply_updates(want, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), params, want)


def test_steps_at_which_nothing_is_learnt_are_counted() -> None:
    warm = OptimizerConfig(warmup_fraction=0.1)
    assert idle_steps(warm, 100) == 1, "the first, as in the original"
    assert idle_steps(replace(warm, warmup_fraction=1.0), 1) == 1
    assert idle_steps(replace(warm, warmup_fraction=0.0), 100) == 0
    assert idle_steps(replace(warm, learning_rate=0.0), 7) == 7
