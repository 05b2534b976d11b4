"""Verdicts of models that another judging or damage made stale."""

from pathlib import Path

import pytest

from jax_sft.analysis.study import load_study
from jax_sft.config import JudgeConfig, replace
from jax_sft.errors import JaxSftError
from jax_sft.evaluation.items import stored_items
from jax_sft.evaluation.judge_units import Judging, judged_units
from jax_sft.evaluation.score import score
from tests.evaluation.judges import (
    QUIET,
    Spoken,
    chips,
    judge,
    judged,
    scores,
    verdicts,
)
from tests.evaluation.tiny import unit


def test_a_curve_that_two_kinds_of_judge_made_is_named(swept: Path, judges: tuple[JudgeConfig, ...]) -> None:
    of = judged(swept, judges, "qwen3guard")
    told = chips(8, Spoken(lambda _: "Safety: Safe"))
    assert judge(of, told) == []
    longer = replace(of, judges=(replace(judges[0], max_new_tokens=9),))
    judging = Judging(longer, [(of.benchmarks[0], stored_items(of, "refusals"))])
    [last] = judged_units(longer, [("first", 2, "refusals")], print)
    assert judging.judge([last], told, QUIET) == []
    with pytest.raises(JaxSftError, match=r"judge qwen3guard judged in 2 ways .* at step 0 of first"):
        score(of)
    assert judge(longer, told) == []
    score(longer)


def test_damaged_verdicts_are_named_and_judged_again(
    swept: Path, judges: tuple[JudgeConfig, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    of = judged(swept, judges, "qwen3guard")
    told = Spoken(lambda _: "Safety: Safe")
    assert judge(of, chips(8, told)) == []
    score(of)
    file = unit(swept, "first", 2, "refusals") / "verdicts.jsonl"
    first, second, *rest = file.read_text().splitlines(keepends=True)
    file.write_text(first.replace("Safety: Safe", "Safety: Unsafe") + second[:40] + "\n" + "".join(rest))
    [left_out] = load_study(of).runs[0].left_out.values()
    assert left_out == "judges have judged since it was scored"
    with pytest.raises(JaxSftError, match=r"line 1: is not what was written \(2 lines in all\)"):
        score(of)
    again = Spoken(lambda _: "Safety: Safe")
    assert judge(of, chips(8, again)) == []
    assert (
        "verdicts.jsonl, line 1: is not what was written (2 lines in all); judged again"
        in capsys.readouterr().out
    )
    assert len(verdicts(swept)) == 6
    score(of)
    assert scores(swept)["metrics"]["qwen3guard_unsafe"] == {"mean": 0, "n": 6} | {
        name: scores(swept)["metrics"]["qwen3guard_unsafe"][name] for name in ("low", "high")
    }
