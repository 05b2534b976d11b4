"""Weights & Biases gets the numbers that metrics.jsonl gets, when the environment asks for it."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from etils import epath

from jax_sft.errors import UsageError
from jax_sft.files import read_jsonl
from jax_sft.training.metrics import MetricsLog


class FakeWandb:
    """Stands in for the package: keeps what runs were started with and what they were told."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []

    def init(self, **settings: Any) -> Any:
        self.started.append(settings)
        return SimpleNamespace(log=lambda line, step: self.logged.append((step, line)), finish=lambda: None)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_PROJECT", "traces")
    return fake


def test_the_same_numbers_go_to_both(wandb: FakeWandb, tmp_path: Path) -> None:
    folder = epath.Path(tmp_path) / "study" / "run"
    log = MetricsLog(folder, 0)
    for step in (1, 2):
        log.write({"step": step, "loss": 1.5 / step})
    log.close()
    (settings,) = wandb.started
    assert settings == {"project": "traces", "id": settings["id"], "name": "study-run", "resume": "allow"}
    assert [line for _, line in wandb.logged] == list(read_jsonl(folder / "metrics.jsonl"))
    assert [step for step, _ in wandb.logged] == [1, 2]


def test_a_resumed_run_goes_on_and_another_root_is_another_run(wandb: FakeWandb, tmp_path: Path) -> None:
    here, there, moved = (epath.Path(tmp_path) / root / ("x" * 100) / ("y" * 100) for root in "abc")
    for folder in (here, there, here):
        MetricsLog(folder, 0).close()
    (tmp_path / "a").rename(tmp_path / "c")
    shutil.rmtree(tmp_path / "b")
    for folder in (moved, there):
        MetricsLog(folder, 0).close()
    begun, elsewhere, resumed, resumed_there, anew = (settings["id"] for settings in wandb.started)
    assert begun == resumed == resumed_there
    assert len({begun, elsewhere, anew}) == 3
    assert all(len(settings["id"]) <= 128 for settings in wandb.started)


def test_asking_for_it_without_the_package_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_PROJECT", "traces")
    with pytest.raises(UsageError, match="pip install wandb"):
        MetricsLog(epath.Path(tmp_path) / "study" / "run", 0)
