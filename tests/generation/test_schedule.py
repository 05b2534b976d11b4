"""Who is admitted when and where, on made-up requests by the thousand; no device has a part in it."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from jax_sft.generation.backend import Completion, Request
from jax_sft.generation.schedule import Admission, Schedule, bucket

pytestmark = pytest.mark.short

STOP = 7
CONTEXT = 256


def requests(count: int, samples: int = 1, seed: int = 0) -> list[Request]:
    """Prompts of many lengths, each asked `samples` times in a row."""
    rng = random.Random(seed)
    prompts = [tuple(rng.randrange(100, 200) for _ in range(rng.randint(1, 200))) for _ in range(count)]
    return [
        Request(f"item {number}", sample, prompt, rng.randint(1, 40))
        for number, prompt in enumerate(prompts)
        for sample in range(samples)
    ]


def answer(request: Request) -> list[int]:
    """New tokens of a request, as a device would make them: to its limit, or to a stop token before."""
    rng = random.Random(request.id + str(request.sample))
    length = rng.randint(1, request.max_new_tokens)
    return [100] * (length - 1) + [STOP if length < request.max_new_tokens else rng.choice([STOP, 100])]


class Device:
    """Stands in for the engine: gives every slot a chunk of its answer, and notes who was where."""

    def __init__(self, slots: int, chunk: int = 8) -> None:
        self.left: list[list[int]] = [[] for _ in range(slots)]
        self.admissions: list[Admission] = []
        self.chunk = chunk

    def run(self, schedule: Schedule) -> list[tuple[Request, Completion]]:
        ended = []
        while schedule.unfinished:
            while admission := schedule.admit():
                self.admissions.append(admission)
                for start in admission.starts:
                    assert not self.left[start.slot], "the slot is taken"
                    self.left[start.slot] = answer(start.request)
            new = [tokens[: self.chunk] for tokens in self.left]
            self.left = [tokens[self.chunk :] for tokens in self.left]
            ended += schedule.collect(new, [bool(tokens) for tokens in self.left])
        return ended


def run(
    asked: Sequence[Request], slots: int = 16, rows: int = 4
) -> tuple[list[Admission], list[tuple[Request, Completion]]]:
    device = Device(slots)
    ended = device.run(Schedule(asked, slots, rows, CONTEXT, (STOP,)))
    return device.admissions, ended


@pytest.mark.parametrize(("slots", "rows"), [(1, 1), (16, 4), (300, 8)])
@pytest.mark.parametrize("samples", [1, 5])
def test_every_request_is_answered_once_and_by_its_own_tokens(slots: int, rows: int, samples: int) -> None:
    asked = requests(3000 // samples, samples)
    _, ended = run(asked, slots, rows)
    assert Counter(request for request, _ in ended) == Counter(asked)
    for request, completion in ended:
        tokens = answer(request)
        stopped = tokens[-1] == STOP
        assert completion == Completion(
            tuple(tokens[:-1] if stopped else tokens), len(tokens), "stop" if stopped else "length"
        )


@pytest.mark.parametrize("samples", [1, 5])
def test_admissions_keep_the_order_and_fit_their_prefill(samples: int) -> None:
    asked = requests(1000, samples)
    admissions, _ = run(asked)
    assert [start.request for admission in admissions for start in admission.starts] == asked
    for admission in admissions:
        assert 1 <= len(admission.prompts) <= 4
        assert len({start.slot for start in admission.starts}) == len(admission.starts)
        assert [admission.prompts[start.row] for start in admission.starts] == [
            start.request.prompt for start in admission.starts
        ]
        assert {bucket(prompt, CONTEXT) for prompt in admission.prompts} == {admission.columns}


def test_samples_of_one_prompt_share_a_row() -> None:
    admissions, _ = run(requests(100, samples=8), slots=64)
    assert all(len(set(admission.prompts)) == len(admission.prompts) for admission in admissions)
    rows = sum(len(admission.prompts) for admission in admissions)
    assert rows < 150, "of 800 requests; an item is prefilled again only where its samples were parted"


def test_a_slot_is_refilled_as_soon_as_it_is_free() -> None:
    schedule = Schedule(requests(50), 4, 8, CONTEXT, (STOP,))
    while admission := schedule.admit():
        pass
    assert schedule.admit() is None, "all slots are taken"
    assert len(schedule.collect([[100]] * 4, [True, False, True, True])) == 1
    admission = schedule.admit()
    assert admission is not None
    assert [start.slot for start in admission.starts] == [1]


def test_nothing_asked_is_nothing_to_do() -> None:
    schedule = Schedule((), 4, 2, CONTEXT, ())
    assert not schedule.unfinished
    assert schedule.admit() is None


@pytest.mark.parametrize(
    ("length", "columns"), [(1, 32), (33, 32), (34, 64), (65, 64), (66, 128), (200, 200), (201, 200)]
)
def test_buckets_are_powers_of_two_up_to_the_context(length: int, columns: int) -> None:
    """A prompt of n tokens prefills n - 1."""
    assert bucket(range(length), 200) == columns


def test_the_scheduler_does_without_jax() -> None:
    code = "import sys, jax_sft.generation.schedule; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
