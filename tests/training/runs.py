"""What a run of tests/training/tiny.py left on disk."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_sft.checkpoints.store import state_store
from jax_sft.sharding import make_mesh
from jax_sft.training.step import TrainState, abstract_state
from tests.training.tiny import RUN

LAST = 30
MESH = make_mesh(RUN.parallelism)


def folder(root: Path) -> Path:
    return root / "study" / RUN.name


def final_state(root: Path) -> TrainState:
    with state_store(folder(root)) as store:
        return store.load(store.steps()[-1], abstract_state(RUN, MESH))


def metrics(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder(root) / "metrics.jsonl").read_text().splitlines()]


def losses(root: Path) -> list[float]:
    lines = metrics(root)
    assert [line["step"] for line in lines] == list(range(1, LAST + 1)), "each step exactly once"
    return [line["loss"] for line in lines]


def assert_same(got: Any, want: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), got, want)


def damage(save: Path) -> None:
    path = max((path for path in save.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
