"""Completions on disk: nothing lost, nothing doubled, whatever is found there."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from jax_sft.errors import UsageError
from jax_sft.evaluation import completions
from jax_sft.evaluation.completions import CompletionsFile
from jax_sft.study.records import CompletionLine, Key

SETTINGS = {"temperature": 0.7, "seed": 0}
EXPECTED: list[Key] = [(f"item {n}", sample) for n in range(5) for sample in range(2)]


def line(key: Key) -> CompletionLine:
    return CompletionLine(*key, f"text of {key}\n\u2028 « »", 3, "stop")


def row(key: Key) -> dict[str, Any]:
    return asdict(line(key))


def opened(folder: Path, samples: int = 2, **settings: Any) -> CompletionsFile:
    expected = [(f"item {n}", sample) for n in range(5) for sample in range(samples)]
    return CompletionsFile(epath.Path(folder), expected, SETTINGS | settings)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


@pytest.fixture
def partly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A unit that was killed with seven of ten completions in three parts."""
    monkeypatch.setattr(completions, "FLUSH_COUNT", 3)
    file = opened(tmp_path)
    for key in EXPECTED[:7]:
        file.add(line(key))
    file.flush()
    assert sorted(part.name for part in (tmp_path / "parts").iterdir()) == [
        "00000.jsonl",
        "00001.jsonl",
        "00002.jsonl",
    ]
    return tmp_path


def finish(folder: Path) -> None:
    """Draw what is missing, last first, and check the final file."""
    file = opened(folder)
    for key in reversed(file.missing()):
        file.add(line(key))
    assert rows_of(folder / "completions.jsonl") == [row(key) for key in EXPECTED]
    assert sorted(path.name for path in folder.iterdir()) == ["completions.jsonl", "sampling.json"]
    assert opened(folder).missing() == []


def test_the_whole_file_is_sorted_however_completions_came(tmp_path: Path) -> None:
    assert opened(tmp_path).missing() == EXPECTED
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"
    finish(tmp_path)
    assert json.loads((tmp_path / "sampling.json").read_text()) == SETTINGS


def test_a_killed_unit_misses_only_what_was_not_written(partly: Path) -> None:
    assert opened(partly).missing() == EXPECTED[7:]
    finish(partly)


def test_parts_of_a_second_attempt_do_not_overwrite_those_of_the_first(partly: Path) -> None:
    file = opened(partly)
    file.add(line(EXPECTED[9]))
    file.flush()
    assert (partly / "parts" / "00003.jsonl").exists()
    assert opened(partly).missing() == EXPECTED[7:9]


def test_a_unit_killed_before_its_parts_were_joined_or_removed(partly: Path) -> None:
    """All completions are in parts, or the final file and parts are both there."""
    file = opened(partly)
    for key in EXPECTED[7:9]:
        file.add(line(key))
    file.flush()
    (partly / "parts" / "00004.jsonl").write_text(json.dumps(row(EXPECTED[9])) + "\n")
    assert opened(partly).missing() == []
    assert rows_of(partly / "completions.jsonl") == [row(key) for key in EXPECTED]
    (partly / "parts").mkdir()
    (partly / "parts" / "00000.jsonl").write_text(json.dumps(row(EXPECTED[0])) + "\n")
    before = (partly / "completions.jsonl").read_bytes()
    assert opened(partly).missing() == []
    assert not (partly / "parts").exists()
    assert (partly / "completions.jsonl").read_bytes() == before


@pytest.mark.parametrize("size", [0, 1, 150, -5])
def test_a_torn_part_is_drawn_again_from_where_it_tears(partly: Path, size: int) -> None:
    part = partly / "parts" / "00001.jsonl"
    data = part.read_bytes()
    part.write_bytes(data[:size])
    sound = data[:size].count(b"\n")
    assert opened(partly).missing() == sorted(EXPECTED[3 + sound : 6] + EXPECTED[7:])
    finish(partly)


def test_damaged_and_unknown_files_among_the_parts(partly: Path) -> None:
    parts = partly / "parts"
    (parts / "00000.jsonl").write_bytes(b"\xff\xfe\x00 not text")
    (parts / "notes.txt").write_text("hello")
    (parts / "extra.jsonl").write_text("not a part")
    (parts / ".00005.jsonl.ab12cd34.tmp").write_text('{"item": "it')
    stranger = row(("no such item", 0))
    half = {"item": EXPECTED[8][0], "sample": EXPECTED[8][1]}
    (parts / "00007.jsonl").write_text(json.dumps(stranger) + "\n" + json.dumps(half) + "\n[1, 2]\n")
    assert opened(partly).missing() == EXPECTED[:3] + EXPECTED[7:]
    finish(partly)


def test_more_samples_miss_only_the_new_ones(tmp_path: Path) -> None:
    finish(tmp_path)
    file = opened(tmp_path, samples=3)
    assert file.missing() == [(f"item {n}", 2) for n in range(5)]
    file.add(line(("item 3", 2)))
    file.flush()
    assert len(opened(tmp_path, samples=3).missing()) == 4
    for key in file.missing():
        file.add(line(key))
    all_of_them = [row((f"item {n}", sample)) for n in range(5) for sample in range(3)]
    assert rows_of(tmp_path / "completions.jsonl") == all_of_them


def test_fewer_samples_are_refused(tmp_path: Path) -> None:
    finish(tmp_path)
    with pytest.raises(UsageError, match=r"completions.jsonl: holds item 'item 0' sample 1, which"):
        opened(tmp_path, samples=1)


@pytest.mark.parametrize("whole", [True, False])
def test_other_settings_are_refused(partly: Path, whole: bool) -> None:
    if whole:
        finish(partly)
    with pytest.raises(UsageError, match=r"was drawn with temperature 0.7, now it is 1.0; restore it"):
        opened(partly, temperature=1.0)


def test_a_malformed_final_file_is_named_with_its_line(tmp_path: Path) -> None:
    finish(tmp_path)
    with (tmp_path / "completions.jsonl").open("a") as stream:
        stream.write('{"item": "it')
    with pytest.raises(UsageError, match=r"completions.jsonl, line 11: not JSON"):
        opened(tmp_path)


def test_completions_are_written_after_a_while_even_when_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "FLUSH_SECONDS", 0.0)
    file = opened(tmp_path)
    file.add(line(EXPECTED[4]))
    assert rows_of(tmp_path / "parts" / "00000.jsonl") == [row(EXPECTED[4])]
