"""What completions were like, and how long they took."""

import time
from pathlib import Path

import pytest
from etils import epath

from jax_sft.errors import UsageError
from jax_sft.evaluation.outputs import Clock, measure_outputs, read_seconds
from jax_sft.study.outputs import Outputs
from jax_sft.study.records import CompletionLine


def test_outputs_are_counted() -> None:
    texts = [
        "<think>\n1\n</think>\n2",
        "<think>\nand so on " + "again and again, " * 20,
        "plain",
        "</think> late <think>",
    ]
    lines = [
        CompletionLine("a", 0, texts[0], 10, "stop"),
        CompletionLine("a", 1, texts[1], 40, "length"),
        CompletionLine("b", 0, texts[2], 5, "stop"),
        CompletionLine("b", 1, texts[3], 25, "stop"),
    ]
    found = measure_outputs(lines, texts, 1.5)
    assert found == Outputs(
        samples=2,
        median_tokens=17.5,
        total_tokens=80,
        unfinished_rate=0.25,
        loop_rate=0.25,
        thought_rate=0.75,
        well_formed_rate=pytest.approx(1 / 3),
        seconds=1.5,
    )
    assert measure_outputs(lines[2:3], texts[2:3], None).well_formed_rate is None
    assert measure_outputs([], [], None) == Outputs()


def test_time_is_shared_out_by_tokens_and_adds_up_over_sweeps(tmp_path: Path) -> None:
    short, long = epath.Path(tmp_path / "short"), epath.Path(tmp_path / "long")
    assert read_seconds(short) is None
    for _ in range(2):
        clock = Clock()
        clock.count(short, 10)
        clock.count(long, 20)
        clock.count(long, 10)
        time.sleep(0.02)
        clock.write()
    seconds = [read_seconds(short), read_seconds(long)]
    assert seconds[0] is not None
    assert 0.01 <= seconds[0] < 5
    assert seconds[1] == pytest.approx(3 * seconds[0], rel=1e-6)
    (tmp_path / "short" / "timing.json").write_text("[]")
    with pytest.raises(UsageError, match=r"short/timing.json: expected an object"):
        read_seconds(short)
