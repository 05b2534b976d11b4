"""Puzzles solvable and split for good; traces true line by line; the twin on the same puzzles."""

import itertools
import re
from fractions import Fraction
from typing import Any

import pytest

from jax_sft.errors import UsageError
from jax_sft.responses.expressions import check_answer, parse_expression
from jax_sft.tasks.countdown import (
    CountdownOptions,
    count_puzzles,
    countdown_options,
    countdown_puzzles,
    in_test_split,
    training_rows,
)
from jax_sft.tasks.rows import Row

EQUATION = re.compile(r"(\d+) ?([-+*/]) ?(\d+) ?= ?(\d+)")


def reachable(numbers: tuple[Fraction, ...], target: int) -> bool:
    """Brute force over fractions: all pairs, all operations, any number of steps."""
    if target in numbers:
        return True
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = tuple(number for k, number in enumerate(numbers) if k not in (i, j))
        results = {a + b, a - b, a * b} | ({a / b} if b else set())
        if any(reachable((result, *rest), target) for result in results):
            return True
    return False


def boxed(row: Row) -> str:
    match = re.search(r"\\boxed\{(.*)\}$", row.response)
    assert match is not None
    return match[1]


def test_every_puzzle_is_solvable_by_brute_force() -> None:
    options = countdown_options({"max_numbers": 4})
    for puzzle in countdown_puzzles(40, 0, options):
        assert reachable(tuple(map(Fraction, puzzle.numbers)), puzzle.target)
        assert check_answer(puzzle.solution.text, **puzzle.reference)
        assert 10 <= puzzle.target <= 100
        assert 3 <= len(puzzle.numbers) <= 4


@pytest.mark.parametrize("miniature", [True, False])
def test_train_and_test_never_meet_in_any_order(miniature: bool) -> None:
    train = countdown_options({"miniature": miniature})
    test = countdown_options({"miniature": miniature, "split": "test"})
    tested = {puzzle.key for puzzle in countdown_puzzles(100, 1, test)}
    assert len(tested) == 100
    assert all(in_test_split(key) for key in tested)
    for seed in range(3):
        trained = countdown_puzzles(500, seed, train)
        assert len({puzzle.id for puzzle in trained}) == 500
        assert not tested & {puzzle.key for puzzle in trained}


def test_rows_repeat_for_a_seed_and_differ_between_seeds() -> None:
    assert training_rows(20, 3, {}) == training_rows(20, 3, {})
    assert training_rows(20, 3, {}) != training_rows(20, 4, {})


@pytest.mark.parametrize("verbosity", [0, 1, 2])
def test_every_equation_of_a_trace_is_true_and_the_answer_checks(verbosity: int) -> None:
    rows = training_rows(60, 0, {"depth": 2, "verbosity": verbosity})
    for row in rows:
        for left, operation, right, value in EQUATION.findall(row.response):
            assert parse_expression(f"{left}{operation}{right}").value == int(value), row.id
        for value, distance, word, target in re.findall(
            r"= (\d+), which is (\d+) (above|below) (\d+)", row.response
        ):
            sign = 1 if word == "above" else -1
            assert int(value) - int(target) == sign * int(distance)
        numbers, target = row.id.removeprefix("countdown-").split("-to-")
        assert check_answer(boxed(row), list(map(int, numbers.split("-"))), int(target))
        assert row.response.count("<think>") == row.response.count("</think>") == 1


def test_lines_that_say_no_are_not_the_target() -> None:
    for row in training_rows(60, 0, {"verbosity": 0}):
        target = int(row.id.rpartition("-")[2])
        results = [int(value) for value in re.findall(r"= (\d+) no", row.response)]
        assert target not in results


@pytest.mark.parametrize("options", [{}, {"miniature": True}])
def test_the_twin_without_traces_has_the_same_puzzles_and_answers(options: dict[str, bool]) -> None:
    traced = training_rows(50, 0, options)
    twins = training_rows(50, 0, {**options, "traces": False})
    for row, twin in zip(traced, twins, strict=True):
        assert (row.id, row.messages) == (twin.id, twin.messages)
        assert twin.response == f"\\boxed{{{boxed(row)}}}"


def test_traces_grow_with_depth_and_verbosity() -> None:
    def length(**options: int) -> int:
        return sum(len(row.response) for row in training_rows(30, 0, options))

    by_depth = [length(depth=depth) for depth in (0, 1, 2, 3)]
    by_verbosity = [length(verbosity=verbosity) for verbosity in (0, 1, 2)]
    assert by_depth == sorted(by_depth)
    assert by_verbosity == sorted(by_verbosity)
    assert by_depth[3] > 5 * by_depth[0]


def test_the_miniature_trace_lists_all_candidates_in_one_order_and_then_finds_the_target() -> None:
    for row in training_rows(300, 0, {"miniature": True}):
        numbers, target = row.id.removeprefix("countdown-").split("-to-")
        a, b, c = map(int, numbers.split("-"))
        expected = []
        for x, y in ((a, b), (a, c), (b, c)):
            expected += [(x, "+", y, x + y), (max(x, y), "-", min(x, y), abs(x - y)), (x, "*", y, x * y)]
        lines = row.response.split("\n")[1:-2]
        listed = [f"{x}{operation}{y}={value}:{x}{operation}{y}" for x, operation, y, value in expected]
        assert lines[0] == target
        assert lines[1:-1] == listed
        found = next(line for line in listed if f"={target}:" in line)
        assert lines[-1] == found.partition("=")[2]
        assert row.response.endswith(f"\\boxed{{{found.partition('=')[0]}}}")


def test_the_whole_miniature_pool_can_be_drawn_and_no_more() -> None:
    options = countdown_options({"miniature": True, "split": "test"})
    count = count_puzzles(options)
    assert len({puzzle.key for puzzle in countdown_puzzles(count, 5, options)}) == count
    with pytest.raises(UsageError, match=f"found only {count} different test puzzles"):
        countdown_puzzles(count + 1, 5, options)


def test_one_number_cannot_be_asked_for_many_puzzles() -> None:
    options = countdown_options({"low": 2, "high": 3, "max_numbers": 3, "max_target": 20})
    with pytest.raises(UsageError, match="widen the options"):
        countdown_puzzles(30, 0, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": 3}, "unknown option 'numbers'"),
        ({"depth": "2"}, "option depth must be int, not '2'"),
        ({"traces": "never"}, "option traces must be bool, not 'never'"),
        ({"depth": 9}, "depth must be 0"),
        ({"split": "dev"}, "split must be train or test"),
        ({"min_numbers": 5, "max_numbers": 4}, "min_numbers <= max_numbers"),
        ({"min_target": 0}, "min_target"),
        ({"miniature": True, "max_numbers": 5}, "min_numbers equal to max_numbers"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        countdown_options(options)


def test_defaults_of_the_miniature_game_can_be_overridden() -> None:
    assert countdown_options({"miniature": True}).high == 9
    assert countdown_options({"miniature": True, "high": 6}).high == 6
    assert countdown_options({}) == CountdownOptions()
