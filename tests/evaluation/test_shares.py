"""Units shared among workers: all of them, each once, as evenly as can be, whoever asks and whenever."""

import re
from collections import Counter

import pytest

from jax_sft.config import BenchmarkConfig
from jax_sft.errors import UsageError
from jax_sft.evaluation.shares import INDICES, Worker, expected_tokens, share_of_run
from jax_sft.study.records import Item

STEPS = [0, 10, 20, 30, 40, 80, 160, 320, 640]
TOKENS = {"math500": 500 * 32, "aime24": 300 * 32, "mmlu": 1000 * 2, "ifeval": 541 * 2, "xstest": 450 * 1}


def shares(count: int, place: int = 0, steps: list[int] = STEPS) -> list[set[tuple[int, str]]]:
    return [share_of_run(Worker(index, count), steps, TOKENS, place) for index in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 9, 16, 45, 60])
@pytest.mark.parametrize("place", [0, 2])
def test_every_unit_is_one_workers(count: int, place: int) -> None:
    owners = Counter(unit for share in shares(count, place) for unit in share)
    assert owners == Counter((step, name) for step in STEPS for name in TOKENS)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 16])
def test_workers_have_equally_much_to_do(count: int) -> None:
    """No worker has more than its part and the longest unit."""
    loads = [sum(TOKENS[name] for _, name in share) for share in shares(count)]
    assert max(loads) <= len(STEPS) * sum(TOKENS.values()) / count + max(TOKENS.values())


def test_snapshots_are_dealt_whole_as_far_as_that_goes() -> None:
    """Of nine snapshots four workers have two each; the ninth is shared by its benchmarks."""
    reads = [Counter(step for step, _ in share) for share in shares(4)]
    assert all(list(read.values()).count(len(TOKENS)) == 2 and len(read) <= 3 for read in reads)
    early = [sum(step <= 40 for step in read) for read in reads]
    assert max(early) - min(early) <= 1, "those around the dip, which take long, are not one worker's"


def test_a_longer_list_of_steps_or_other_runs_do_not_matter_to_a_run() -> None:
    assert shares(3, steps=STEPS[::-1]) == shares(3)
    assert shares(3, place=0) != shares(3, place=1), "what is left over goes to another worker for each run"


def test_expected_tokens_are_those_of_all_samples_at_their_longest() -> None:
    items = [Item(str(number), (), {}) for number in range(7)]
    asked = [(BenchmarkConfig("a", "gsm8k", samples=3, max_new_tokens=10), items)]
    assert expected_tokens(asked) == {"a": 210}


def test_hosts_of_a_worker_are_workers() -> None:
    hosts = {Worker(index, 3).host(host, 4) for index in range(3) for host in range(4)}
    assert hosts == {Worker(index, 12) for index in range(12)}


def test_what_worker_is_written_as() -> None:
    assert Worker.parse("") == Worker(0, 1)
    assert Worker.parse("2/3") == Worker(2, 3)
    for name in INDICES:
        assert Worker.parse("auto/8", {name: "5"}) == Worker(5, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3/3", "--worker 3/3: 3 of 3 is none; indices count from 0, and the last of 3 is 2/3"),
        ("0/0", "--worker 0/0: 0 of 0 is none; indices count from 0, and there is at least one"),
        ("1", "--worker 1: write INDEX/COUNT such as 0/3, or auto/3"),
        ("-1/3", "--worker -1/3: write INDEX/COUNT such as 0/3, or auto/3"),
        ("auto/3", f"--worker auto/3: none of {', '.join(INDICES)} says an index; write it out"),
    ],
)
def test_a_worker_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        Worker.parse(text, {})


def test_an_index_of_the_job_beyond_the_workers_is_refused() -> None:
    with pytest.raises(UsageError, match=r"auto/3: 3 of 3 is none; indices count from 0"):
        Worker.parse("auto/3", {"JOB_COMPLETION_INDEX": "3"})
