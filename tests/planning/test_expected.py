"""What a sweep is expected to draw: lengths from the study's own completions, from the study, or a share."""

from pathlib import Path

import pytest

from jax_sft.config import BenchmarkConfig, Study, replace
from jax_sft.planning.expected import UNITS, drawn_so_far, sweep_workload
from jax_sft.planning.tables import sweep_notes
from jax_sft.study.folder import completions_file, unit_folder
from jax_sft.study.records import CompletionLine, Item, UnitRecord, write_items
from tests.planning.fakes import study

pytestmark = pytest.mark.short

GAME = BenchmarkConfig("game", "gsm8k", samples=2, max_new_tokens=64)
GIVEN = BenchmarkConfig("given", "mmlu_likelihood")
ABSENT = BenchmarkConfig("absent", "math500", samples=3, max_new_tokens=1000)
PUBLIC = BenchmarkConfig("gpqa", samples=3, max_new_tokens=1000)


def made(root: Path, *benchmarks: BenchmarkConfig) -> Study:
    return replace(study(root), benchmarks=benchmarks, data_root=str(root))


def draw(of: Study, step: int, lengths: list[int], most: int = 64, run: str = "long") -> None:
    """A unit of `game` on disk, whose completions have 3 characters to a token."""
    folder = unit_folder(of, run, step, "game")
    settings: dict[str, int | float | str] = {"max_new_tokens": most}
    UnitRecord(run, step, "game", "", "", "", settings, {}).write(folder)
    lines = [
        CompletionLine(f"item {number}", 0, "abc" * length, length, "stop").text
        for number, length in enumerate(lengths)
    ]
    completions_file(folder).write_text("".join(f"{line}\n" for line in lines))


def test_lengths_are_those_of_what_the_study_has_drawn(tmp_path: Path) -> None:
    of = made(tmp_path, GAME, replace(GAME, name="other"))
    asked = ({"role": "user", "content": "x" * 60},)
    write_items(of, "game", [Item(str(number), asked, {}) for number in range(5)])
    write_items(of, "other", [Item("0", asked, {})])
    draw(of, 0, [60, 20])
    draw(of, 10, [10, 10], run="elsewhere")  # a run that the study does not have
    draw(of, 20, [40, 0])
    draw(of, 30, [500, 500], most=1000)  # before the limit was lowered
    (unit_folder(of, "long", 40, "game")).mkdir(parents=True)  # begun, and nothing whole
    work = sweep_workload(of, 0.5)
    game, other = work.works
    assert (game.units, game.new_tokens, game.items) == (2, 30.0, 5)
    # Squares of 60, 20 and 40 over twice their sum; prompts have 3 characters to a token too.
    assert game.live == pytest.approx((3600 + 400 + 1600) / 240)
    assert game.prompt_tokens == 20
    assert (other.units, other.new_tokens, other.prompt_tokens) == (0, 32.0, 15.0)
    assert (work.completions, work.prompts, work.tokens) == (12, 6, 10 * 30.0 + 2 * 32)
    assert work.live == pytest.approx((300 * (20 + game.live) + 64 * (15 + 16)) / 364)
    assert sweep_notes(work) == [
        "tokens of a completion, from what this study has drawn: game 30 (2 units)",
        "tokens of a completion, assumed (--completion-share, completion_tokens): other 32",
    ]


def test_a_unit_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    of = made(tmp_path, GAME)
    draw(of, 0, [8, 8])
    draw(of, 10, [30])
    completions_file(unit_folder(of, "long", 10, "game")).write_text("{")
    found = drawn_so_far(of, GAME)
    assert found is not None
    assert (found.units, found.tokens) == (1, 8.0)


def test_of_many_units_some_are_read(tmp_path: Path) -> None:
    of = made(tmp_path, GAME)
    for step in range(2 * UNITS):
        draw(of, step, [step + 1])
    found = drawn_so_far(of, GAME)
    assert found is not None
    assert (found.units, found.tokens) == (UNITS, float(UNITS))


def test_items_that_are_not_at_hand_are_counted_where_that_is_known(tmp_path: Path) -> None:
    of = made(tmp_path, ABSENT, PUBLIC, replace(ABSENT, name="limited", limit=7))
    work = sweep_workload(replace(of, completion_tokens={"lim*": 5, "gpqa": 2000}), 0.3)
    assert work.unknown == ("absent",)
    assert {each.benchmark.name: (each.items, each.new_tokens) for each in work.works} == {
        "gpqa": (198, 1000.0),
        "limited": (7, 5.0),
    }
    unknown, public, _ = sweep_notes(work)
    assert unknown.endswith(": absent")
    assert public.endswith(": gpqa 198, limited 7")


def test_what_is_asked_by_likelihood_draws_nothing(tmp_path: Path) -> None:
    of = made(tmp_path, GIVEN)
    reference = {"choices": ["A" * 4, "B" * 8], "right": 0, "plain": True}
    write_items(of, "given", [Item("0", ({"role": "user", "content": "x" * 40},), reference)])
    work = sweep_workload(of)
    (given,) = work.works
    assert (given.completions, given.prompt_tokens, given.given_tokens) == (0, 10.0, 3.0)
    assert (work.completions, work.items) == (0, {})
