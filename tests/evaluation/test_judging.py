"""A judge that hangs, dies or raises gives no verdict on that completion, and costs no other."""

import importlib
import time
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import EvaluationConfig
from jax_sft.evaluation.judging import judge, scorers
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import user

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


def test_hanging_dying_and_raising_judges_cost_one_completion_each(hostile: Any) -> None:
    references = [{"answer": "4"}, hostile.Hanging(), {"answer": "5"}, hostile.Dying(), {}, {"answer": "4"}]
    asked = [
        (Item(str(number), user("2+2?"), reference), "\\boxed{4}", "stop")
        for number, reference in enumerate(references)
    ]
    started = time.monotonic()
    with scorers(EvaluationConfig(workers=2, scorer_seconds=8.0)) as workers:
        verdicts = judge("math500", asked, workers)
        again = judge("math500", asked[:1], workers)
    assert time.monotonic() - started < 60
    right, wrong = Verdict({"accuracy": 1.0}, True, "4", "box"), Verdict({"accuracy": 0.0}, True, "4", "box")
    assert verdicts == [right, None, wrong, None, None, right]
    assert again == [right]


def test_tasks_that_cannot_hang_are_judged_here_and_a_reference_that_lacks_its_answer_costs_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jax_sft.responses.workers.ProcessPool", None)
    asked = [(Item("1", user("2+2?"), reference), "#### 4", "stop") for reference in ({"answer": "4"}, {})]
    with scorers(EvaluationConfig()) as workers:
        assert judge("gsm8k", asked, workers) == [Verdict({"accuracy": 1.0}, True, "4", "marked"), None]
