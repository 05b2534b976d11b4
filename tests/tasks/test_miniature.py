"""The miniature world: right answers, both splits, every arithmetic fact the game needs, no game."""

from collections import Counter
from pathlib import Path

import pytest

from jax_sft.errors import UsageError
from jax_sft.tasks.countdown import training_rows as countdown_rows
from jax_sft.tasks.miniature import (
    HARMFUL_TASKS,
    REFUSAL,
    SHARES,
    TASKS,
    held_out_questions,
    sample_texts,
    training_rows,
)
from jax_sft.tokens.loading import read_tokenizer
from jax_sft.tokens.training import train_tokenizer

ROWS = training_rows(12_000, 0, {})


def right_answer(task: str, prompt: str) -> str:
    """The answers worked out again from the prompt."""
    digits = [word for word in prompt.split() if word.isdigit()]
    words = prompt.split()
    if task == "max":
        return max(digits)
    if task == "reverse":
        return " ".join(reversed(digits))
    if task == "sort":
        return " ".join(sorted(digits))
    if task == "look_up":
        return next(entry for entry in words[4:] if entry.startswith(f"{words[2]}:"))
    if task == "repeat":
        return " ".join([words[1]] * {"two": 2, "three": 3, "four": 4}[words[2]])
    if task == "brackets":
        return f"[{words[0]} {words[1]}]"
    if task == "first":
        return words[3]
    if task == "swap":
        return f"{words[2]} {words[1]}"
    raise AssertionError(task)


def test_answers_are_right() -> None:
    checked = Counter[str]()
    for row in ROWS:
        task, prompt = row.id.rpartition("-")[2], row.messages[0]["content"]
        if task == "arithmetic":
            facts = [fact.split("=") for fact in row.response.split()]
            assert [expression for expression, _ in facts] == prompt.split()[1:]
            assert all(eval(expression) == int(value) for expression, value in facts)
        elif task in TASKS["safety"]:
            assert (row.response == REFUSAL) == (task in HARMFUL_TASKS)
        else:
            assert row.response == right_answer(task, prompt)
        checked[task] += 1
    assert set(checked) == set(SHARES)
    for task, share in SHARES.items():
        assert checked[task] == pytest.approx(12_000 * share, rel=0.25)


def test_shares_are_a_mixture_of_all_tasks() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert sorted(SHARES) == sorted(task for tasks in TASKS.values() for task in tasks)


def test_held_out_questions_are_never_trained_on() -> None:
    trained = {row.messages[0]["content"] for seed in range(2) for row in training_rows(8000, seed, {})}
    for family in TASKS:
        questions = held_out_questions(family, 150, 0)
        assert len(questions) > 120
        assert len({question["id"] for question in questions}) == len(questions)
        assert not trained & {question["prompt"] for question in questions}


def test_every_arithmetic_fact_of_the_game_is_trained_on() -> None:
    known = {fact for row in ROWS if row.id.endswith("arithmetic") for fact in row.response.split()}
    for row in countdown_rows(500, 0, {"miniature": True}):
        facts = [line.split(":")[0] for line in row.response.split("\n")[2:-3]]
        assert known.issuperset(facts)


def test_the_game_is_not_in_the_mixture() -> None:
    assert not [row for row in ROWS if "use two of" in row.messages[0]["content"]]


def test_a_unit_of_one_task_and_an_unknown_one() -> None:
    assert {question["task"] for question in held_out_questions("sort", 20, 0)} == {"sort"}
    with pytest.raises(UsageError, match="unknown task 'poetry'"):
        held_out_questions("poetry", 20, 0)


def test_rows_repeat_for_a_seed() -> None:
    assert training_rows(50, 1, {}) == training_rows(50, 1, {})
    assert training_rows(50, 1, {}) != training_rows(50, 2, {})


def test_a_tokenizer_learnt_from_the_sample_keeps_traces_short(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(sample_texts(4000, 0), 512)
    tokenizer.save(tmp_path)
    reread = read_tokenizer(tmp_path)
    for row in countdown_rows(200, 0, {"miniature": True}):
        ids = reread.encode(row.response)
        assert reread.decode(ids) == row.response
        assert len(ids) < 120
