"""One think block for tasks, sets and the page: closed or not, opened by the response or by its template."""

import pytest

from jax_sft.responses.thinking import change_traces, reopened, thought, traces, visible, without_traces


@pytest.mark.parametrize(
    ("response", "inner", "said"),
    [
        ("plain", "", "plain"),
        ("<think>a</think>b", "<think>a</think>", "b"),
        ("a</think>b", "a</think>", "b"),
        ("<think>a</think>b<think>c</think>d", "<think>a</think>b<think>c</think>", "d"),
        ("<think>a", "<think>a", None),
        ("<think>a</think>b<think>c", "<think>a</think>b<think>c", None),
        ("", "", ""),
    ],
)
def test_what_is_said_follows_what_is_thought(response: str, inner: str, said: str | None) -> None:
    assert (thought(response), visible(response)) == (inner, said)


@pytest.mark.parametrize(
    ("response", "inside", "rest"),
    [
        ("<think>a</think>\n\nb", ["a"], "b"),
        ("a</think> b", ["a"], "b"),
        ("x<think>a</think>b<think>c</think>d", ["a", "c"], "xbd"),
        ("<think>endless", [], "<think>endless"),
        ("plain", [], "plain"),
    ],
)
def test_traces_are_what_stands_in_closed_blocks(response: str, inside: list[str], rest: str) -> None:
    assert traces(response) == inside
    assert without_traces(response) == rest
    assert change_traces(response, lambda trace: trace) == response


@pytest.mark.parametrize(
    ("response", "finish", "said"),
    [
        ("so \\boxed{7}. Wait, let me", "length", None),
        ("so 7.</think>It is 7", "length", "It is 7"),
        ("so 7.</think>It is 7", "stop", "It is 7"),
        ("<think>so 7.</think>It is 7", "stop", "It is 7"),
        ("It is 7", "stop", "It is 7"),
    ],
)
def test_a_thought_that_the_template_opened(response: str, finish: str, said: str | None) -> None:
    assert visible(reopened(response, finish)) == said
