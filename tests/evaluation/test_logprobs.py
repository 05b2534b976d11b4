"""Log-probabilities of what was drawn, kept beside the completions of benchmarks that ask for them."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from jax_sft.config import replace
from jax_sft.errors import UsageError
from jax_sft.evaluation.settings import drawn_with
from jax_sft.evaluation.sweep import Sweep
from jax_sft.study.lines import read_completions
from tests.evaluation.tiny import BENCHMARKS, EVALUATION, study, unit

KEPT = tuple(replace(benchmark, logprobs=True) for benchmark in BENCHMARKS)


def swept_again(sweeper: Sweep, root: Path) -> Sweep:
    """The first run at step 2, by the engine that swept before."""
    whole = study(root, benchmarks=KEPT)
    engines = iter([*sweeper.engines.values()])
    again = Sweep(whole, KEPT, Console(file=io.StringIO()), lambda *_: next(engines))
    again.generate(again.todo(whole.runs[0], [2]))
    return again


def test_log_probabilities_are_kept_and_change_nothing_else(
    sweeper_and_root: tuple[Sweep, Path], fresh: Path
) -> None:
    swept_again(sweeper_and_root[0], fresh)
    for benchmark in KEPT:
        plain, kept = (
            list(read_completions(unit(root, "first", 2, benchmark.name) / "completions.jsonl"))
            for root in (sweeper_and_root[1], fresh)
        )
        assert [replace(line, logprobs=()) for line in kept] == plain
        assert all(len(line.logprobs) == line.tokens for line in kept)
        logprobs = [logprob for line in kept for logprob in line.logprobs]
        assert all(round(logprob, 5) == logprob <= 0 for logprob in logprobs)
        assert len(set(logprobs)) > len(kept), "they are of tokens, not of completions"
        record = json.loads((unit(fresh, "first", 2, benchmark.name) / "unit.json").read_text())
        assert record["settings"]["logprobs"] == "kept"


def test_a_completed_unit_is_read_again_with_its_log_probabilities(
    sweeper_and_root: tuple[Sweep, Path], fresh: Path
) -> None:
    again = swept_again(sweeper_and_root[0], fresh)
    assert not again.todo(again.study.runs[0], [2]).todo
    file = unit(fresh, "first", 2, "reasoning") / "completions.jsonl"
    whole = file.read_text()
    file.write_text(whole.replace('"logprobs": [-', '"logprobs": [-9', 1))
    [missing] = again.todo(again.study.runs[0], [2]).todo[2]
    assert len(missing.file.missing()) == 1, "a changed number is a changed line"
    again.generate(again.todo(again.study.runs[0], [2]))
    assert file.read_text() == whole


def test_units_without_them_are_those_of_before() -> None:
    before, after = (drawn_with(benchmark, EVALUATION) for benchmark in (BENCHMARKS[0], KEPT[0]))
    assert "logprobs" not in before
    assert after == before | {"logprobs": "kept"}


@pytest.mark.usefixtures("no_generation")
def test_one_curve_has_them_or_not(swept: Path) -> None:
    with pytest.raises(UsageError, match="was drawn with logprobs none, now it is kept; restore it, give"):
        Sweep(study(swept, benchmarks=KEPT), KEPT, Console(file=io.StringIO()))
