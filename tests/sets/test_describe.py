"""Descriptions of sets: numbers that can be counted by hand, and a page that holds them."""

from pathlib import Path

import pytest

from jax_sft.config import TokensConfig
from jax_sft.errors import UsageError
from jax_sft.sets.describe import answer_kind, describe_set, lines_of
from jax_sft.sets.page import length_histogram, write_page
from jax_sft.tasks.rows import Row
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template

TOKENS = TokensConfig(template="chatml")
TOKENIZER = load_tokenizer(TOKENS)
TEMPLATE = load_template(TOKENS, TOKENIZER)
PROMPT = ({"role": "user", "content": "q"},)


def test_counts(tmp_path: Path) -> None:
    rows = [Row("a", PROMPT, "<think>abcd</think>\\boxed{7}", correct=False), Row("b", PROMPT, "#### 7")]
    made = describe_set("<set>", rows, TOKENIZER, TEMPLATE, "end_of_turn")
    assert (made.rows, made.queries, made.with_trace, made.marked_wrong) == (2, 1, 0.5, 0.5)
    assert made.trace_share == pytest.approx(4 / sum(len(row.response) for row in rows))
    assert made.answers == {"boxed number": 0.5, "number after ####": 0.5}
    assert sum(made.lengths) == made.tokens
    assert sum(entry["share"] for entry in length_histogram([made])) == pytest.approx(1)
    write_page([made], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "&lt;set&gt;" in page
    assert page.count("<svg") == 3
    assert all(value in page for value in lines_of(made).values())


def test_answers_are_looked_for_after_the_trace() -> None:
    assert answer_kind("<think>\\boxed{3}</think>I'm sorry, no.") == "refusal"
    assert answer_kind("\\boxed{\\frac12}") == "boxed formula"
    assert answer_kind("well") == "free text"


def test_an_empty_set() -> None:
    with pytest.raises(UsageError, match="none: holds no rows"):
        describe_set("none", [], TOKENIZER, TEMPLATE, "end_of_turn")
