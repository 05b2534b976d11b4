"""A server as a backend: what it is asked in which form, and what is made of its answers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from jax_sft.config import Sampling, TokensConfig, replace
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.client import Client, EndpointError
from jax_sft.generation.endpoint import Endpoint, identify
from jax_sft.tokens.loading import load_tokenizer
from tests.generation.server import FaultyServer

TOKENIZER = load_tokenizer(TokensConfig())
STOP = TOKENIZER.eos_id
WORDS = "a few words to begin with"
PROMPT = (*TOKENIZER.encode(WORDS), STOP, *TOKENIZER.encode(" and more"))
TEXT = TOKENIZER.decode(list(PROMPT), skip_special_tokens=False)
REQUEST = Request("game/1", 0, PROMPT, 8)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        running.counts_prompt = False
        yield running


def endpoint(server: FaultyServer, concurrency: int = 4, tries: int = 3) -> Endpoint:
    client = Client(server.url, "snapshot", timeout=0.3, tries=tries, first_pause=0.001)
    return Endpoint(client, TOKENIZER, (STOP,), concurrency)


def answers(server: FaultyServer, *requests: Request, **options: Any) -> list[Completion]:
    return [completion for _, completion in endpoint(server, **options).generate(requests)]


def ends(*ids: int, finish: str = "stop") -> Any:
    """A server that answers with these tokens, and says them."""
    return lambda _: {"text": TOKENIZER.decode(list(ids)), "token_ids": list(ids), "finish_reason": finish}


def says(text: str, finish: str = "stop") -> Any:
    """A server that answers with a text alone."""
    return lambda _: {"text": text, "finish_reason": finish}


def test_token_ids_go_and_come_where_the_server_takes_them(server: FaultyServer) -> None:
    hello = TOKENIZER.encode("hello you")
    server.answer = ends(*hello, STOP)
    assert answers(server, REQUEST) == [Completion(tuple(hello), len(hello) + 1, "stop")]
    body = server.bodies[-1]
    assert body["prompt"] == list(PROMPT)
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (8, 0.0, 1.0)
    assert (body["top_k"], body["min_p"]) == (-1, 0.0), "the server's own defaults do not count"
    assert body["stop_token_ids"] == [STOP]
    server.answer = ends(*hello, finish="length")
    assert answers(server, REQUEST) == [Completion(tuple(hello), len(hello), "length")]


@pytest.mark.parametrize(
    ("unknown", "expected"),
    [
        ({"ids"}, {"prompt": TEXT, "top_k": -1}),
        ({"ids", "top_k"}, {"prompt": TEXT}),
        ({"ids", "top_k", "generation_config"}, {"prompt": TEXT}),
    ],
    ids=["text", "transformers", "plain"],
)
def test_the_form_is_what_the_server_understands(
    server: FaultyServer, unknown: set[str], expected: dict[str, Any]
) -> None:
    server.unknown, server.answer = unknown, says("hello you")
    hello = tuple(TOKENIZER.encode("hello you"))
    requests = [replace(REQUEST, sample=sample) for sample in range(3)]
    whole = Completion(hello, len(hello) + 1, "stop", text="hello you")
    assert answers(server, *requests) == [whole] * 3
    assert len(server.bodies) <= 9, "the form is looked for once"
    body = server.bodies[-1]
    assert {name: body[name] for name in expected} == expected
    assert not unknown & body.keys()
    config = json.loads(body.get("generation_config", "{}"))
    assert config.get("eos_token_id", [STOP]) == [STOP]


@pytest.mark.parametrize("stop_token", [0, 1])
def test_the_stop_token_counts_whether_or_not_the_server_counts_it(
    server: FaultyServer, stop_token: int
) -> None:
    hello = tuple(TOKENIZER.encode("hello you"))
    server.unknown = {"ids"}
    server.answer = lambda _: says("hello you")(_) | {"counted": len(hello) + stop_token}
    assert [completion.token_count for completion in answers(server, REQUEST)] == [len(hello) + 1]
    server.answer = lambda _: says("hello you", "length")(_) | {"counted": len(hello) + stop_token}
    assert [completion.token_count for completion in answers(server, REQUEST)] == [len(hello) + stop_token]


def test_a_server_whose_context_is_too_short_is_no_end_at_the_limit(server: FaultyServer) -> None:
    server.answer = ends(*[17] * 5, finish="length")
    with pytest.raises(EndpointError, match=r"cut item game/1 after 5 of 8 tokens: have it serve .* longer"):
        answers(server, REQUEST)


def test_a_server_that_stumbles_over_token_ids_gets_text(server: FaultyServer) -> None:
    server.answer = says("hello")
    server.fail([500, 500, "drop", "drop"])
    assert [completion.text for completion in answers(server, REQUEST)] == ["hello"]
    assert isinstance(server.bodies[-1]["prompt"], str)


def test_filters_that_the_server_does_not_know_are_refused(server: FaultyServer) -> None:
    server.unknown = {"top_k", "generation_config"}
    with pytest.raises(EndpointError, match=r"refused completions with 422: unexpected fields \['gen"):
        answers(server, replace(REQUEST, sampling=Sampling(1.0, top_k=5)))


def test_each_sample_has_its_seed_and_its_settings(server: FaultyServer) -> None:
    server.answer = says("x")
    sampling = Sampling(0.7, 0.9, 5, 0.1, presence_penalty=0.5, stop=("END",))
    requests = [replace(REQUEST, sample=sample, sampling=sampling) for sample in range(4)]
    for _ in range(2):
        answers(server, *requests)
    bodies = [body for body in server.bodies if body["max_tokens"] == 8]
    assert len({body["seed"] for body in bodies}) == 4, "and the same again the second time"
    body = bodies[0]
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.7, 0.9, 5, 0.1)
    assert (body["presence_penalty"], body["stop"]) == (0.5, ["END"])
    assert "frequency_penalty" not in body


def test_stop_texts_and_loops_end_a_completion_as_in_our_engine(server: FaultyServer) -> None:
    ids = TOKENIZER.encode("one two three END four")
    server.answer = ends(*ids, finish="length")
    stopping = replace(REQUEST, sampling=Sampling(stop=("END",)), decode=TOKENIZER.decode)
    [completion] = answers(server, stopping)
    assert (completion.text, completion.finish) == ("one two three ", "stop")
    assert completion.token_count < len(ids)
    server.answer = ends(*([17, 18] * 100), finish="length")
    [completion] = answers(server, replace(REQUEST, max_new_tokens=200, loop_tokens=64))
    assert (completion.finish, completion.token_count) == ("loop", 64)


def test_requests_go_side_by_side_but_no_more_than_allowed(server: FaultyServer) -> None:
    server.hold = 0.02
    requests = [replace(REQUEST, sample=sample) for sample in range(30)]
    assert len(answers(server, *requests, concurrency=5)) == 30
    assert 3 <= server.most_at_once <= 5


def test_faults_amid_many_requests_change_nothing(server: FaultyServer) -> None:
    requests = [replace(REQUEST, id=f"game/{n}", prompt=(*PROMPT, 20 + n)) for n in range(20)]
    backend = endpoint(server, tries=12)  # all of them may meet one request, and the machine be busy
    backend.load(backend.abstract_params())
    list(backend.generate(requests[:1]))
    server.fail([429, "drop", 500, "cut", "few", "slow", "odd", 503, "text"])
    found = dict(backend.generate(requests))
    assert {request.prompt: completion.tokens for request, completion in found.items()} == {
        request.prompt: request.prompt for request in requests
    }


def test_a_server_that_dies_ends_it_with_what_had_come(server: FaultyServer) -> None:
    requests = [replace(REQUEST, sample=sample) for sample in range(9)]
    backend, came = endpoint(server, 1), []
    with pytest.raises(EndpointError, match="no answer in 3 tries"):
        for _, completion in backend.generate(requests):
            came.append(completion)
            if len(came) == 3:
                server.fail([500] * 100)
    assert 3 <= len(came) < 9


def test_a_prompt_that_the_server_reads_otherwise_is_refused(server: FaultyServer) -> None:
    server.unknown, server.counts_prompt = {"ids"}, True
    with pytest.raises(UsageError, match=rf"item game/1 as {len(TEXT)} tokens, not as its {len(PROMPT)}"):
        answers(server, REQUEST)


def test_what_cannot_be_answered_is_refused_at_once(server: FaultyServer) -> None:
    for request, message in (
        (replace(REQUEST, prompt=()), "a prompt of 0 tokens"),
        (replace(REQUEST, prompt=(10**6,)), "the tokenizer is not the model's"),
        (replace(REQUEST, logprobs=True), "an endpoint gives no log-probabilities"),
    ):
        with pytest.raises(UsageError, match=message):
            endpoint(server).generate([request])
    assert not server.bodies
    assert answers(server) == []


def test_what_records_call_it(server: FaultyServer) -> None:
    client = Client(server.url, "snapshot")
    assert identify(client) == "endpoint"
    server.owner = "vllm"
    assert identify(client) == "endpoint vllm"
    with pytest.raises(UsageError, match="does not serve base; it serves snapshot"):
        identify(Client(server.url, "base"))
