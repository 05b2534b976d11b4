"""Knobs of data quality: exactly what they say, the same for the same seed, whatever else is in the set."""

import json
from pathlib import Path

import pytest

from jax_sft.config import DataConfig
from jax_sft.data.sources import load_rows
from jax_sft.data.transforms import Knobs, one_per_query, parse_knobs, query, subset, transform
from jax_sft.errors import UsageError
from jax_sft.responses.habits import branching
from jax_sft.tasks.rows import Row


def row(name: str, prompt: str = "q", response: str = "r", correct: bool | None = None) -> Row:
    return Row(name, ({"role": "user", "content": prompt},), response, correct=correct)


ROWS = [row(f"r{i}", f"q{i}", "word " * (i + 1)) for i in range(40)]


def test_the_defaults_change_nothing() -> None:
    assert transform(ROWS, parse_knobs({}), 0) == ROWS


def test_subsets_are_nested_ordered_and_seeded() -> None:
    small, large = subset(ROWS, 5, 1), subset(ROWS, 20, 1)
    assert set(map(query, small)) < set(map(query, large))
    assert [ROWS.index(kept) for kept in large] == sorted(ROWS.index(kept) for kept in large)
    assert small != subset(ROWS, 5, 2)
    assert subset(ROWS[::-1], 5, 1) == small[::-1]


def test_one_row_a_query() -> None:
    rows = [row(f"{q}{i}", q) for q in "ba" for i in range(6)]
    kept = [one_per_query(rows, seed) for seed in range(8)]
    assert all([one.messages[0]["content"] for one in pair] == ["b", "a"] for pair in kept)
    assert len({pair[0].id for pair in kept}) > 2


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_exact_share_of_wrong_answers(share: float) -> None:
    rows = [row(f"{q}-{i}", f"q{q}", correct=(i + q) % 2 == 0) for q in range(20) for i in range(4)]
    kept = transform(rows, Knobs(wrong=share), 3)
    assert len(kept) == len(set(map(query, kept))) == 20
    assert sum(not one.correct for one in kept) == round(share * 20)


def test_wrong_answers_as_many_as_there_are() -> None:
    rows = [row(f"right{q}", f"q{q}", correct=True) for q in range(10)]
    rows += [row(f"wrong{q}", f"q{q}", correct=False) for q in range(2)]
    kept = transform(rows, Knobs(wrong=0.5), 0)
    assert [one.correct for one in kept].count(False) == 2
    assert len(kept) == 4 or abs(len(kept) * 0.5 - 2) <= 0.5
    with pytest.raises(UsageError, match="row r0 has no column correct; verify the set first"):
        transform(ROWS, Knobs(wrong=0.5), 0)


def test_length_buckets() -> None:
    kept = transform(ROWS, Knobs(min_words=5, max_words=9), 0)
    assert [len(one.response.split()) for one in kept] == [5, 6, 7, 8, 9]
    with pytest.raises(UsageError, match="min_words 99 leaves none of 40 rows"):
        transform(ROWS, Knobs(min_words=99), 0)


def test_branching_counts_the_trace_alone() -> None:
    calm = row("calm", response="<think>one two three four</think>Wait, hmm.")
    restless = row("restless", response="<think>one. Wait, hmm</think>two")
    assert branching(calm.response) == 0
    assert branching(restless.response) == pytest.approx(2000 / 3)
    assert transform([calm, restless], Knobs(max_branches=500), 0) == [calm]


def test_traces_removed_and_cut() -> None:
    rows = [row("a", response="<think>\none two\nthree four\n</think>\n\nSo 4.")]
    assert transform(rows, Knobs(trace="remove"), 0)[0].response == "So 4."
    half = transform(rows, Knobs(trace_share=0.5), 0)[0].response
    assert half == "<think>\none two\n</think>\n\nSo 4."
    assert transform(rows, Knobs(trace_share=0.0), 0)[0].response.split() == [
        "<think>",
        "</think>",
        "So",
        "4.",
    ]
    with pytest.raises(UsageError, match="row b: nothing is left"):
        transform([row("b", response="<think>x</think>")], Knobs(trace="remove"), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"verbosity": 1}, "'verbosity' is not one of wrong"),
        ({"wrong": 2}, "from 0 to 1"),
        ({"wrong": True}, "wrong must be float"),
        ({"subset": 1.5}, "subset must be int"),
        ({"subset": -1}, "must not be below 0"),
        ({"trace": "gone"}, "must be keep or remove"),
    ],
)
def test_bad_knobs(values: dict[str, bool | int | float | str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_knobs(values)


def test_sets_mixed_by_weight(tmp_path: Path) -> None:
    folder = tmp_path
    for name, count in (("a", 30), ("b", 5)):
        lines = [f'{{"question": "{name}{i}", "response": "x"}}\n' for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    parts = "a.jsonl 3 prompt=question; b.jsonl 1 prompt=question"
    rows = load_rows(DataConfig(source="mix", options={"parts": parts}), 0, str(folder))
    names = [one.messages[0]["content"][0] for one in rows]
    assert all(names[: 4 * n].count("b") == n for n in range(1, 5))
    assert names.count("b") == 5
    assert len({one.id for one in rows}) == len(rows)
    with pytest.raises(UsageError, match=r"b.jsonl has no rows left after"):
        load_rows(DataConfig(source="mix", rows=30, options={"parts": parts}), 0, str(folder))
    with pytest.raises(UsageError, match="is not SOURCE WEIGHT"):
        load_rows(DataConfig(source="mix", options={"parts": "a.jsonl much"}), 0, str(folder))


def test_words_of_a_mix(tmp_path: Path) -> None:
    for name in ("a", "my set"):
        lines = [{"question": f"{name} {number}", "response": "\\boxed{1}"} for number in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def mix(parts: str) -> list[Row]:
        return load_rows(DataConfig(source="mix", options={"parts": parts}), 0, str(tmp_path))

    asked = "prompt=question instruction='Be brief; use \\boxed{}.'"
    rows = mix(f'a.jsonl 1 {asked}; "my set.jsonl" 1 rows=1 {asked};countdown 1 rows=2 traces=no depth=1;')
    assert [row.messages[0]["content"] for row in rows[:2]] == [
        "a 0\nBe brief; use \\boxed{}.",
        "my set 0\nBe brief; use \\boxed{}.",
    ]
    assert "<think>" not in rows[2].response
    with pytest.raises(UsageError, match=r"rows of a\.jsonl must be a whole number, found 'x'"):
        mix("a.jsonl 1 rows=x")
    with pytest.raises(UsageError, match="a quotation mark is not closed"):
        mix("'a.jsonl 1")
    with pytest.raises(UsageError, match="names no source"):
        mix(" ; ")
