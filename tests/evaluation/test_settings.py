"""What the record of a unit keeps of its settings, and which units of before are still those of now."""

import pytest

from jax_sft.config import BenchmarkConfig, EvaluationConfig, Sampling, replace
from jax_sft.evaluation.settings import changed_setting, drawn_with

EVALUATION = EvaluationConfig(seed=3, compute_dtype="float32")
GREEDY = BenchmarkConfig("gsm8k", max_new_tokens=200)
SAMPLED = BenchmarkConfig("gsm8k", max_new_tokens=200, samples=4, sampling=Sampling(0.6, 0.95))
FIRST_VERSION = {"max_new_tokens": 200, "top_k": 0, "min_p": 0.0, "seed": 3, "compute_dtype": "float32"}


def test_greedy_units_of_before_are_as_they_are_now() -> None:
    assert drawn_with(GREEDY, EVALUATION) == {**FIRST_VERSION, "temperature": 0.0, "top_p": 1.0}


def test_units_that_another_sampler_drew_are_known() -> None:
    stored = {**FIRST_VERSION, "temperature": 0.6, "top_p": 0.95}
    now = drawn_with(SAMPLED, EVALUATION)
    assert now == stored | {"sampler": 2}
    assert changed_setting(stored, now) == "sampler 1, now it is 2"
    assert changed_setting(now, now) == ""


def test_bits_are_kept_where_they_are_fewer() -> None:
    eight = replace(EVALUATION, kv_dtype="int8", weight_dtype="int8")
    before, after = drawn_with(GREEDY, EVALUATION), drawn_with(GREEDY, eight)
    assert after == before | {"kv_dtype": "int8", "weight_dtype": "int8"}
    assert changed_setting(before, after) == "kv_dtype same, now it is int8"


@pytest.mark.parametrize(
    ("sampling", "what"),
    [
        (Sampling(presence_penalty=0.5), "presence_penalty 0.0, now it is 0.5"),
        (Sampling(frequency_penalty=-1.0), "frequency_penalty 0.0, now it is -1.0"),
        (Sampling(stop=("\n\n", "é")), 'stop none, now it is ["\\n\\n", "é"]'),
    ],
)
def test_later_settings_are_kept_where_they_matter(sampling: Sampling, what: str) -> None:
    before, after = (
        drawn_with(benchmark, EVALUATION) for benchmark in (GREEDY, replace(GREEDY, sampling=sampling))
    )
    assert changed_setting(before, after) == what
    assert changed_setting(after, before), "also when they are taken away again"


def test_loops_are_part_of_what_they_can_change() -> None:
    """A completion that may not be as long as a loop is the same with and without."""
    long = replace(GREEDY, max_new_tokens=513)
    assert "loop_tokens" not in drawn_with(replace(long, max_new_tokens=512), EVALUATION)
    assert drawn_with(long, EVALUATION)["loop_tokens"] == 512
    assert "loop_tokens" not in drawn_with(replace(long, protocol="paper"), EVALUATION)
    off = replace(EVALUATION, loop_tokens=0)
    assert (
        changed_setting(drawn_with(long, off), drawn_with(long, EVALUATION)) == "loop_tokens 0, now it is 512"
    )
