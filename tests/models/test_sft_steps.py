"""One SFT step and twenty, against losses and gradients of torch (renewed by `make oracle`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.models.weights.read import load_pretrained
from jax_sft.training.step import init_state, loss_and_gradients, train_step
from tests.random_models import equivalent_llama, random_config, write_model
from tests.sft_gradients import as_tensors
from tests.sft_reference import STEPS, describe, make_run, packed_batch


@pytest.mark.parametrize("number", range(4))
def test_losses_and_gradients_equal_those_of_torch(number: int, tmp_path: Path, golden: Path) -> None:
    raw, stored = random_config(number), np.load(golden / "sft_steps.npz")
    config, params = load_pretrained(str(write_model(tmp_path, raw)))
    run = make_run(config)
    gradients = jax.jit(lambda p, b: loss_and_gradients(p, run, b)[1])(params, packed_batch(0))
    tensors = as_tensors(gradients, config, raw)
    if raw["model_type"] == "internlm2":
        tensors = equivalent_llama(raw, tensors)[1]
    norms = stored[f"gradients_{number}"][:, :1]
    np.testing.assert_allclose(describe(tensors) / norms, stored[f"gradients_{number}"] / norms, atol=1e-4)

    step = jax.jit(lambda state, batch: train_step(state, batch, run, STEPS))
    state = init_state(run, jax.tree.map(jnp.asarray, params))
    for index, wanted in enumerate(stored[f"losses_{number}"]):
        state, metrics = step(state, packed_batch(index))
        assert float(metrics["loss"]) == pytest.approx(wanted, abs=1e-4)
