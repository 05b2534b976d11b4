"""The client of OpenAI-compatible servers: what it asks again, what it refuses, and what it then says."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from jax_sft.errors import UsageError
from jax_sft.generation import client as clients
from jax_sft.generation.client import Choice, Client, EndpointError, Refused
from tests.generation.server import FaultyServer


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        yield running


@pytest.fixture
def client(server: FaultyServer) -> Client:
    return Client(server.url, "snapshot", timeout=0.3, tries=4, first_pause=0.001)


PROMPT = (5, 6, 7)
ANSWER = [Choice("", "length", PROMPT, 3, 3)]


def test_one_completion(server: FaultyServer, client: Client) -> None:
    assert client.complete(PROMPT, {"temperature": 0.5}) == ANSWER
    assert server.bodies == [{"model": "snapshot", "prompt": [5, 6, 7], "temperature": 0.5}]
    assert "Authorization" not in server.headers[0]


def test_a_conversation(server: FaultyServer, client: Client) -> None:
    server.answer = lambda messages: {
        "message": {"content": f"{len(messages)} turns"},
        "finish_reason": "stop",
    }
    [choice] = client.chat([{"role": "user", "content": "hello"}])
    assert (choice.text, choice.finish, choice.token_ids) == ("1 turns", "stop", None)


def test_the_key_is_sent_where_there_is_one(
    server: FaultyServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(clients.KEY_VARIABLE, "secret")
    client.complete("hello")
    assert server.headers[0]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "fault", [408, 409, 425, 429, 500, 502, 503, 504, "drop", "cut", "slow", "few", "odd", "text"]
)
def test_what_goes_wrong_for_a_while_is_asked_again(
    server: FaultyServer, client: Client, fault: int | str
) -> None:
    server.fail([fault, fault])
    assert client.complete(PROMPT) == ANSWER
    assert len(server.bodies) == 3


def test_a_server_that_says_when_to_come_back_is_heeded(
    server: FaultyServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(clients, "time", SimpleNamespace(sleep=pauses.append))
    server.fail(["busy", 429, 503])
    assert replace(client, first_pause=0.2).complete(PROMPT) == ANSWER
    assert pauses[0] == 1
    assert 0.2 <= pauses[1] <= 0.4
    assert 0.4 <= pauses[2] <= 0.8, "twice as long each time, less up to a half"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (429, r"no answer in 4 tries, the last ended with 429: not now; see to the server"),
        (500, r"no answer in 4 tries, the last ended with 500: not now"),
        ("drop", r"no answer in 4 tries, the last ended with Remote end closed connection"),
        ("cut", r"no answer in 4 tries, the last ended with IncompleteRead"),
        ("slow", r"no answer in 4 tries, the last ended with timed out"),
        ("text", r"no answer in 4 tries, the last ended with Expecting value"),
        ("few", r"gave 0 of 1 completions in 4 answers$"),
        ("odd", r"gave 0 of 1 completions in 4 answers, one ended by abort"),
    ],
)
def test_what_goes_wrong_for_good_is_one_clear_line(
    server: FaultyServer, client: Client, fault: int | str, message: str
) -> None:
    server.fail([fault] * 9)
    with pytest.raises(EndpointError, match=message) as caught:
        client.complete(PROMPT)
    assert "\n" not in str(caught.value)
    assert server.url in str(caught.value)
    assert len(server.bodies) == 4


def test_a_server_that_is_not_there(client: Client) -> None:
    with FaultyServer() as gone:
        url = gone.url
    with pytest.raises(EndpointError, match=r"no answer in 4 tries, the last ended with .*refused"):
        replace(client, url=url).complete(PROMPT)


def test_what_is_refused_is_not_asked_again(server: FaultyServer, client: Client) -> None:
    server.unknown = {"top_k"}
    with pytest.raises(Refused, match=r"refused completions with 422: unexpected fields \['top_k'\]"):
        client.complete(PROMPT, {"top_k": 3})
    assert len(server.bodies) == 1


def test_too_few_completions_are_asked_again_by_another_seed(server: FaultyServer, client: Client) -> None:
    server.most_choices = 2
    assert len(client.complete(PROMPT, {"seed": 7}, n=5)) == 5
    assert [(body.get("n"), body["seed"]) for body in server.bodies] == [(5, 7), (3, 9), (None, 11)]
    server.most_choices = 99
    assert len(client.complete(PROMPT, n=3)) == 3


def test_a_server_of_another_model_is_refused(server: FaultyServer, client: Client) -> None:
    assert client.check_model() == "tests"
    server.listed = ["base", "other"]
    with pytest.raises(UsageError, match=r"/v1: does not serve snapshot; it serves base, other$"):
        client.check_model()
    server.listed = None
    assert client.check_model() == ""
    server.names = "base"
    with pytest.raises(UsageError, match=r"answers as base, not as snapshot"):
        client.complete(PROMPT)
    server.names = "snapshot@main"
    assert client.complete(PROMPT) == ANSWER


def test_the_list_of_models_is_asked_again_too(server: FaultyServer, client: Client) -> None:
    server.fail([503, 503])
    assert client.check_model() == "tests"


@pytest.mark.parametrize(
    ("url", "model", "message"),
    [
        ("localhost:8000", "m", r"endpoint 'localhost:8000': write a URL such as"),
        ("http://localhost", "", "name the model"),
    ],
)
def test_what_is_no_endpoint(url: str, model: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Client(url, model)
