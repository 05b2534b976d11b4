"""reasoning-gym: reference answers score 1, junk does not, and items do not change between processes."""

import json
from typing import Any

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.study.records import Item
from jax_sft.tasks.task import get_task, load_items

# One of each family, and those with known faults: tuples lost in JSON, sets in items, scorers that raise.
GENERATORS = ["arc_agi", "countdown", "isomorphic_strings", "knights_knaves", "prime_factorization"]


def items(generator: str, size: int = 3, **options: Any) -> list[Item]:
    options = {"generator": generator, "size": size, **options}
    return load_items(BenchmarkConfig("rg", "reasoning_gym", "reasoning", options=options), "")


@pytest.mark.parametrize("generator", GENERATORS)
def test_reference_answers_score_one_after_json_and_junk_scores_zero(generator: str) -> None:
    kind = get_task("reasoning_gym")
    for item in items(generator):
        stored = Item(item.id, item.messages, json.loads(json.dumps(item.reference)))
        answer = item.reference["entry"]["answer"]
        right = kind.verdict(stored, f"<think>no</think><answer>{answer}</answer>", "stop")
        assert (right.metrics["accuracy"], right.answered) == (1, True)
        junk = kind.verdict(stored, "<answer>junk</answer>", "stop")
        assert (junk.metrics["accuracy"], junk.answered) == (0, True)
        assert not kind.verdict(stored, "<think>endless", "length").answered


def test_answers_in_a_box_or_bare_are_read() -> None:
    kind = get_task("reasoning_gym")
    [item] = items("leg_counting", 1)
    answer = item.reference["entry"]["answer"]
    assert kind.verdict(item, f"So \\boxed{{{answer}}}", "stop").metrics["accuracy"] == 1
    assert kind.verdict(item, f" {answer}\n", "stop").metrics["accuracy"] == 1


def test_items_repeat_although_a_generator_orders_sets() -> None:
    assert items("isomorphic_strings") == items("isomorphic_strings")
    assert items("isomorphic_strings") != items("isomorphic_strings", seed=1)


def test_options_reach_the_generator() -> None:
    for item in items("countdown", min_numbers=3, max_numbers=3):
        assert len(item.reference["entry"]["metadata"]["numbers"]) == 3


@pytest.mark.parametrize(
    ("generator", "options", "message"),
    [
        ("game_of_life_halting", {}, "cannot be used: its scorer accepts any answer"),
        ("composite", {}, "cannot be used: it is a mixture"),
        ("poetry", {}, "generator 'poetry': .*poetry"),
        ("countdown", {"colour": 3}, "generator 'countdown': .*colour"),
        ("countdown", {"min_numbers": 9, "max_numbers": 3}, "generator 'countdown': .*max_numbers"),
    ],
)
def test_bad_requests_say_why(generator: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        items(generator, **options)
