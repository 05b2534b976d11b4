"""Tokenised rows: what is kept, what is cut, what is counted, and a hash that sees every change."""

from typing import Literal

import numpy as np
import pytest

from jax_sft.config import TokensConfig, replace
from jax_sft.data.rows import TokenisedRows, tokenise
from jax_sft.errors import UsageError
from jax_sft.tasks.rows import Row
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import render_row
from jax_sft.tokens.templates import ChatTemplate, load_template

CONFIG = TokensConfig()
TOKENIZER = load_tokenizer(CONFIG)
TEMPLATE = load_template(CONFIG, TOKENIZER)


def make_row(number: int, words: int, advantage: float = 1.0) -> Row:
    return Row(str(number), ({"role": "user", "content": f"say {number}"},), "yes " * words, advantage)


def make(
    rows: list[Row], max_length: int = 1000, too_long: Literal["drop", "truncate"] = "drop"
) -> TokenisedRows:
    return tokenise(rows, TOKENIZER, TEMPLATE, "end_of_turn", max_length, too_long)


def test_rows_lie_end_to_end() -> None:
    rows = [make_row(number, words, number / 2) for number, words in enumerate([3, 50, 1])]
    tokenised = make(rows)
    assert len(tokenised) == 3
    for number, row in enumerate(rows):
        alone = render_row(TOKENIZER, TEMPLATE, "end_of_turn", row.messages, row.response)
        start, stop = tokenised.offsets[number], tokenised.offsets[number + 1]
        assert np.array_equal(tokenised.tokens_N[start:stop], alone.ids)
        assert np.array_equal(tokenised.is_target_N[start:stop], alone.is_target)
        assert tokenised.targets_E[number] == alone.is_target.sum()
        assert tokenised.lengths_E[number] == len(alone.ids)
    assert tokenised.advantage_E.tolist() == [0, 0.5, 1]
    assert [str(array.dtype) for array in (tokenised.tokens_N, tokenised.is_target_N)] == ["int32", "bool"]


def test_long_rows_are_dropped_or_cut() -> None:
    rows = [make_row(number, words) for number, words in enumerate([3, 50, 1, 60])]
    longest_kept = int(make(rows).lengths_E[0])
    dropped = make(rows, longest_kept)
    assert (len(dropped), dropped.dropped, dropped.truncated) == (2, 2, 0)
    cut = make(rows, longest_kept, "truncate")
    assert (len(cut), cut.dropped, cut.truncated) == (4, 0, 2)
    whole = render_row(TOKENIZER, TEMPLATE, "end_of_turn", rows[1].messages, rows[1].response)
    start, stop = cut.offsets[1], cut.offsets[2]
    assert np.array_equal(cut.tokens_N[start:stop], whole.ids[:longest_kept])
    assert np.array_equal(cut.is_target_N[start:stop], whole.is_target[:longest_kept])
    assert whole.ids[-1] not in cut.tokens_N[stop - 1 : stop]


def test_a_row_cut_before_its_response_stays_without_targets() -> None:
    long_prompt = Row("long", ({"role": "user", "content": "say " * 80},), "yes")
    cut = make([make_row(0, 1), long_prompt], 40, "truncate")
    assert cut.targets_E[0] > 0
    assert cut.targets_E[1] == 0


def test_nothing_left() -> None:
    for too_long in ("drop", "truncate"):
        with pytest.raises(UsageError, match=r"none of the 2 rows has a response within data.row_length 4"):
            make([make_row(0, 3), make_row(1, 3)], 4, too_long)


def test_hash_sees_tokens_masks_order_and_advantages() -> None:
    rows = [make_row(0, 2), make_row(1, 2)]
    base = make(rows)
    mask = base.is_target_N.copy()
    mask[-1] = False
    others = [
        make(rows[::-1]),
        make(rows[:1]),
        make([rows[0], replace(rows[1], advantage=2.0)]),
        replace(base, is_target_N=mask),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == 5
    assert base.hash == make(rows).hash


def test_an_error_names_the_row() -> None:
    refusing = ChatTemplate("{{ raise_exception('no system turn') }}", "strict")
    with pytest.raises(UsageError, match=r"row 0: .*no system turn"):
        tokenise([make_row(0, 1)], TOKENIZER, refusing, "end_of_turn", 100)
