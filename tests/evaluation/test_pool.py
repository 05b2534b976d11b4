"""A scorer that hangs, dies or raises costs its completion only."""

import importlib
import time
from pathlib import Path
from typing import Any

import pytest

from jax_sft.evaluation.pool import ScoringPool
from jax_sft.tasks.task import Item, Verdict, user

HOSTILE = """
import os, time

class Hanging(dict):
    def __getitem__(self, key):
        time.sleep(600)

class Dying(dict):
    def __getitem__(self, key):
        os._exit(3)
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of references whose use hangs or ends the process that scores."""
    (tmp_path / "hostile_references.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module("hostile_references")


def test_hanging_dying_and_raising_scorers_cost_one_completion_each(hostile: Any) -> None:
    references = [{"answer": "4"}, hostile.Hanging(), {"answer": "5"}, hostile.Dying(), {}, {"answer": "4"}]
    tasks = [
        (Item(str(number), user("2+2?"), reference), "\\boxed{4}", "stop")
        for number, reference in enumerate(references)
    ]
    started = time.monotonic()
    with ScoringPool(workers=2, seconds=8.0) as pool:
        verdicts = pool.score("math500", tasks)
        again = pool.score("math500", tasks[:1])
    assert time.monotonic() - started < 60
    right, wrong = Verdict({"accuracy": 1.0}, True, "4"), Verdict({"accuracy": 0.0}, True, "4")
    assert verdicts == [right, None, wrong, None, None, right]
    assert again == [right]


def test_kinds_that_cannot_hang_start_no_process() -> None:
    item = Item("1", user("2+2?"), {"answer": "4"})
    with ScoringPool() as pool:
        assert pool.score("gsm8k", [(item, "#### 4", "stop")]) == [Verdict({"accuracy": 1.0}, True, "4")]
        assert pool._pool is None
