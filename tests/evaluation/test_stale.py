"""A run trained again over old evaluations, a snapshot or item exchanged, other rules: none of it counts."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jax_sft.analysis.study import load_study
from jax_sft.config import Run, Study, replace
from jax_sft.evaluation.score import score
from jax_sft.evaluation.sweep import sweep
from jax_sft.files import read_jsonl, write_jsonl
from jax_sft.study.folder import items_file
from jax_sft.tasks import task
from jax_sft.training.loop import train
from tests.evaluation.tiny import BENCHMARKS, FIRST, completion_files, study, unit

RUN = replace(FIRST, compute_dtype="float32")
STEPS = (0, 2)


@pytest.fixture(scope="module")
def trained_and_swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stale")
    train(small(root), RUN)
    sweep(small(root), ["first"])
    return root


@pytest.fixture
def root(trained_and_swept: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained_and_swept, tmp_path / "root")
    return tmp_path / "root"


def small(root: Path, **changes: Any) -> Study:
    return study(root, runs=(replace(RUN, **changes),), benchmarks=BENCHMARKS[:2])


def retrained(root: Path, changed: Run) -> Study:
    """The saves removed and the run trained again in another way, its evaluations left where they are."""
    for kind in ("snapshots", "state"):
        shutil.rmtree(root / "tiny" / "first" / kind)
    made = study(root, runs=(changed,), benchmarks=BENCHMARKS[:2])
    train(made, changed)
    return made


def other_rate(root: Path) -> Study:
    optimizer = replace(RUN.optimizer, learning_rate=0.1, warmup_fraction=0.0)
    return retrained(root, replace(RUN, optimizer=optimizer))


def other_length(root: Path) -> Study:
    """Step 2 is no longer one of its steps."""
    return retrained(root, replace(RUN, epochs=0.5))


def other_data(root: Path) -> Study:
    game = {"miniature": True, "traces": False}
    return retrained(root, replace(RUN, data=replace(RUN.data, source="countdown", options=game)))


def other_snapshot(root: Path) -> Study:
    """Another snapshot under the number of one that was swept; step 0's, so that completions differ."""
    folder = root / "tiny" / "first" / "snapshots"
    shutil.rmtree(folder / "2")
    other = root / "other"
    train(small(other, seed=7), replace(RUN, seed=7))
    shutil.copytree(other / "tiny" / "first" / "snapshots" / "2", folder / "2")
    shutil.rmtree(other)
    return small(root)


@pytest.mark.parametrize("change", [other_rate, other_length, other_data, other_snapshot])
def test_what_was_drawn_from_other_weights_is_not_shown_and_is_drawn_again(
    root: Path, change: Callable[[Path], Study], capsys: pytest.CaptureFixture[str]
) -> None:
    before = completion_files(root)
    made = change(root)
    results = load_study(made)
    shown = {step for step, _ in results.runs[0].units}
    assert shown == ({0} if change is other_snapshot else set()), "nothing stale on the page"
    assert any("step 2: " in phrase for phrase in results.missing)
    with pytest.raises(Exception, match="run the sweep again"):
        score(made)
    capsys.readouterr()
    sweep(made, ["first"])
    assert "set aside as" in capsys.readouterr().err
    steps = load_study(made).runs[0].steps
    assert steps == ([0, 1] if change is other_length else [0, 2])
    assert not load_study(made).missing
    after = completion_files(root)
    if change is not other_length:
        assert any(after[file] != before[file] for file in after if "/2/" in file.as_posix())
    aside = {path.read_bytes() for path in root.glob("tiny/first/aside/**/completions.jsonl")}
    assert {text for file, text in before.items() if "/2/" in file.as_posix()} <= aside, "nothing is deleted"


def test_an_edited_item_is_drawn_again_and_the_others_are_kept(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the stored items one was asked in other words; the rest was asked as now."""
    before = completion_files(root)
    path = items_file(small(root), "reasoning")
    rows = list(read_jsonl(path))
    rows[0]["reference"]["response"] = "another answer"
    write_jsonl(path, rows)
    results = load_study(small(root))
    assert {name for _, name in results.runs[0].units} == {"refusals"}
    assert "first, reasoning, step 0: the items have changed since they were scored" in results.missing
    sweep(small(root), ["first"])
    assert "holds other items than reasoning as configured now" in capsys.readouterr().err
    assert not load_study(small(root)).missing
    assert completion_files(root) == before, "the prompt is what it was"


def test_scores_by_other_rules_are_not_shown_until_they_are_given_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = task.RULES_VERSION
    monkeypatch.setattr(task, "RULES_VERSION", now + 1)
    results = load_study(small(root))
    assert not results.runs[0].units
    assert f"scored by miniature 1.{now}, now it is miniature 1.{now + 1}" in results.missing[0]
    sweep(small(root), ["first"])
    assert not load_study(small(root)).missing


def test_scores_of_another_unit_and_edited_completions_are_noticed(root: Path) -> None:
    scores = unit(root, "first", 0, "reasoning") / "scores.json"
    shutil.copy(scores, unit(root, "first", 2, "reasoning"))
    completions = unit(root, "first", 0, "refusals") / "completions.jsonl"
    completions.write_text(completions.read_text().replace('"tokens": 9', '"tokens": 8', 1))
    missing = load_study(small(root)).missing
    assert missing == [
        "first, reasoning, step 2: its scores are of first, step 0, reasoning",
        "first, refusals, step 0: its completions have changed since they were scored",
    ]
