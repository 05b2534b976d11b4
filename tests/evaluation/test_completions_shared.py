"""Completions on disk when two workers draw one unit: neither spoils the other's work."""

from pathlib import Path

import pytest
from etils import epath

from jax_sft.evaluation import completions
from jax_sft.study.records import UnitRecord
from tests.evaluation.unit_files import EXPECTED, aside, finish, line, opened, parts, row, rows_of


def test_two_workers_at_one_unit_do_not_spoil_each_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both begin with nothing; what either has written is there in every state between."""
    monkeypatch.setattr(completions, "FLUSH_COUNT", 1)
    first, second = opened(tmp_path), opened(tmp_path)
    for key in EXPECTED[:4]:
        first.add(line(key))
    for key in EXPECTED[2:7]:
        second.add(line(key))
    assert opened(tmp_path).missing() == EXPECTED[7:], "parts of both count, each completion once"
    for key in EXPECTED[4:]:
        first.add(line(key))
    whole = (tmp_path / "unit" / "completions.jsonl").read_bytes()
    assert len(parts(tmp_path)) == 5, "those of the second, which is still at work"
    for key in EXPECTED[7:]:
        second.add(line(key))
    assert (tmp_path / "unit" / "completions.jsonl").read_bytes() == whole
    finish(tmp_path)


def test_a_worker_that_dies_beside_another_leaves_parts_that_the_next_sweep_clears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "FLUSH_COUNT", 1)
    first, second = opened(tmp_path), opened(tmp_path)
    for key in EXPECTED:
        first.add(line(key))
    second.add(line(EXPECTED[3]))  # after the folder of parts was removed
    assert len(parts(tmp_path)) == 1
    finish(tmp_path)


def test_the_folder_of_parts_may_go_while_a_part_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, write, lost = opened(tmp_path), completions.write_atomically, []

    def racing(path: epath.Path, text: str) -> None:
        if not lost and path.parent.name == "parts":
            lost.append(path)
            raise FileNotFoundError(path)
        write(path, text)

    monkeypatch.setattr(completions, "write_atomically", racing)
    file.add(line(EXPECTED[0]))
    file.flush()
    assert lost
    assert opened(tmp_path).missing() == EXPECTED[1:]


@pytest.mark.parametrize("taken", [True, False], ids=["set aside by the other", "and begun anew"])
def test_two_workers_set_a_stale_unit_aside_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """The second sees the unit as it was, and the first comes between."""
    file = opened(tmp_path)
    for key in EXPECTED:
        file.add(line(key))
    stored, calls = completions._stored_record, []

    def behind(folder: epath.Path, wanted: UnitRecord) -> UnitRecord | None:
        found = stored(folder, wanted)
        calls.append(found)
        if len(calls) == 1:
            first = opened(tmp_path, snapshot="new")
            if not taken:
                first.add(line(EXPECTED[0]))
                first.flush()
        return found

    monkeypatch.setattr(completions, "_stored_record", behind)
    second = opened(tmp_path, snapshot="new")
    assert aside(tmp_path) == ["1"]
    for key in second.missing():
        second.add(line(key))
    assert rows_of(tmp_path / "unit" / "completions.jsonl") == [row(key) for key in EXPECTED]
    assert opened(tmp_path, snapshot="new").missing() == []


def test_the_number_of_what_is_set_aside_may_be_taken_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path).add(line(EXPECTED[0]))
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit" / "kept").write_text("here")
    move, tries = completions.move, []

    def racing(source: epath.Path, target: epath.Path) -> None:
        tries.append(target.name)
        if len(tries) == 1:
            target.mkdir(parents=True)
        move(source, target)

    monkeypatch.setattr(completions, "move", racing)
    assert completions.set_aside(epath.Path(tmp_path / "unit"), epath.Path(tmp_path / "aside")) is not None
    assert tries == ["1", "2"]
    assert (tmp_path / "aside" / "2" / "kept").read_text() == "here"
    assert completions.set_aside(epath.Path(tmp_path / "unit"), epath.Path(tmp_path / "aside")) is None
