"""What a run starts from."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import Run, SnapshotConfig, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.training.loop import train
from jax_sft.training.start import start_params
from jax_sft.training.step import abstract_state
from tests.training.runs import MESH, assert_same, damage, folder, metrics
from tests.training.tiny import RUN, study


def test_a_run_that_saved_nothing_may_be_configured_anew(tmp_path: Path) -> None:
    with pytest.raises(JaxSftError, match=r"run missing, which is not trained yet"):
        train(*study(tmp_path, init="run:missing"))
    train(*study(tmp_path, epochs=0.25, snapshots=SnapshotConfig("last")))
    assert metrics(tmp_path)


WANTED = abstract_state(RUN, MESH).params


def child(init: str, **changes: Any) -> tuple[Run, Run]:
    return RUN, replace(RUN, name="child", init=init, **changes)


@pytest.mark.parametrize(("init", "step"), [("run:tiny", 30), ("run:tiny@8", 8), ("run:tiny@0", 0)])
def test_start_from_a_snapshot_of_another_run(finished: Path, init: str, step: int) -> None:
    params = start_params(*study(finished, *child(init)), WANTED)
    assert_same(params, load_snapshot(folder(finished), step, WANTED))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("init", "changes", "error", "message"),
    [
        ("run:tiny@5", {}, JaxSftError, "has no snapshot at step 5; there are [0, 3, 8, 16, 24, 30]"),
        ("run:other", {}, JaxSftError, "starts from run other, which is not trained yet: train it first"),
        ("run:tiny@x", {}, UsageError, "after @ comes a step number"),
        (
            "run:tiny",
            {"model": replace(RUN.model, num_layers=3)},
            UsageError,
            "model is not that of run tiny: num_layers: 2 -> 3",
        ),
    ],
)
def test_what_a_run_cannot_start_from(
    finished: Path, init: str, changes: dict[str, Any], error: type[JaxSftError], message: str
) -> None:
    with pytest.raises(error) as caught:
        start_params(*study(finished, *child(init, **changes)), WANTED)
    assert message in str(caught.value)


def test_a_damaged_snapshot_is_no_start(again: Path) -> None:
    damage(folder(again) / "snapshots" / "30")
    with pytest.raises(JaxSftError, match=r"snapshots/30: .* has changed since it was saved"):
        start_params(*study(again, *child("run:tiny")), WANTED)
