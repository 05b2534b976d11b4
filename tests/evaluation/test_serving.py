"""Sweeps of a snapshot behind a server, and the comparison of a server with our engine."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jax_sft.checkpoints.store import load_snapshot
from jax_sft.config import ParallelismConfig, replace
from jax_sft.errors import UsageError
from jax_sft.evaluation.serving import first_difference
from jax_sft.evaluation.sweep import Sweep, sweep
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.engine import Engine
from jax_sft.options import SweepOptions
from jax_sft.sharding import make_mesh
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.rendering import stop_ids
from jax_sft.tokens.templates import load_template
from tests.evaluation.tiny import EVALUATION, FIRST, MODEL, completion_files, study, unit
from tests.generation.server import FaultyServer

GREEDY = ["reasoning", "refusals"]
TOKENIZER = load_tokenizer(FIRST.tokens)
STOPS = stop_ids(TOKENIZER, load_template(FIRST.tokens, TOKENIZER))


def options(server: FaultyServer, **changes: Any) -> SweepOptions:
    return SweepOptions(**({"endpoint": server.url, "model": "exports/2"} | changes))


@pytest.fixture(scope="module")
def engine(trained: Path) -> Engine:
    """One device with the snapshot at step 2 of the first run."""
    alone = Engine(MODEL, EVALUATION, STOPS, make_mesh(ParallelismConfig(), _first_device()))
    alone.load(load_snapshot(trained / "tiny" / "first", 2, alone.abstract_params()))
    return alone


def _first_device() -> Any:
    import jax

    return jax.devices()[:1]


@pytest.fixture
def server(engine: Engine) -> Iterator[FaultyServer]:
    """Serves that snapshot, greedily and for up to twelve tokens."""

    def answer(prompt: list[int]) -> dict[str, Any]:
        [(_, completion)] = engine.generate([Request("asked", 0, tuple(prompt), 12)])
        ended = STOPS[:1] if completion.finish == "stop" else ()
        return {"text": "", "token_ids": [*completion.tokens, *ended], "finish_reason": completion.finish}

    with FaultyServer("exports/2", answer) as running:
        yield running


def test_a_sweep_of_a_server_writes_what_our_engine_writes(
    sweeper_and_root: tuple[Sweep, Path], fresh: Path, server: FaultyServer
) -> None:
    """Greedy completions of the very snapshot, whatever goes wrong on the way."""
    server.fail([503, 429])
    sweep(study(fresh), ["first"], [2], ["reasoning"], options(server, requests=1))
    [(file, content)] = completion_files(fresh).items()
    assert content == completion_files(sweeper_and_root[1])[file]
    record = json.loads((unit(fresh, "first", 2, "reasoning") / "unit.json").read_text())
    assert record["settings"]["backend"] == "endpoint"
    assert (unit(fresh, "first", 2, "reasoning") / "scores.json").exists()
    asked = len(server.bodies)
    sweep(study(fresh), ["first"], [2], ["reasoning"], options(server, requests=1))
    assert len(server.bodies) == asked + 1, "nothing is drawn again; only the list of models is asked for"


@pytest.mark.usefixtures("no_generation")
def test_one_curve_is_not_drawn_by_two_backends(swept: Path, server: FaultyServer) -> None:
    with pytest.raises(
        UsageError, match=r"reasoning: was drawn with backend jax_sft, now it is endpoint; restore"
    ):
        sweep(study(swept), ["first"], [2], ["reasoning"], options(server))


@pytest.mark.usefixtures("no_generation")
def test_a_server_gives_no_log_probabilities(fresh: Path, server: FaultyServer) -> None:
    kept = tuple(replace(benchmark, logprobs=True) for benchmark in study(fresh).benchmarks)
    with pytest.raises(UsageError, match="benchmark reasoning: a server gives no log-probabilities; set"):
        sweep(study(fresh, benchmarks=kept), ["first"], [2], ["reasoning"], options(server))


@pytest.mark.usefixtures("no_generation")
@pytest.mark.parametrize(
    ("changes", "asked", "message"),
    [
        (
            {},
            (["first", "second"], [2]),
            r"--endpoint: the server has one snapshot; name it by --runs RUN --st",
        ),
        ({}, (["first"], [0, 2]), r"--endpoint: the server has one snapshot"),
        ({}, (["first"], None), r"--endpoint: the server has one snapshot"),
        ({"model": ""}, (["first"], [2]), r"--model names what the server of --endpoint or .* give both"),
        ({"endpoint": ""}, (["first"], [2]), r"--model names what the server of --endpoint or .* give both"),
        ({"model": "base"}, (["first"], [2]), r"does not serve base; it serves exports/2"),
        ({"follow": True}, (["first"], [2]), r"--endpoint: a server has one snapshot; leave out --follow"),
        ({"requests": 0}, (["first"], [2]), r"--requests 0: is not at least 1"),
        ({"check_prompts": 0}, (["first"], [2]), r"--check-prompts 0: is not at least 1"),
        ({"request_timeout": 0.0}, (["first"], [2]), r"--request-timeout 0.0: is not above 0"),
        ({"endpoint": "nowhere"}, (["first"], [2]), r"endpoint 'nowhere': write a URL such as"),
    ],
)
def test_what_is_refused(
    fresh: Path, server: FaultyServer, changes: dict[str, Any], asked: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        sweep(study(fresh), *asked, options=options(server, **changes))
    assert not list(fresh.glob("tiny/*/evals"))


def test_a_server_is_compared_with_our_engine(
    fresh: Path, server: FaultyServer, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("jax_sft.evaluation.serving.Engine", lambda *_: engine)
    for name in ("load", "unload"):
        monkeypatch.setattr(engine, name, lambda *_: None)  # it has its weights, and answers for the server
    checked = options(server, endpoint="", check_backend=server.url, check_prompts=6, check_tokens=12)
    sweep(study(fresh), ["first"], [2], GREEDY, checked)
    assert "6 of 6 completions the same" in " ".join(capsys.readouterr().out.split())
    right, count = server.answer, [0]

    def wrong(prompt: list[int]) -> dict[str, Any]:
        """The third answer after the probe's differs from its third token on."""
        count[0] += 1
        answer = right(prompt)
        if count[0] == 4:
            answer["token_ids"] = [*answer["token_ids"][:2], *[40] * 10]
        return answer

    server.answer = wrong
    sweep(study(fresh), ["first"], [2], GREEDY, replace(checked, requests=1))
    said = " ".join(capsys.readouterr().out.split())
    assert "5 of 6 completions the same" in said
    found = re.findall(r"they part at token 2 to 2, the median 2, by gaps up to ([0-9.e+-]+) nats", said)
    assert [float(gap) > 0 for gap in found] == [True], "ours is the likeliest"
    assert not list(fresh.glob("tiny/*/evals")), "nothing of a study is drawn"


@pytest.mark.parametrize(
    ("ours", "theirs", "place"),
    [
        (((1, 2, 3), "length"), ((1, 2, 3), "length"), None),
        (((1, 2, 3), "length"), ((1, 4, 3), "length"), 1),
        (((1, 2), "stop"), ((1, 2, 3), "length"), 2),
        (((1, 2), "stop"), ((1, 2), "length"), 2),
        (((), "stop"), ((), "stop"), None),
    ],
)
def test_where_two_completions_part(ours: Any, theirs: Any, place: int | None) -> None:
    first, second = (Completion(tokens, len(tokens), finish) for tokens, finish in (ours, theirs))
    assert first_difference(first, second) == place


def test_messages_of_a_server_that_dies(fresh: Path, server: FaultyServer) -> None:
    said = io.StringIO()
    server.unknown = {"prompt"}
    with pytest.raises(Exception, match="refused completions with 422: unexpected fields"):
        sweep(study(fresh), ["first"], [2], ["reasoning"], options(server), Console(file=said))
