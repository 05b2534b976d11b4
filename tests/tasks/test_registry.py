"""A new task is one file and no change elsewhere: the whole trip from its items to a score."""

from pathlib import Path

import pytest

import jax_sft.tasks
from jax_sft.config import BenchmarkConfig, EvaluationConfig, Run, Study
from jax_sft.errors import UsageError
from jax_sft.evaluation.items import store_items
from jax_sft.evaluation.score import score
from jax_sft.evaluation.sweep import Sweep
from jax_sft.files import write_jsonl
from jax_sft.study.folder import completions_file, unit_folder
from jax_sft.tasks.task import get_task, group_of, task_modules

CAPITALS = '''"""Capitals of countries; the name counts."""

from typing import ClassVar

from jax_sft.config import BenchmarkConfig, Group
from jax_sft.files import read_jsonl
from jax_sft.responses.thinking import visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import Task, column, register, source_file, user


@register("capitals")
class Capitals(Task):
    """Option `instruction`: the line after the question."""

    group: ClassVar[Group] = "general"
    defaults: ClassVar = {"instruction": "Answer with the name alone."}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The rows {country, capital} of a json-lines file."""
        instruction = self.options(config)["instruction"]
        path = source_file(config, data_root, "capitals.jsonl", "write one")
        items = []
        for number, row in enumerate(read_jsonl(path), start=1):
            where = f"{path}, row {number}"
            country, capital = column(row, "country", where), column(row, "capital", where)
            prompt = f"What is the capital of {country}?\\n{instruction}"
            items.append(Item(country, user(prompt), {"answer": capital}))
        return items

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the right name is said."""
        said = (visible(completion) or "").strip(" .\\n")
        return Verdict({"accuracy": float(said == item.reference["answer"])}, bool(said), said)
'''


@pytest.fixture
def drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second folder of the package of tasks, for files that a test drops there."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    monkeypatch.setattr(jax_sft.tasks, "__path__", [*jax_sft.tasks.__path__, str(folder)])
    return folder


def test_a_new_task_is_one_file(drop: Path, tmp_path: Path) -> None:
    assert len(CAPITALS.splitlines()) <= 60
    with pytest.raises(
        UsageError, match=r"unknown task 'capitals'; known: .*commonsenseqa_likelihood, countdown"
    ):
        get_task("capitals")
    (drop / "capitals.py").write_text(CAPITALS)
    (tmp_path / "capitals.jsonl").write_text(
        '{"country": "Peru", "capital": "Lima"}\n{"country": "Kenya", "capital": "Nairobi"}\n'
    )
    config = BenchmarkConfig("capitals")
    study = Study("s", (Run("a"),), (config,), root=str(tmp_path / "root"), data_root=str(tmp_path))
    items = store_items(study, config, print)
    assert items[0].messages[0]["content"].startswith("What is the capital of Peru?")
    completions = {"Peru": "<think>hm</think>Lima.", "Kenya": "Mombasa"}
    lines = [
        {"item": item, "sample": 0, "completion": text, "tokens": 5, "finish": "stop"}
        for item, text in completions.items()
    ]
    write_jsonl(completions_file(unit_folder(study, "a", 3, "capitals")), lines)
    [unit] = score(study)
    assert (unit.score, unit.group, unit.items) == (0.5, "general", 2)
    assert [verdict.answer for verdict in unit.verdicts] == ["Lima", "Mombasa"]


def test_only_the_file_of_a_task_is_imported(drop: Path) -> None:
    (drop / "broken.py").write_text('@register("broken")\nclass Broken(Nothing): ...\n')
    assert task_modules()["broken"] == "jax_sft.tasks.broken"
    assert group_of(BenchmarkConfig("xstest")) == "safety"
    with pytest.raises(NameError):
        get_task("broken")


def test_a_name_given_twice_is_refused(drop: Path) -> None:
    (drop / "other.py").write_text('@register("gsm8k")\nclass Other: ...\n')
    with pytest.raises(
        UsageError, match=r"task 'gsm8k' is in jax_sft.tasks.gsm8k and in jax_sft.tasks.other"
    ):
        task_modules()


def test_a_sweep_refuses_a_task_that_it_cannot_ask(drop: Path, tmp_path: Path) -> None:
    rated = CAPITALS.replace('"capitals"', '"rated"').replace(
        "    group:", '    ask: ClassVar = "pairwise"\n    group:'
    )
    (drop / "rated.py").write_text(rated)
    config = BenchmarkConfig("rated")
    study = Study("s", (Run("a"),), (config,), EvaluationConfig(tensor=1), root=str(tmp_path))
    with pytest.raises(
        UsageError, match="benchmark rated: its task rated is asked by pairwise, which a sweep"
    ):
        Sweep(study, [config])
