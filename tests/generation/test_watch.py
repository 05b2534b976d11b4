"""Stop texts and loops through the schedule and the engine."""

import numpy as np
import pytest

from jax_sft.config import Sampling, replace
from jax_sft.errors import UsageError
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.schedule import Schedule
from jax_sft.generation.sequences import Landed
from jax_sft.generation.shards import Shape
from tests.generation.tiny import engine, generate, greedy_requests, mixed_requests, naive_greedy


def letters(tokens: list[int]) -> str:
    """One character a token."""
    return "".join(chr(0x4E00 + token) for token in tokens)


def stopping(request: Request, completion: Completion) -> Request:
    """The request, to be stopped by the middle of its own completion, where it has one."""
    if not completion.tokens:
        return request
    middle = completion.tokens[len(completion.tokens) // 2 :][:2]
    return replace(request, sampling=replace(request.sampling, stop=(letters(list(middle)),)), decode=letters)


@pytest.mark.parametrize("slots", [3, 16])
def test_stop_texts_end_completions_and_their_neighbours_go_on(slots: int) -> None:
    plain = mixed_requests()
    want = generate(engine(slots=slots), plain)
    asked = [r if n % 3 else stopping(r, want[r.id, r.sample]) for n, r in enumerate(plain)]
    got = generate(engine(slots=slots), asked)
    cut = 0
    for request in asked:
        before, after = want[request.id, request.sample], got[request.id, request.sample]
        stop = "".join(request.sampling.stop)
        if not stop:
            assert after == before
            continue
        place = letters(list(before.tokens)).index(stop)
        assert after.text == letters(list(before.tokens))[:place]
        assert (after.finish, after.token_count) == ("stop", place + len(stop))
        assert after.tokens == before.tokens[: after.token_count]
        cut += len(before.tokens) > after.token_count
    assert cut > 5, "some would have gone on"


def test_a_slot_that_was_stopped_is_decoded_no_more() -> None:
    """The device's loop ends when no slot goes on: that of a stopped one must not keep it busy."""
    shared, calls = engine(stops=()), []
    [request] = [r for r in greedy_requests() if r.max_new_tokens == 63]
    whole = naive_greedy([request], stops=())[request.id, 0]
    wanted = replace(request, sampling=Sampling(stop=(letters(list(whole.tokens[1:3])),)), decode=letters)
    decode = shared._decode
    try:
        shared._decode = lambda *args: calls.append(bool(args[2].stops_B.any())) or decode(*args)
        [(_, found)] = [*generate(shared, [wanted, *greedy_requests()[:1]]).items()][:1]
    finally:
        shared._decode = decode
    assert found.token_count <= 5
    assert calls.count(True) == 1
    assert len(calls) < 8, "63 tokens are 13 chunks of 5"


def test_new_tokens_are_told_as_they_come() -> None:
    heard: dict[str, list[int]] = {}

    def listening(request: Request) -> Request:
        heard[request.id] = []
        return replace(request, listen=lambda new: heard[request.id].extend(new))

    got = generate(engine(), [listening(r) for r in greedy_requests()])
    assert got == naive_greedy(greedy_requests())
    for request in greedy_requests():
        found = got[request.id, 0]
        assert tuple(heard[request.id][: len(found.tokens)]) == found.tokens
        assert len(heard[request.id]) == found.token_count


def test_a_loop_ends_and_is_told_from_the_limit() -> None:
    """Made-up tokens in chunks of 48: a loop of period 2 after 40 tokens, beside one that counts."""
    asked = [
        Request("loop", 0, (1,), 1000, loop_tokens=128, logprobs=True),
        Request("free", 0, (1,), 1000),
        Request("counting", 0, (1,), 1000, loop_tokens=128),
    ]
    looping = [*range(40), *[50, 51] * 480]
    streams = {"loop": looping, "free": looping, "counting": [*range(1000)]}
    schedule = Schedule(asked, Shape(3, 3 * 32, 64, 2048, 48, 3, 64), stop_ids=(9999,))
    at, stopped = [list[int]()] * 3, list[int]()
    ended: dict[str, Completion] = {}
    logprobs_BC, made_B = np.full((3, 48), 0.5, np.float32), np.full(3, 48, np.int32)
    for start in range(0, 1000, 48):
        plan = schedule.plan()
        for slot, request in plan.starts:
            at[slot] = streams[request.id]
        stopped += np.flatnonzero(plan.stops_B).tolist()
        tokens_BC = np.array([(at[slot][start : start + 48] + [0] * 48)[:48] for slot in range(3)])
        going_on_B = np.full(3, start + 48 < 1000)
        made_B[:] = min(48, 1000 - start)
        ended |= {
            r.id: one for r, one in schedule.collect(Landed(tokens_BC, logprobs_BC, made_B, going_on_B))
        }
    assert list(ended) == ["loop", "free", "counting"]
    assert ended["loop"] == Completion(tuple(looping[:192]), 192, "loop", (0.5,) * 192)
    assert {ended[name].finish for name in ("free", "counting")} == {"length"}
    assert [at[slot] is looping for slot in stopped] == [True]
    assert not schedule.unfinished


def test_stop_texts_without_decoding_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="item a: stop texts need a request that can decode its tokens"):
        generate(engine(), [Request("a", 0, (1, 2), 4, Sampling(stop=("x",)))])
