"""Calls of packed rows: every text is in just one, whole, and rows are as short as their texts allow."""

import numpy as np
import pytest

from jax_sft.generation.texts import Text, plan_calls


@pytest.mark.parametrize("ways", [1, 4])
@pytest.mark.parametrize("tokens", [64, 100, 512])
def test_every_text_is_read_once_and_whole(tokens: int, ways: int) -> None:
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(1, 90, 300).tolist(), 1, 64, 65, 500, 512, 513, 2000]
    texts = [Text.plain(rng.integers(1, 1000, length).tolist()) for length in lengths]
    seen, shapes = [], set()
    for call in plan_calls(lengths, tokens, ways):
        shapes.add(call.shape)
        laid, segments_RT = call.fill(texts)
        assert (segments_RT > 0).sum() == sum(lengths[place.text] for place in call.places)
        for place in call.places:
            text, span = texts[place.text], slice(place.start, place.start + lengths[place.text])
            assert laid.tokens[place.row, span].tolist() == text.tokens.tolist()
            assert laid.positions[place.row, span].tolist() == list(range(lengths[place.text]))
            [number] = set(segments_RT[place.row, span].tolist())
            assert (segments_RT[place.row] == number).sum() == lengths[place.text]
            seen.append(place.text)
    assert sorted(seen) == list(range(len(lengths)))
    for rows, length in shapes:
        assert rows % ways == 0
        assert rows * length <= max(tokens, length) * ways
    assert len({length for _, length in shapes}) == len(shapes), "one program for each length"


def test_short_texts_fill_their_rows() -> None:
    lengths = np.random.default_rng(1).integers(20, 400, 3000).tolist()
    calls = list(plan_calls(lengths, 8192, 1))
    assert {call.shape for call in calls} == {(4, 2048)}
    assert sum(lengths) / (len(calls) * 8192) > 0.97


def test_a_planned_call_is_filled_in_numbered_segments() -> None:
    [call] = plan_calls([2, 3, 4], 10, 1)
    laid, segments_RT = call.fill([Text.plain([5] * 2), Text.plain([6] * 3), Text.plain([7] * 4)])
    assert call.shape == (1, 10)
    assert sorted(laid.tokens[0].tolist()) == [0, 5, 5, 6, 6, 6, 7, 7, 7, 7]
    assert segments_RT[0].tolist()[-1] == 0
    assert set(segments_RT[0].tolist()) == {0, 1, 2, 3}
    assert laid.targets.max() == -1
