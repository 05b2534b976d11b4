"""Weights & Biases gets the numbers that metrics.jsonl gets, when the environment asks for it."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from etils import epath

from jax_sft.errors import UsageError
from jax_sft.files import read_jsonl
from jax_sft.training.metrics import MetricsLog


def test_the_same_numbers_go_to_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[int, dict[str, Any]]] = []
    started: list[dict[str, Any]] = []

    def init(**settings: Any) -> Any:
        started.append(settings)
        return SimpleNamespace(log=lambda line, step: logged.append((step, line)), finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setenv("WANDB_PROJECT", "traces")
    folder = epath.Path(tmp_path) / "study" / "run"
    log = MetricsLog(folder, 0)
    for step in (1, 2):
        log.write({"step": step, "loss": 1.5 / step})
    log.close()
    assert started == [{"project": "traces", "id": "study-run", "name": "study-run", "resume": "allow"}]
    assert [line for _, line in logged] == list(read_jsonl(folder / "metrics.jsonl"))
    assert [step for step, _ in logged] == [1, 2]


def test_asking_for_it_without_the_package_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_PROJECT", "traces")
    with pytest.raises(UsageError, match="pip install wandb"):
        MetricsLog(epath.Path(tmp_path) / "study" / "run", 0)
