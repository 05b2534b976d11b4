"""metrics.jsonl over crashes: each step once, nothing lost, nothing torn."""

import json
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from jax_sft.errors import UsageError
from jax_sft.training.metrics import MetricsLog

pytestmark = pytest.mark.short


def line(step: int, loss: float | None = 1.5) -> dict[str, Any]:
    return {"step": step, "loss": loss, "skipped": 0}


def write(folder: Path, start: int, *lines: dict[str, Any]) -> None:
    log = MetricsLog(epath.Path(folder), start)
    for each in lines:
        log.write(each)
    log.close()


def steps(folder: Path) -> list[int]:
    return [json.loads(text)["step"] for text in (folder / "metrics.jsonl").read_text().splitlines()]


def test_lines_of_steps_that_are_redone_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, 0, *map(line, range(1, 8)))
    write(tmp_path, 5, line(6, 2.5))
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["loss"] == 2.5


def test_productive_seconds_are_those_of_the_lines_that_stay(tmp_path: Path) -> None:
    seconds = (0.0, 1.5, 2.0, 4.0)
    write(tmp_path, 0, *(line(step) | {"productive_seconds": each} for step, each in enumerate(seconds, 1)))
    log = MetricsLog(epath.Path(tmp_path), 3)
    log.close()
    assert log.productive_seconds == 3.5


def test_lines_are_there_before_the_log_is_closed(tmp_path: Path) -> None:
    log = MetricsLog(epath.Path(tmp_path), 0)
    log.write(line(1))
    assert steps(tmp_path) == [1]
    log.close()


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "{", '{"step": 3, "loss": 1.0}'])
def test_a_last_line_that_was_cut_off_is_removed(tmp_path: Path, torn: str) -> None:
    write(tmp_path, 0, line(1), line(2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    write(tmp_path, 2, line(3))
    assert steps(tmp_path) == [1, 2, 3]


def test_a_file_of_nothing_but_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"st')
    write(tmp_path, 0, line(1))
    assert steps(tmp_path) == [1]


def test_damage_elsewhere_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UsageError, match=r"metrics.jsonl, line 2: not JSON"):
        MetricsLog(epath.Path(tmp_path), 3)


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    write(tmp_path, 0, line(1, None))
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None, "skipped": 0}
