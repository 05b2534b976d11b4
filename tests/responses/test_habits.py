"""Counts of phrases and loops in constructed completions."""

import pytest

from jax_sft.responses.habits import behaviours, ends_in_loop


def test_counts_are_per_thousand_tokens() -> None:
    found = behaviours([("Wait, that is wrong. Let me check: 2 + 2 = 4.", 50), ("Four.", 50)])
    assert found is not None
    assert found["backtracking"] == pytest.approx(10)
    assert found["verification"] == pytest.approx(10)
    assert found["loops"] == 0


def test_parts_of_words_do_not_count() -> None:
    found = behaviours([("The waiter paid by cheque and waited.", 10)])
    assert found is not None
    assert found["backtracking"] == 0
    assert found["verification"] == 0


def test_nothing_to_count() -> None:
    assert behaviours([]) is None
    assert behaviours([("", 0)]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So 3 + 5 = 8, no. " * 6, True),
        ("Reasoning first. " + "I will try again and again, " * 4 + "I will try ag", True),
        ("1111111111", False),
        ("0" * 60, True),
        ("A sentence that is said twice. A sentence that is said twice.", False),
        ("abc " * 20 + "and then it stopped.", False),
        ("", False),
    ],
)
def test_loops(text: str, expected: bool) -> None:
    assert ends_in_loop(text) is expected
