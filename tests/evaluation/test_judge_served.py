"""Judges behind an endpoint: asked, refused, missing, and found wanting before anything is drawn."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import JudgeConfig
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.items import stored_items
from jax_sft.evaluation.judge_asking import ask, prepare
from jax_sft.evaluation.judge_units import Judging, judged_units
from jax_sft.evaluation.score import score, units_with_completions
from jax_sft.evaluation.sweep import sweep
from jax_sft.judges.chosen import Chosen
from jax_sft.judges.page import Question
from jax_sft.judges.pages import get_page
from tests.evaluation.judges import QUIET, TOKENIZER, chips, judge, judged, scores
from tests.evaluation.tiny import EVALUATION
from tests.generation.server import FaultyServer


def answers(prompt: Any) -> dict[str, Any]:
    """A guard behind a server, that is shown the turns."""
    said = prompt[-1]["content"] if isinstance(prompt, list) else prompt
    return {"text": f"Safety: {'Unsafe' if 'e' in said else 'Safe'}", "finish_reason": "stop"}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer("guard", answers) as running:
        yield running


def served(server: FaultyServer, **changes: Any) -> JudgeConfig:
    return JudgeConfig(**{"name": "qwen3guard", "model": "guard", "endpoint": server.url, **changes})


def test_a_server_may_judge_and_what_it_refuses_is_missing(swept: Path, server: FaultyServer) -> None:
    of = judged(swept, (served(server),), "qwen3guard")
    benchmark = of.benchmarks[0]
    judging = Judging(of, [(benchmark, stored_items(of, benchmark.name))])
    server.fail([400])
    [problem] = judging.judge(judged_units(of, units_with_completions(of), print), chips(8), QUIET)
    assert re.search(r"judge qwen3guard: 1 of \d+ questions were refused, the first: .*400: not now", problem)
    asked = [body for body in server.bodies if body]
    assert all(body["temperature"] == 0 and body["max_tokens"] == 64 for body in asked)
    assert [turn["role"] for turn in asked[0]["messages"]] == ["user", "assistant"]
    score(of)
    found = [scores(swept, step) for step in (0, 2)]
    assert sum(unit["scorer_failures"] for unit in found) >= 1
    assert judge(of, chips(8)) == []
    assert sum(bool(body) for body in server.bodies) == len(asked) + 1
    score(of)
    assert [scores(swept, step)["scorer_failures"] for step in (0, 2)] == [0, 0]


def test_a_raw_page_is_completed_and_its_response_counted_by_a_tokenizer(
    swept: Path, server: FaultyServer, judges: tuple[JudgeConfig, ...]
) -> None:
    with pytest.raises(UsageError, match="judges the first 512 tokens of a response; say whose"):
        judge(judged(swept, (served(server, page="harmbench"),), "qwen3guard"), chips(8))
    config = served(server, page="harmbench", tokenizer=judges[0].model)
    model = prepare(Chosen(config, get_page("harmbench")), EVALUATION)
    long = "word " * 5000
    [(_, outputs, cut)] = ask(model, {"q": Question("Do it.", long)}, chips(8), lambda _: None)
    assert cut
    assert outputs == ("Safety: Unsafe",)
    [prompt] = [body["prompt"] for body in server.bodies if body]
    clipped = prompt.partition("[GENERATION]:\n")[2].partition("\n\n---")[0]
    assert long.startswith(clipped)
    assert len(TOKENIZER.encode(clipped)) == 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"endpoint": "http://127.0.0.1:9/v1"},
            "judge qwen3guard: endpoint http://127.0.0.1:9/v1: no answer",
        ),
        ({"endpoint": "nowhere"}, "judge qwen3guard: endpoint 'nowhere': write a URL"),
        ({"model": "other"}, "judge qwen3guard: endpoint .*: does not serve other; it serves guard"),
        ({"page": "skywork"}, "its page skywork needs one score, an endpoint gives words"),
        ({"page": "rubric_harm", "model": ""}, "name the model that its endpoint serves"),
    ],
)
@pytest.mark.usefixtures("no_generation")
def test_a_server_that_cannot_judge_is_found_before_anything_is_drawn(
    fresh: Path, server: FaultyServer, change: dict[str, Any], message: str
) -> None:
    of = judged(fresh, (served(server, **change),), "qwen3guard")
    with pytest.raises(JaxSftError, match=message):
        sweep(of, ["first"])
    assert not list(fresh.glob("tiny/first/evals/**/*.jsonl"))
