"""Who is admitted when, where and in which pages, on made-up requests by the thousand; no device, no jax."""

import random
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from jax_sft.config import replace
from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.pages import Book, prefix_keys
from jax_sft.generation.schedule import Schedule
from jax_sft.generation.sequences import Landed
from jax_sft.generation.shards import Shape
from tests.generation.device import STOP, Device, answer

pytestmark = pytest.mark.short

SHAPE = Shape(16, 16 * 16, 16, 256, 8, 4, 32)


def requests(count: int, samples: int = 1, seed: int = 0, common: int = 0) -> list[Request]:
    """Prompts of many lengths, each asked `samples` times in a row, the first tokens all the same."""
    rng = random.Random(seed)
    beginning = tuple(range(1000, 1000 + common))
    prompts = [
        beginning + tuple(rng.randrange(100, 200) for _ in range(rng.randint(1, 200 - common)))
        for _ in range(count)
    ]
    limits = [rng.randint(1, 40) for _ in prompts]
    return [
        Request(f"task/{number}", sample, prompt, limit)
        for number, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
        for sample in range(samples)
    ]


def run(asked: list[Request], shape: Shape = SHAPE, ahead: int = 0) -> tuple[Device, Schedule, list[Any]]:
    device, schedule = Device(shape), Schedule(asked, shape, (STOP,))
    ended = device.run(schedule, ahead)
    for shard in schedule.shards:
        assert shard.vacant
        assert shard.book.free == shard.book.pages
    return device, schedule, ended


def expected(request: Request) -> Completion:
    tokens = answer(request)
    stopped = tokens[-1] == STOP
    return Completion(tuple(tokens[:-1] if stopped else tokens), len(tokens), "stop" if stopped else "length")


