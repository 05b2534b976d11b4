"""Verification: every response accounted for, one right one kept, hostile answers harmless, resumable."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jax_sft.config import DataConfig
from jax_sft.data.sources import load_rows
from jax_sft.errors import UsageError
from jax_sft.options import VerifyOptions
from jax_sft.responses.workers import Workers, run_here
from jax_sft.sets.overlap import index_items, ngrams, overlap, read_items
from jax_sft.sets.verify import judge, verify


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge in this process: starting others takes seconds."""
    monkeypatch.setattr(Workers, "run", lambda self, function, calls, warm: run_here(function, calls))


@pytest.mark.parametrize(
    ("response", "answer", "verdict"),
    [
        ("So \\boxed{\\frac{1}{2}}.", "0.5", "right"),
        ("So \\boxed{1/3}.", "$\\frac12$", "wrong"),
        ("<think>\\boxed{7}</think>It is \\boxed{8}.", "8", "right"),
        ("<think>\\boxed{7}</think>I do not know.", "7", "unparsable"),
        ("The answer is 18.", "reasons\n#### 18", "right"),
        ("\\boxed{\\$18.90}", "\\$18.90", "right"),
        ("\\boxed{18.90}", "\\$18.90", "right"),
        ("\\boxed{18.09}", "\\$18.90", "wrong"),
        ("\\boxed{\\$36}", "\\$36", "right"),
        ("\\boxed{\\$32,\\!348}", "\\$32,\\!348", "right"),
        ("\\boxed{5}", "$\\$5$", "right"),
    ],
)
def test_judge(response: str, answer: str, verdict: str) -> None:
    assert judge(response, answer) == verdict


POOL = [
    {"id": "a1", "question": "one plus one?", "answer": "2", "response": "It is \\boxed{2}"},
    {"id": "a2", "question": "one plus one?", "answer": "2", "response": "Surely \\boxed{2}"},
    {"id": "a3", "question": "one plus one?", "answer": "2", "response": "Surely  \\boxed{2}"},
    {"id": "a4", "question": "one plus one?", "answer": "2", "response": "No, \\boxed{3}"},
    {"id": "b1", "question": "two plus two?", "answer": "4", "response": "Five: \\boxed{5}"},
    {"id": "b2", "question": "two plus two?", "answer": "4", "response": "I cannot say."},
    {"id": "c1", "question": "six times seven?", "answer": "42", "response": "<think>on and on"},
    {"id": "c2", "question": "six times seven?", "answer": "42", "response": "<think>.</think>\\boxed{42}"},
    {
        "id": "d1",
        "question": "What is the sum of all the primes below ten?",
        "answer": "17",
        "response": "17",
    },
]


