"""A call that hangs, dies, raises or eats memory costs itself only."""

import os
import time

import pytest

from jax_sft.responses.workers import Limits, Workers, run_here


def misbehave(how: str) -> str:
    if how == "hang":
        time.sleep(60)
    if how == "die":
        os._exit(3)
    if how == "raise":
        raise ValueError(how)
    if how == "eat":
        return str(len(bytearray(1 << 31)))
    return how


def warm() -> None:
    os.environ["WARM"] = "yes"


def is_warm() -> str | None:
    return os.environ.get("WARM")


def test_a_bad_call_costs_itself_only() -> None:
    calls = [(how,) for how in ("fine", "hang", "die", "raise", "eat", "well")]
    with Workers(Limits(processes=2, seconds=3, memory=1.5)) as workers:
        outcomes = list(workers.run(misbehave, calls))
        assert list(workers.run(is_warm, [(), ()], warm)) == [("done", "yes")] * 2
        again = list(workers.run(misbehave, calls[:1]))
    assert outcomes[0] == ("done", "fine")
    assert [outcome for outcome, _ in outcomes[1:5]] == ["timeout", "crashed", "error", "error"]
    assert isinstance(outcomes[4][1], MemoryError)
    assert outcomes[5] == ("done", "well")
    assert again == [("done", "fine")]


def test_no_process_starts_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax_sft.responses.workers.ProcessPool", None)
    with Workers(Limits()):
        outcomes = list(run_here(misbehave, [("fine",), ("raise",)]))
    assert outcomes[0] == ("done", "fine")
    assert outcomes[1][0] == "error"