SHAPES = {
    "one slot": Shape(1, 16, 16, 256, 8, 1, 32),
    "many": SHAPE,
    "four shards": Shape(16, 256, 16, 256, 8, 4, 32, shards=4),
    "a quarter of the memory": replace(SHAPE, pages=64),
    "least memory": replace(SHAPE, pages=16),
    "in parts": replace(SHAPE, part=64),
    "four shards in parts": Shape(16, 256, 16, 256, 8, 4, 32, shards=4, part=16),
    "long pages": Shape(300, 300 * 4, 64, 256, 32, 8, 128),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("ahead", [0, 1])
def test_every_request_is_answered_once_and_by_its_own_tokens(name: str, samples: int, ahead: int) -> None:
    """Whatever the memory: its pages hold its prompt when it starts, and nobody else writes to them."""
    asked = requests((300 if "least" in name else 1000) // samples, samples, common=40)
    _, _, ended = run(asked, SHAPES[name], ahead)
    assert Counter(request for request, _ in ended) == Counter(asked)
    assert all(completion == expected(request) for request, completion in ended)


def test_when_memory_runs_out_the_youngest_waits_again() -> None:
    """Sequences that nobody expected to be long, in pages for few of them."""
    asked = [replace(r, prompt=(1, 2), max_new_tokens=200, expected_tokens=1) for r in requests(12)]
    shape = replace(SHAPE, slots=8, pages=16)
    device, schedule, ended = run(asked, shape)
    assert schedule.preemptions >= 1
    assert all(completion == expected(request) for request, completion in ended)
    starts = Counter(device.starts)
    assert starts[asked[0].id] == 1, "the oldest keeps its memory"
    assert 12 < starts.total() <= 12 + schedule.preemptions


def test_samples_and_items_with_a_common_beginning_share_prefill_and_pages() -> None:
    shape = replace(SHAPE, slots=64, pages=64 * 16)
    asked = requests(40, samples=8, common=100)
    device, _, _ = run(asked, shape)
    alone = sum(len(request.prompt) - 1 for request in asked)
    own = sum(len(request.prompt) - 1 - 96 for request in asked[::8])  # six pages are everybody's
    assert own < device.prefilled < 1.5 * (own + 96) < alone / 5
    schedule = Schedule(asked, shape, ())
    schedule.plan()
    [shard] = schedule.shards
    held = sum(shard.book.pages - shard.book.free for shard in schedule.shards)
    assert shard.book.shared() >= 6
    assert held < sum(-(-len(r.prompt) // 16) for r in asked[:64]) / 2


@pytest.mark.parametrize(
    "asked", [requests(16), [Request(f"t/{n}", 0, (1,), 10 + 12 * n) for n in range(16)]]
)
def test_pages_in_use_lie_in_few_parts(asked: list[Request]) -> None:
    """As sequences of unequal lengths end, what the others have moves together."""

    def parts(shape: Shape) -> tuple[int, int]:
        """Of 16 pages, at all chunks: those that were read, and how few could have been."""
        device, schedule, read, least = Device(shape), Schedule(asked, shape, (STOP,)), 0, 0
        while schedule.unfinished:
            plan = schedule.plan()
            device.prefill(plan)
            if plan.busy:
                device.turn(plan)
                alive = {
                    int(plan.table_BN[slot, nth])
                    for slot in range(shape.slots)
                    if device.left[slot]
                    for nth in range(-(-device.position[slot] // shape.page))
                }
                read, least = read + len({page // 16 for page in alive}), least - (-len(alive) // 16)
                schedule.collect(device.decode(plan))
        return read, least

    read, least = parts(replace(SHAPE, part=16))
    assert least <= read <= 1.1 * least
    assert read < parts(SHAPE)[0]


def test_who_is_expected_to_take_longest_goes_first() -> None:
    asked = [replace(r, prompt=(1,), expected_tokens=n % 7 * 5) for n, r in enumerate(requests(200))]
    device, _, _ = run(asked)

    def longest(request: Request) -> int:
        return min(request.expected_tokens or request.max_new_tokens, request.max_new_tokens)

    assert device.starts == [request.id for request in sorted(asked, key=longest, reverse=True)]


@pytest.mark.parametrize("ahead", [0, 1])
def test_slots_are_busy_nine_tenths_of_the_time(ahead: int) -> None:
    """200 items whose lengths differ 20-fold, as log-normal as the paper's; nobody knows them before."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(450), 0.7, 200)), 100, 2000).astype(int)
    asked = [Request(f"task/{n}", 0, (1,) * 64, int(length)) for n, length in enumerate(lengths)]
    shape = Shape(16, 16 * 34, 64, 64 + 2000, 16, 4, 64)

    class Whole(Device):
        def turn(self, plan: Any) -> None:
            super().turn(plan)
            for slot, request in plan.starts:
                self.left[slot] = [100] * (request.max_new_tokens - 1) + [STOP]

    schedule = Schedule(asked, shape, (STOP,))
    assert len(Whole(shape).run(schedule, ahead)) == 200
    assert schedule.made / schedule.room >= 0.9


def test_prompts_do_not_stall_those_that_decode() -> None:
    """Long prompts that come while others decode are prefilled a few chunks at a time."""
    shape = Shape(4, 4 * 64, 64, 4096, 16, 1, 128)
    asked = [
        Request("task/0", 0, (1, 2), 2000),
        *(Request(f"task/{n}", 0, (n,) * 3000, 80) for n in range(1, 9)),
    ]
    schedule, device = Schedule(asked, shape, ()), Device(shape)
    first = schedule.plan()
    assert len(first.prefills) >= 24, "nobody decodes yet"
    device.prefill(first)
    device.turn(first)
    schedule.collect(device.decode(first))
    while schedule.unfinished:
        decoding = any(device.left)
        plan = schedule.plan()
        assert len(plan.prefills) <= 2 or not decoding
        device.prefill(plan)
        if plan.busy:
            device.turn(plan)
            schedule.collect(device.decode(plan))


def instant(shape: Shape, schedule: Schedule) -> tuple[int, float]:
    """Tokens and seconds of a schedule with devices that take no time, at made-up lengths."""
    B, C = shape.slots, shape.chunk
    left_B, tokens_BC, logprobs_BC = np.zeros(B, np.int64), np.full((B, C), 100, np.int32), np.zeros((B, C))
    rng, tokens, start = np.random.default_rng(0), 0, time.perf_counter()
    while schedule.unfinished:
        plan = schedule.plan()
        left_B[plan.stops_B] = 0
        for slot, _ in plan.starts:
            left_B[slot] = rng.integers(200, 2000)
        made_B = np.minimum(left_B, C)
        left_B -= made_B
        tokens += int(made_B.sum())
        schedule.collect(Landed(tokens_BC, logprobs_BC, made_B, left_B > 0))
    return tokens, time.perf_counter() - start


def test_the_host_hands_out_two_hundred_thousand_tokens_a_second() -> None:
    """With 256 slots and in a fifth of the time, so that a busy machine is no failure: a million, alone."""
    shape = Shape(256, 256 * 34, 64, 2176, 32, 8, 256)
    asked = [Request(f"task/{n}", 0, (n % 50,) * 100, 2000, loop_tokens=0) for n in range(1000)]
    tokens, seconds = instant(shape, Schedule(asked, shape, (STOP,)))
    assert tokens > 900_000
    assert tokens / seconds > 200_000


def test_the_book_hands_out_the_lowest_free_pages() -> None:
    book = Book(6)
    assert book.take(3) == [0, 1, 2]
    book.name(1, b"one")
    book.hold(1)
    book.release([0, 1, 2])
    assert (book.free, book.find(b"one")) == (5, 1)
    assert book.take(2) == [0, 2]
    book.release([1])
    assert book.find(b"one") is None
    assert book.take(2) == [1, 3]


def test_names_of_pages_are_equal_for_equal_beginnings() -> None:
    a, b = prefix_keys(range(50), 16), prefix_keys([*range(40), 1], 16)
    assert len(a.full) == 3
    assert a.full[:2] == b.full[:2]
    assert len(b.full) == 2
    assert a.tail != b.tail
    assert prefix_keys(range(48), 16) == (a.full, None)
    assert prefix_keys([0] * 16, 16).full[0] != prefix_keys([0] * 32, 16).full[1]


def test_nothing_asked_is_nothing_to_do() -> None:
    schedule = Schedule((), SHAPE, ())
    assert not schedule.unfinished
    assert not schedule.plan().busy


def test_the_scheduler_does_without_jax() -> None:
    code = "import sys, jax_sft.generation.schedule; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
