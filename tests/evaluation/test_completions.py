"""Completions on disk: nothing lost, nothing doubled, whatever is found there."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jax_sft.errors import UsageError
from jax_sft.evaluation import completions
from jax_sft.study.records import Key, UnitRecord
from tests.evaluation.unit_files import (
    EXPECTED,
    RECORD,
    SETTINGS,
    aside,
    finish,
    line,
    opened,
    parts,
    row,
    rows_of,
)


@pytest.fixture
def partly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A unit that was killed with seven of ten completions in three parts."""
    monkeypatch.setattr(completions, "FLUSH_COUNT", 3)
    file = opened(tmp_path)
    for key in EXPECTED[:7]:
        file.add(line(key))
    file.flush()
    # Renamed as versions before workers named them.
    for part, name in zip(parts(tmp_path), ("00000.jsonl", "00001.jsonl", "00002.jsonl"), strict=True):
        part.rename(part.with_name(name))
    return tmp_path


def test_the_whole_file_is_sorted_however_completions_came(tmp_path: Path) -> None:
    assert opened(tmp_path).missing() == EXPECTED
    assert list(tmp_path.iterdir()) == [], "looking leaves nothing behind"
    finish(tmp_path)
    written = UnitRecord.read(tmp_path / "unit")
    assert written is not None
    assert replace(written, lines=()) == RECORD
    assert len(set(written.lines)) == len(EXPECTED)


def test_a_killed_unit_misses_only_what_was_not_written(partly: Path) -> None:
    assert opened(partly).missing() == EXPECTED[7:]
    finish(partly)


def test_parts_of_a_second_attempt_do_not_overwrite_those_of_the_first(partly: Path) -> None:
    file = opened(partly)
    file.add(line(EXPECTED[9]))
    file.flush()
    assert [part.name[:5] for part in parts(partly)] == ["00000", "00001", "00002", "00003"]
    assert opened(partly).missing() == EXPECTED[7:9]


def test_a_unit_killed_before_its_parts_were_joined_or_removed(partly: Path) -> None:
    """All completions are in parts, or the final file and parts are both there."""
    file = opened(partly)
    for key in EXPECTED[7:9]:
        file.add(line(key))
    file.flush()
    (partly / "unit" / "parts" / "00004.jsonl").write_text(json.dumps(row(EXPECTED[9])) + "\n")
    assert opened(partly).missing() == []
    assert rows_of(partly / "unit" / "completions.jsonl") == [row(key) for key in EXPECTED]
    (partly / "unit" / "parts").mkdir()
    (partly / "unit" / "parts" / "00000.jsonl").write_text(json.dumps(row(EXPECTED[0])) + "\n")
    before = (partly / "unit" / "completions.jsonl").read_bytes()
    assert opened(partly).missing() == []
    assert not (partly / "unit" / "parts").exists()
    assert (partly / "unit" / "completions.jsonl").read_bytes() == before


@pytest.mark.parametrize("size", [0, 1, 150, -5])
def test_a_torn_part_is_drawn_again_from_where_it_tears(partly: Path, size: int) -> None:
    part = partly / "unit" / "parts" / "00001.jsonl"
    data = part.read_bytes()
    part.write_bytes(data[:size])
    sound = data[:size].count(b"\n")
    assert opened(partly).missing() == sorted(EXPECTED[3 + sound : 6] + EXPECTED[7:])
    finish(partly)


def test_damaged_and_unknown_files_among_the_parts(partly: Path) -> None:
    parts = partly / "unit" / "parts"
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
    assert rows_of(tmp_path / "unit" / "completions.jsonl") == all_of_them


def test_fewer_samples_set_the_file_aside_and_more_bring_it_back(tmp_path: Path) -> None:
    finish(tmp_path)
    before = (tmp_path / "unit" / "completions.jsonl").read_bytes()
    said: list[str] = []
    assert opened(tmp_path, samples=1, said=said).missing() == []
    assert rows_of(tmp_path / "unit" / "completions.jsonl") == [row(key) for key in EXPECTED if key[1] == 0]
    assert "not all of it is asked for now; set aside as" in said[0]
    assert opened(tmp_path, said=said).missing() == []
    assert (tmp_path / "unit" / "completions.jsonl").read_bytes() == before
    assert "5 completions taken back from" in said[-1]


@pytest.mark.parametrize("whole", [True, False])
def test_other_settings_are_refused(partly: Path, whole: bool) -> None:
    if whole:
        finish(partly)
    with pytest.raises(UsageError, match=r"was drawn with temperature 0.7, now it is 1.0; restore it"):
        opened(partly, settings=SETTINGS | {"temperature": 1.0})


DAMAGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], list[Key], str]] = {
    "cut": (lambda lines: [*lines[:9], lines[9][:20]], [EXPECTED[9]], r"line 10: not JSON"),
    "changed": (
        lambda lines: [lines[0].replace(b"text", b"test"), *lines[1:]],
        [EXPECTED[0]],
        "line 1: has ch",
    ),
    "not text": (
        lambda lines: [*lines[:4], b"\xff" + lines[4][1:], *lines[5:]],
        [EXPECTED[4]],
        "line 5: not val",
    ),
    "of a wrong type": (
        lambda lines: [*lines[:2], lines[2].replace(b'"tokens": 3', b'"tokens": "3"'), *lines[3:]],
        [EXPECTED[2]],
        "line 3: tokens: expected a valid integer",
    ),
    "doubled": (lambda lines: [*lines, lines[3]], [], r"line 11: item 'item 1' sample 1 again"),
    "shortened": (lambda lines: lines[:7], EXPECTED[7:], r"line \d+: 3 lines are missing"),
    "emptied": (lambda lines: [], EXPECTED, r"line \d+: 10 lines are missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_set_aside_and_only_what_is_lost_is_drawn_again(
    tmp_path: Path, damage: str
) -> None:
    finish(tmp_path)
    path = tmp_path / "unit" / "completions.jsonl"
    before = path.read_bytes()
    change, lost, message = DAMAGES[damage]
    path.write_bytes(b"".join(line + b"\n" for line in change(before.splitlines())))
    damaged, said = path.read_bytes(), list[str]()
    assert opened(tmp_path, said=said).missing() == lost
    assert re.search(rf"completions\.jsonl, {message}.*set aside as .*aside/1", said[0])
    assert (tmp_path / "aside" / "1" / "completions.jsonl").read_bytes() == damaged
    finish(tmp_path)
    assert path.read_bytes() == before


def test_lines_of_another_unit_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    finish(tmp_path)
    path = tmp_path / "unit" / "completions.jsonl"
    path.write_text(
        "".join(json.dumps(row(key) | {"completion": "of another step"}) + "\n" for key in EXPECTED)
    )
    assert opened(tmp_path).missing() == EXPECTED


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another snapshot": ({"snapshot": "other"}, "drawn from another snapshot"),
    "trained otherwise": ({"trained": "other"}, "drawn from a run that was trained in another way"),
    "another template": ({"template_hash": "other"}, "drawn with another chat template"),
    "of another run": ({"run": "b"}, "drawn for a, step 20, game"),
    "of another step": ({"step": 40}, "drawn for a, step 20, game"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("whole", [True, False])
def test_what_was_drawn_from_something_else_is_set_aside_and_comes_back_with_it(
    partly: Path, change: str, whole: bool
) -> None:
    if whole:
        finish(partly)
    changes, why = CHANGES[change]
    said: list[str] = []
    assert opened(partly, said=said, **changes).missing() == EXPECTED
    assert said == [f"{partly}/unit: {why}; set aside as {partly}/aside/1"]
    assert not (partly / "unit").exists()
    if whole:
        assert opened(partly, said=said).missing() == []
        assert "10 completions taken back" in said[-1]


def test_only_items_that_are_asked_otherwise_are_drawn_again(tmp_path: Path) -> None:
    finish(tmp_path)
    prompts = RECORD.prompts | {"item 2": "another prompt"}
    assert opened(tmp_path, prompts=prompts).missing() == [("item 2", 0), ("item 2", 1)]
    more = RECORD.prompts | {"item 5": "prompt 5"}
    assert opened(tmp_path, prompts=more).missing() == [("item 5", 0), ("item 5", 1)]
    assert opened(tmp_path).missing() == []


def test_a_unit_of_an_older_version_is_taken_over_as_it_is(tmp_path: Path) -> None:
    """It kept the settings alone; of which weights it is, is not known then, and not claimed."""
    finish(tmp_path)
    before = (tmp_path / "unit" / "completions.jsonl").read_bytes()
    (tmp_path / "unit" / "unit.json").unlink()
    (tmp_path / "unit" / "sampling.json").write_text(json.dumps(SETTINGS))
    said: list[str] = []
    assert opened(tmp_path, said=said).missing() == []
    assert (tmp_path / "unit" / "completions.jsonl").read_bytes() == before
    written = UnitRecord.read(tmp_path / "unit")
    assert written is not None
    assert (written.snapshot, written.trained, said) == ("", "", [])
    assert opened(tmp_path, snapshot="other", said=said).missing() == []


def test_completions_of_which_nothing_says_where_they_are_from_do_not_count(tmp_path: Path) -> None:
    finish(tmp_path)
    record = tmp_path / "unit" / "unit.json"
    record.write_text(record.read_text()[:40])
    said: list[str] = []
    assert opened(tmp_path, said=said).missing() == EXPECTED
    assert "unit.json: not JSON" in said[0]
    finish(tmp_path)
    record.unlink()
    assert opened(tmp_path, said=said).missing() == EXPECTED
    assert "nothing says what it was drawn from" in said[-1]
    assert aside(tmp_path) == ["1", "2"]


def test_completions_are_written_after_a_while_even_when_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "FLUSH_SECONDS", 0.0)
    file = opened(tmp_path)
    file.add(line(EXPECTED[4]))
    [written] = rows_of(*parts(tmp_path))
    assert written.pop("check")
    assert written == row(EXPECTED[4])


def test_what_is_kept_beside_a_damaged_snapshot_stays_what_it_was_drawn_from(tmp_path: Path) -> None:
    """Of which weights the unit is cannot be told now; its record goes on saying it."""
    finish(tmp_path)
    path = tmp_path / "unit" / "completions.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    assert opened(tmp_path, snapshot="").missing() == [EXPECTED[9]]
    kept = UnitRecord.read(tmp_path / "unit")
    assert kept is not None
    assert kept.snapshot == RECORD.snapshot


def test_nothing_comes_back_where_no_snapshot_says_that_it_counts(tmp_path: Path) -> None:
    finish(tmp_path)
    assert opened(tmp_path, snapshot="other").missing() == EXPECTED
    assert opened(tmp_path, snapshot="").missing() == EXPECTED
    assert opened(tmp_path).missing() == []
