"""Loss, gradients and twenty AdamW steps against transformers with torch autograd and torch AdamW."""

from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from jax_sft.models.weights.read import load_pretrained
from jax_sft.training.step import init_state, loss_and_gradients, train_step
from tests.oracle.test_logits import their_model
from tests.random_models import equivalent_llama, random_config, random_tensors, write_model
from tests.sft_gradients import as_tensors
from tests.sft_reference import OPTIMIZER, STEPS, describe, examples, make_run, packed_batch, target_count

pytestmark = pytest.mark.oracle
FAMILIES = range(4)


def their_loss(model: torch.nn.Module, step: int) -> torch.Tensor:
    """Mean over the targets of a step; every example is a batch of its own, without padding.

    Dynamic rope scaling in transformers remembers the longest sequence of earlier calls; that is undone, so
    that the result does not depend on the order of the examples.
    """
    total = torch.zeros(())
    rope = model.model.rotary_emb
    for example in (example for row in examples(step) for example in row):
        rope.inv_freq, rope.max_seq_len_cached = rope.original_inv_freq, rope.original_max_seq_len
        ids = torch.from_numpy(example.ids.astype(np.int64))
        logits = model(ids[None]).logits[0, example.prompt - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, ids[example.prompt :], reduction="sum")
    return total / target_count(step)


def their_gradients(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}


def train_theirs(model: torch.nn.Module) -> list[float]:
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon,
        weight_decay=OPTIMIZER.weight_decay,
    )
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = their_loss(model, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("number", FAMILIES)
def test_a_step_and_twenty(number: int, tmp_path: Path, golden: Path, renew_golden: bool) -> None:
    raw = random_config(number)
    model = their_model(raw, random_tensors(raw))
    config, params = load_pretrained(str(write_model(tmp_path, raw)))
    run = make_run(config)

    loss, gradients = jax.jit(lambda p, b: loss_and_gradients(p, run, b)[:2])(params, packed_batch(0))
    wanted_loss = their_loss(model, 0)
    wanted_loss.backward()
    assert abs(float(loss) - wanted_loss.item()) <= 1e-4 * wanted_loss.item()
    wanted = their_gradients(model)
    found = as_tensors(gradients, config, raw)
    if raw["model_type"] == "internlm2":
        found = equivalent_llama(raw, found)[1]
    assert found.keys() == wanted.keys()
    worst = max(np.linalg.norm(found[n] - wanted[n]) / np.linalg.norm(wanted[n]) for n in wanted)
    assert worst <= 1e-4

    step = jax.jit(lambda state, batch: train_step(state, batch, run, STEPS))
    state, losses = init_state(run, jax.tree.map(jax.numpy.asarray, params)), []
    for number_of_step in range(STEPS):
        state, metrics = step(state, packed_batch(number_of_step))
        losses.append(float(metrics["loss"]))
    wanted_losses = train_theirs(model)
    gap = np.abs(np.subtract(losses, wanted_losses)).max()
    print(f"{raw['model_type']}: gradients {worst:.1e} relative, losses of {STEPS} steps {gap:.1e} apart")
    assert gap <= 1e-4

    path = golden / "sft_steps.npz"
    stored = dict(np.load(path)) if path.exists() else {}
    made = {f"losses_{number}": np.asarray(wanted_losses), f"gradients_{number}": describe(wanted)}
    if renew_golden:
        np.savez_compressed(path, **(stored | made))
    for name, values in made.items():
        np.testing.assert_allclose(np.load(path)[name], values, rtol=1e-4, atol=1e-5)