@pytest.mark.usefixtures("inline")
def test_every_response_is_accounted_for(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.jsonl", POOL)
    bench = write(tmp_path / "bench.jsonl", [{"id": 7, "problem": "the sum of all the primes below ten"}])
    out = tmp_path / "set.jsonl"
    report = verify(pool, out, VerifyOptions(ngram=6), [bench])
    assert (report.responses, report.queries, report.duplicates, report.contaminated) == (9, 4, 1, 1)
    assert (report.over_length, report.right, report.wrong, report.unparsable) == (1, 3, 2, 1)
    judged = report.right + report.wrong + report.unparsable + report.timed_out + report.crashed
    assert report.duplicates + report.contaminated + report.over_length + judged == report.responses
    assert [row["prompt"] for row in lines(out)] == ["one plus one?", "six times seven?"]
    assert all(row["correct"] for row in lines(out))
    assert lines(tmp_path / "set.removed.jsonl")[0]["item"] == "bench:7"
    assert report.removed == ["bench:7"]
    assert json.loads((tmp_path / "set.report.json").read_text())["kept"] == 2
    first = {verify(pool, out, VerifyOptions(seed=seed)).kept and lines(out)[0]["id"] for seed in range(6)}
    assert first == {"a1", "a2"}, "the seed chooses among right responses"


@pytest.mark.usefixtures("inline")
def test_all_judged_responses_can_be_kept_for_a_study_of_wrong_ones(tmp_path: Path) -> None:
    out = tmp_path / "set.jsonl"
    verify(write(tmp_path / "pool.jsonl", POOL[:6]), out, VerifyOptions(keep="all"))
    assert {row["id"]: row["correct"] for row in lines(out)} == {
        "a1": True,
        "a2": True,
        "a4": False,
        "b1": False,
    }


def test_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, out, asked = write(tmp_path / "pool.jsonl", POOL), tmp_path / "set.jsonl", []

    def noted(function: Any, tasks: Any, limit: int) -> Any:
        for task in tasks:
            if len(asked) == limit:
                raise KeyboardInterrupt
            asked.append(task)
            yield "done", function(*task)

    monkeypatch.setattr(Workers, "run", lambda self, f, calls, warm: noted(f, calls, 3))
    with pytest.raises(KeyboardInterrupt):
        verify(pool, out, VerifyOptions())
    with (tmp_path / "set.partial.jsonl").open("a") as partial:
        partial.write('{"key": "cut o')
    monkeypatch.setattr(Workers, "run", lambda self, f, calls, warm: noted(f, calls, 100))
    report = verify(pool, out, VerifyOptions())
    assert len(asked) == len(set(asked)) == 7
    assert (report.right, report.wrong, report.kept) == (4, 2, 3)
    assert not (tmp_path / "set.partial.jsonl").exists()


def test_hostile_answers_neither_hang_nor_kill(tmp_path: Path) -> None:
    deep = "\\frac{1}{" * 400 + "2" + "}" * 400
    answers = [
        "\\boxed{9^{9^{9^{9^9}}}}",
        "\\boxed{10^{10^{10}}!}",
        f"\\boxed{{{deep}}}",
        "\\boxed{" + "\\sqrt{x}+" * 12_000 + "1}",
        "a\0b \\boxed{2\0}",
        "\\boxed{" * 5000,
        "{" * 30_000,
        "\\boxed{\\int_0^\\infty \\sin(x^{x^x}) dx}",
        "\ud800 \\boxed{2}",
    ]
    rows = [{"question": f"q{i}", "answer": "2", "response": text} for i, text in enumerate(answers)]
    rows += [{"question": "gold", "answer": "9^{9^{9^{9}}}", "response": "\\boxed{3}"}]
    rows += [{"question": "last", "answer": "2", "response": "\\boxed{2}"}]
    report = verify(write(tmp_path / "p.jsonl", rows), tmp_path / "s.jsonl", VerifyOptions(seconds=4))
    assert report.responses == len(rows)
    kept = {row["prompt"] for row in lines(tmp_path / "s.jsonl")}
    assert "last" in kept
    assert kept <= {"last", "q4"}


@pytest.mark.usefixtures("inline")
def test_nothing_that_is_read_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pool, bench = write(tmp_path / "pool.jsonl", POOL), write(tmp_path / "set.removed.jsonl", [POOL[0]])
    (tmp_path / "link.jsonl").symlink_to("pool.jsonl")
    (tmp_path / "hard.jsonl").hardlink_to(pool)
    (tmp_path / "here").symlink_to(tmp_path)
    before = pool.read_bytes(), bench.read_bytes()
    for out in (pool, "pool.jsonl", "./here/pool.jsonl", "link.jsonl", "hard.jsonl", "here/here/pool.jsonl"):
        with pytest.raises(UsageError, match=r"would be written over .*pool\.jsonl, which is read"):
            verify(pool, out, VerifyOptions())
    with pytest.raises(UsageError, match=r"written over .*set\.removed\.jsonl"):
        verify(pool, "set.jsonl", VerifyOptions(), [bench])
    with pytest.raises(UsageError, match=r"written over .*set\.removed\.jsonl"):
        verify(bench, "set.jsonl", VerifyOptions())
    assert before == (pool.read_bytes(), bench.read_bytes())


@pytest.mark.usefixtures("inline")
def test_what_is_kept_the_loader_reads(tmp_path: Path) -> None:
    said = "so \\boxed{2}"
    responses = [
        said,
        f"<think>hm</think> {said}",
        f"hm</think> {said}",
        f"a <think>hm</think> {said}",
        f"<think> a <think> b </think> {said}",
        f"hm</think></think> {said}",
        f"<think>hm {said}",
    ]
    pool = [{"id": None, "question": f"q{i}", "answer": "2", "response": r} for i, r in enumerate(responses)]
    pool.append({"id": "", "question": "both", "answer": "2", "response": responses[:2]})
    out = tmp_path / "set.jsonl"
    report = verify(write(tmp_path / "pool.jsonl", pool), out, VerifyOptions(keep="all"))
    assert (report.over_length, report.right, report.kept) == (3, 6, 6)
    rows = load_rows(DataConfig(source=str(out)), 0)
    assert [row.response for row in rows] == [*responses[:4], *responses[:2]]
    assert [row.id for row in rows] == ["1", "2", "3", "4", "8-0", "8-1"]


@pytest.mark.usefixtures("inline")
def test_benchmarks_may_be_parquet(tmp_path: Path) -> None:
    bench = tmp_path / "bench.parquet"
    pq.write_table(pa.Table.from_pylist([{"problem": "the sum of all the primes below ten"}]), bench)
    report = verify(
        write(tmp_path / "pool.jsonl", POOL), tmp_path / "set.jsonl", VerifyOptions(ngram=6), [bench]
    )
    assert report.removed == ["bench:1"]


@pytest.mark.usefixtures("inline")
def test_bad_pools(tmp_path: Path) -> None:
    out, row = tmp_path / "set.jsonl", dict(POOL[0])
    for change, message in (
        ({"answer": None}, r"row 1: no column answer; found id, question"),
        ({"question": " "}, r"row 1: question is empty"),
        ({"question": "\ud800?"}, r"row 1: question holds half of a surrogate pair"),
        ({"response": 3}, r"row 1: response must be text, found int"),
        ({"answer": [1]}, r"row 1: answer must be text or a number, found list"),
    ):
        with pytest.raises(UsageError, match=message):
            verify(write(tmp_path / "pool.jsonl", [row | change]), out, VerifyOptions())
    with pytest.raises(UsageError, match="no such file"):
        verify(tmp_path / "none.jsonl", out, VerifyOptions())
    with pytest.raises(UsageError, match="no response is left"):
        verify(write(tmp_path / "pool.jsonl", [POOL[3]]), out, VerifyOptions())


def test_items_that_share_an_id_are_all_looked_at(tmp_path: Path) -> None:
    rows = [
        {"id": None, "problem": "a"},
        {"id": 7, "problem": "b"},
        {"id": 7, "messages": None, "problem": "c"},
    ]
    items = read_items([write(tmp_path / "x.jsonl", rows)])
    assert items == {"x:1": "a", "x:7": "b", "x:7, row 3": "c"}


def test_ngrams() -> None:
    assert ngrams("Two plus TWO, is?", 2) == {"two plus", "plus two", "two is"}
    index = index_items({"x": "alpha beta gamma", "y": "delta"}, 2)
    assert overlap("say beta, Gamma now", index, 2) == ("x", "beta gamma")
    assert overlap("gamma beta", index, 2) is None
