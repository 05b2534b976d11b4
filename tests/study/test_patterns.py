"""Runs by name or pattern."""

from typing import Any

import pytest

from jax_sft.config import Run, Study
from jax_sft.errors import UsageError
from jax_sft.study.check import validate
from jax_sft.study.patterns import first_matching, matching

NAMES = ["Qwen3-14B_Math-CoT", "Qwen3-8B_Math-CoT", "Qwen3-8B_Math-NoCoT", "base"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("base", ["base"]),
        ("Qwen3-*_Math-CoT", NAMES[:2]),
        ("*NoCoT, Qwen3-14B*", [NAMES[0], NAMES[2]]),
        ("*, base", NAMES),
        ("Qwen3-?B_*", NAMES[1:3]),
        ("Qwen3-[0-9]B_Math-CoT", NAMES[1:2]),
    ],
)
def test_patterns_give_names_in_the_order_of_the_study(text: str, found: list[str]) -> None:
    assert matching(text, NAMES, "--runs") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bsae", r"--runs: the study has no run 'bsae'; did you mean base\?"),
        ("Qwen3-8B_Math-COT*", r"no run 'Qwen3-8B_Math-COT\*'; did you mean Qwen3-8B_Math-CoT or"),
        ("base, zzz*", r"no run 'zzz\*'; it has Qwen3-14B_Math-CoT, Qwen3-8B_Math-CoT"),
    ],
)
def test_what_means_no_run_is_an_error_with_near_names(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        matching(text, NAMES, "--runs")


def test_many_names_are_not_all_listed() -> None:
    with pytest.raises(UsageError, match=r"it has r0, .*, r7 and 12 more$"):
        matching("zzz*", [f"r{place}" for place in range(20)], "--runs")


def test_the_first_pattern_counts() -> None:
    assert first_matching(["*CoT", "*"], "NoCoT") == "*CoT"
    assert first_matching(["base"], "other") is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tables": {"T": "a*, nun"}}, "tables.T: the study has no run 'nun'; did you mean run"),
        ({"row_tokens": {"x*": 5}}, r"row_tokens: the study has no run 'x\*'"),
        ({"row_tokens": {"run": 0}}, r"row_tokens.run: 0 is not a number of at least 1"),
    ],
)
def test_a_studys_patterns_mean_runs(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        validate(Study("s", (Run(), Run(name="another")), **changes))
