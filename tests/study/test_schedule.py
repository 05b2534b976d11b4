"""Snapshot schedules: every piece of the grammar, and every way to get one wrong."""

import pytest

from jax_sft.errors import UsageError
from jax_sft.study.schedule import snapshot_steps

pytestmark = pytest.mark.short


@pytest.mark.parametrize(
    ("schedule", "total", "per_epoch", "steps"),
    [
        ("0,10,20,40,80,160,320,480,640", 640, 80, [0, 10, 20, 40, 80, 160, 320, 480, 640]),
        ("last", 7, 7, [7]),
        ("0, last", 640, 80, [0, 640]),
        ("every 80", 640, 80, [80, 160, 240, 320, 400, 480, 560, 640]),
        ("every 80", 200, 80, [80, 160]),
        ("every 10 until 40, every 80", 200, 80, [10, 20, 30, 40, 80, 160]),
        ("0, every 10 until 35, every 20 until 60", 100, 80, [0, 10, 20, 30, 40, 60]),
        ("25%, 50 %, 100%", 640, 80, [160, 320, 640]),
        ("12.5%", 100, 80, [13]),
        ("0%", 100, 80, [0]),
        ("1 epoch, 1.5 epochs, 2 epochs", 640, 80, [80, 120, 160]),
        ("0.5 epochs", 27, 9, [5]),
        ("40, last, 40, 0", 40, 80, [0, 40]),
        ("  3 ,last  ", 9, 9, [3, 9]),
        ("3, last,", 9, 9, [3, 9]),
        ("3, last , ", 9, 9, [3, 9]),
    ],
)
def test_schedules(schedule: str, total: int, per_epoch: float, steps: list[int]) -> None:
    assert snapshot_steps(schedule, total, per_epoch) == steps


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("0, 700", "`700` is step 700, beyond the end of training at step 640"),
        ("every 10 until 700", "`every 10 until 700` is step 700, beyond the end of training at step 640"),
        ("101%", "`101%` is step 646, beyond the end"),
        ("9 epochs", "`9 epochs` is step 720, beyond the end"),
        ("every 0", "`every 0`: the interval must be at least 1"),
        ("every", "`every` is not understood; pieces are"),
        ("every -5", "`every -5` is not understood"),
        ("-1", "`-1` is not understood"),
        ("1.5", "`1.5` is not understood"),
        ("first", "`first` is not understood"),
        ("10,,20", "`` is not understood"),
        ("", "`` is not understood"),
        (",", "`` is not understood"),
        ("10,,", "`` is not understood"),
        ("²", "`²` is not understood"),
        ("every 641", "`every 641` names no step of a run of 640"),
    ],
)
def test_errors_name_the_piece(schedule: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        snapshot_steps(schedule, 640, 80)
    assert str(caught.value).startswith(f"snapshots.schedule: {message}")
    assert "\n" not in str(caught.value)
