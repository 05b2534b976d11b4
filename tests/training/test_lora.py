"""LoRA: only adapters are learnt, and snapshots are plain models that compute the same."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_sft.checkpoints.store import load_snapshot, state_store
from jax_sft.config import LoraConfig, ParallelismConfig, Run, replace
from jax_sft.errors import UsageError
from jax_sft.models.decoder import forward_rows, init_params
from jax_sft.models.lora import fold, merge, split
from jax_sft.packed import Rows
from jax_sft.sharding import make_mesh
from jax_sft.study.check import validate
from jax_sft.training.loop import train
from jax_sft.training.step import abstract_state
from tests.training.tiny import RUN, study

LORA = LoraConfig(rank=4, alpha=8.0)
ADAPTED = replace(RUN, name="adapted", lora=LORA, parallelism=ParallelismConfig(fsdp=4, tensor=2))
LAST = 30


def folder(root: Path, run: Run) -> Path:
    return root / "study" / run.name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lora")
    train(*study(root, ADAPTED))
    return root


def state_of(root: Path, run: Run) -> Any:
    mesh = make_mesh(run.parallelism)
    with state_store(folder(root, run)) as store:
        return store.load(store.steps()[-1], abstract_state(run, mesh))


def plain_target() -> Any:
    return abstract_state(replace(ADAPTED, lora=LoraConfig()), make_mesh(ADAPTED.parallelism)).params


def test_only_adapters_are_learnt(trained: Path) -> None:
    state = state_of(trained, ADAPTED)
    learnt, frozen = split(state.params)
    start = load_snapshot(folder(trained, ADAPTED), 0, plain_target())
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(jnp.bfloat16(a), jnp.bfloat16(b)), frozen, start)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(learnt)), "B starts at zero and moves"
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * sum(leaf.size for leaf in jax.tree.leaves(learnt))


def test_it_learns(trained: Path) -> None:
    lines = (folder(trained, ADAPTED) / "metrics.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0] - 0.2, "a little: embedding and head are random and stay so"


def test_a_snapshot_is_the_plain_model_that_computes_the_same(trained: Path) -> None:
    params = state_of(trained, ADAPTED).params
    folded = jax.device_get(fold(params, LORA))
    snapshot = load_snapshot(folder(trained, ADAPTED), LAST, plain_target())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=1e-2), snapshot, folded
    )
    tokens_BT = jnp.asarray(np.random.default_rng(0).integers(0, 640, (2, 16)), jnp.int32)
    rows = Rows.to_read(tokens_BT, jnp.tile(jnp.arange(16), (2, 1)), jnp.ones((2, 16), jnp.int32))
    adapted = forward_rows(jax.device_get(params), ADAPTED.model, rows, lora=LORA)
    plain = forward_rows(folded, ADAPTED.model, rows)
    np.testing.assert_allclose(adapted, plain, atol=2e-5)
    without = forward_rows(jax.device_get(split(params)[1]), ADAPTED.model, rows)
    assert np.abs(adapted - without).max() > 1e-2


def test_chosen_projections_alone_are_adapted() -> None:
    lora = LoraConfig(rank=2, targets=("q", "down"))
    shapes = jax.eval_shape(lambda: init_params(RUN.model, jax.random.key(0), lora))
    learnt, frozen = split(shapes)
    assert {*learnt["layers"]["attention"], *learnt["layers"]["mlp"]} == {"q", "down"}
    assert jax.tree.structure(merge(learnt, frozen)) == jax.tree.structure(shapes)


def test_an_interrupted_run_goes_on(trained: Path, tmp_path: Path) -> None:
    short = replace(ADAPTED, name="child", init="run:adapted@8", epochs=1)
    made, run = study(trained, ADAPTED, short)
    train(made, run)
    train(made, run)
    start = load_snapshot(folder(trained, run), 0, plain_target())
    parent = load_snapshot(folder(trained, ADAPTED), 8, plain_target())
    jax.tree.map(np.testing.assert_array_equal, start, parent)


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        (LoraConfig(rank=-1), "lora.rank"),
        (LoraConfig(rank=2, targets=("q", "embed")), "lora.targets: are some of q, k, v, o, gate, up, down"),
    ],
)
def test_bad_adapters_are_refused(tmp_path: Path, lora: LoraConfig, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        validate(
            study(tmp_path, replace(RUN, snapshots=replace(RUN.snapshots, schedule="last"), lora=lora))[0]
        )
