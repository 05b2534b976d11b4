"""What a sweep refuses, in one clear line and before anything is generated."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jax_sft.config import BenchmarkConfig, EvaluationConfig, replace
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.sweep import Sweep, sweep, trained_run
from jax_sft.files import read_json, write_json
from tests.evaluation.tiny import BENCHMARKS, FIRST, damage, study

BAD_INPUT: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("benchmark", {}, {"benchmarks": ["reasoning", "chess"]}, "no benchmark 'chess'; it has reasoning, ref"),
    ("run", {}, {"runs": ["first", "third"]}, "no run 'third'; it has first, second"),
    ("step", {}, {"steps": [0, 7]}, "run first: has no snapshot at step 7; there are 0, 2"),
    (
        "prompt too long",
        {
            "evaluation": EvaluationConfig(
                slots=8, context=20, chunk=4, prefill_rows=8, compute_dtype="float32"
            )
        },
        {},
        r"benchmark \w+: item '.*' has a prompt of \d+ tokens, which with max_new_tokens \d+ does not fit "
        r"evaluation.context 20; raise it to \d+ or lower max_new_tokens",
    ),
    (
        "benchmark file",
        {"benchmarks": (BenchmarkConfig("gsm8k", "gsm8k", "reasoning", path="nowhere.jsonl"),)},
        {},
        r"benchmark gsm8k: no file nowhere.jsonl .*; copy grade_school_math",
    ),
    (
        "devices",
        {"evaluation": EvaluationConfig(tensor=3)},
        {},
        "parallelism: .*tensor=3 makes 6 devices, but there are 8",
    ),
]


@pytest.mark.usefixtures("no_generation")
@pytest.mark.parametrize(
    ("changes", "asked", "message"), [pytest.param(*case[1:], id=case[0]) for case in BAD_INPUT]
)
def test_bad_input_is_one_clear_line_before_anything_is_generated(
    trained: Path, changes: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sweep(study(trained, **changes), **({"runs": ["first"]} | asked))
    assert "\n" not in str(caught.value)
    assert not list(trained.glob("tiny/*/evals")), "nothing is left behind, so that the remedy is free"


@pytest.mark.usefixtures("no_generation")
def test_a_template_that_changed_since_training_is_refused(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained, tmp_path / "copy")
    path = tmp_path / "copy" / "tiny" / "first" / "run.json"
    write_json(path, read_json(path) | {"template_hash": "another"})
    with pytest.raises(UsageError, match=r"not the one that it was trained with, by .*run.json"):
        sweep(study(tmp_path / "copy"), ["first"])


@pytest.mark.usefixtures("no_generation")
@pytest.mark.parametrize(
    ("vocab_size", "message"),
    [
        (300, r"run first: model.vocab_size 300 is too small for the 560 tokens of tokenizer"),
        (640, r"snapshots/2: .*embed.embedding is \[560, 32\], not \[640, 32\]"),
    ],
)
def test_a_vocabulary_that_is_not_the_tokenizers_or_the_snapshots_is_named(
    fresh: Path, vocab_size: int, message: str
) -> None:
    path = fresh / "tiny" / "first" / "run.json"
    record = read_json(path)
    record["run"]["model"]["vocab_size"] = vocab_size
    write_json(path, record)
    with pytest.raises(JaxSftError, match=message):
        sweep(study(fresh), ["first"], [2])


def test_tokens_that_changed_in_the_study_are_named(trained: Path) -> None:
    said = io.StringIO()
    runs = (replace(FIRST, tokens=replace(FIRST.tokens, template="qwen3")),)
    sweeper = Sweep(study(trained, runs=runs), BENCHMARKS[:1], Console(file=said, width=200))
    for _ in range(2):  # as when it follows a run
        sweeper.todo(trained_run(sweeper.study, "first"), [2])
    assert said.getvalue().count('trained; its tokens in the study changed: template: "auto" ->') == 1


@pytest.mark.usefixtures("no_generation")
def test_a_sweep_reads_the_run_as_it_was_trained_not_as_the_study_says_now(trained: Path) -> None:
    changed = study(trained, runs=(replace(FIRST, compute_dtype="bfloat16", epochs=7.0),))
    assert trained_run(changed, "first") == FIRST


@pytest.mark.usefixtures("no_generation")
def test_a_run_that_is_not_trained_is_refused(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(JaxSftError, match=r"run.json: no such file; train run first first"):
        sweep(study(tmp_path), ["first"])
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy" / "tiny" / "first" / "run.json").unlink()
    with pytest.raises(JaxSftError, match=r"run.json: no such file; train run first first"):
        sweep(study(tmp_path / "copy"), ["first"])


@pytest.mark.usefixtures("no_generation")
def test_without_a_sound_snapshot_the_sweep_fails(fresh: Path) -> None:
    damage(fresh, "second", 2)
    with pytest.raises(
        JaxSftError, match=r"not all could be had: .*second/snapshots/2: .*has changed since it was saved"
    ):
        sweep(study(fresh), ["second"])


def test_a_run_that_cannot_be_swept_leaves_the_others_swept(fresh: Path) -> None:
    record = fresh / "tiny" / "first" / "run.json"
    record.write_text(record.read_text()[:100])
    with pytest.raises(
        JaxSftError, match=r"first/run.json: not JSON.*; restore it, or train run first again"
    ):
        sweep(study(fresh), ["first", "second"], None, ["refusals"])
    assert list(fresh.glob("tiny/second/evals/2/refusals/scores.json"))
