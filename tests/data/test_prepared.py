"""Prepared rows: the same rows as in memory, lazily read, and refused when what they came from changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jax_sft.config import DataConfig, Run, Study, TokensConfig, replace
from jax_sft.data.batches import Batches, iterate
from jax_sft.data.prepared import PreparedRows, prepared_rows, run_rows
from jax_sft.data.rows import RowSet, RowSource
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template

TOKENS = TokensConfig(template="chatml")
TOKENIZER = load_tokenizer(TOKENS)
TEMPLATE = load_template(TOKENS, TOKENIZER)
DATA = DataConfig(source="set.jsonl", row_length=128, batch_size=4, rows_per_micro_batch=2)


def write_set(folder: Path, rows: int) -> None:
    lines = [{"id": f"r{i}", "prompt": f"say {i}", "response": f"{i} " * (i % 7 + 1)} for i in range(rows)]
    (folder / "set.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def prepare(folder: Path, data: DataConfig = DATA, tokenizer: Any = TOKENIZER, **more: Any) -> RowSet:
    template = more.pop("template", TEMPLATE)
    source = RowSource(data, TOKENS, 0, str(folder))
    return prepared_rows(source, tokenizer, template, folder / "prepared", **more)


def test_the_same_batches_as_in_memory(tmp_path: Path) -> None:
    write_set(tmp_path, 23)
    memory = RowSource(DATA, TOKENS, 0, str(tmp_path)).tokenised(TOKENIZER, TEMPLATE)
    disk = prepare(tmp_path)
    assert isinstance(disk, PreparedRows)
    assert (disk.hash, len(disk), disk.dropped) == (memory.hash, 23, 0)
    for one, other in zip(*(iterate(Batches(r, DATA, 0, 2)) for r in (memory, disk)), strict=True):
        for x_MRT, y_MRT in zip(one.rows, other.rows, strict=True):
            assert np.array_equal(x_MRT, y_MRT)
    tokens_N, is_target_N = disk.take(np.zeros(0, np.int64))
    assert len(tokens_N) == len(is_target_N) == 0


def test_a_process_reads_only_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, 24)
    batches = Batches(prepare(tmp_path), replace(DATA, batch_size=24), 0, 1)
    taken: list[set[int]] = []
    take = PreparedRows.take
    monkeypatch.setattr(
        PreparedRows, "take", lambda self, rows_B: (taken.append(set(rows_B.tolist())), take(self, rows_B))[1]
    )
    for process in range(2):
        batches.batch(1, range(process, DATA.rows_per_micro_batch, 2))
    assert taken[0].isdisjoint(taken[1])
    assert taken[0] | taken[1] == set(range(24))


def test_made_once_and_by_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path, 8)
    prepare(tmp_path)
    prepare(tmp_path, replace(DATA, row_length=64))
    assert len(list((tmp_path / "prepared").iterdir())) == 2
    monkeypatch.setattr(RowSource, "tokenised", None)
    assert len(prepare(tmp_path)) == 8


def test_damaged_rows(tmp_path: Path) -> None:
    write_set(tmp_path, 8)
    rows = prepare(tmp_path)
    assert isinstance(rows, PreparedRows)
    rows.lengths_E = rows.lengths_E + 100  # as if the records had been cut
    with pytest.raises(JaxSftError, match=r"a row cannot be read .*rebuild it with"):
        rows.take(np.arange(2))


@pytest.mark.parametrize("what", ["set", "tokenizer", "template", "reading"])
def test_refuses_what_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    write_set(tmp_path, 9)
    prepare(tmp_path)
    more: dict[str, Any] = {}
    if what == "set":
        write_set(tmp_path, 8)
        message = "the set changed .the set gave 9 rows then, 8 now. since it was prepared; rebuild it with"
    elif what == "tokenizer":
        changed = type(TOKENIZER.backend).from_str(TOKENIZER.backend.to_str())
        changed.add_tokens(["<new>"])
        more, message = {"tokenizer": replace(TOKENIZER, backend=changed)}, "the tokenizer changed since"
    elif what == "reading":
        monkeypatch.setattr("jax_sft.data.prepared._READING", "later")
        message = "the reading changed since"
    else:
        source = TEMPLATE.source + "\n"
        more, message = {"template": replace(TEMPLATE, source=source)}, "the template changed since"
    with pytest.raises(UsageError, match=message):
        prepare(tmp_path, **more)
    rebuilt = prepare(tmp_path, rebuild=True, **more)
    assert len(rebuilt) == (8 if what == "set" else 9)


def test_damaged_folders(tmp_path: Path) -> None:
    write_set(tmp_path, 8)
    rows = prepare(tmp_path)
    assert isinstance(rows, PreparedRows)
    for name in rows.manifest["files"]:
        (rows.folder / name).unlink()
    with pytest.raises(JaxSftError, match=r"cannot be read .*rebuild it with"):
        prepare(tmp_path).take(np.arange(2))
    whole = (rows.folder / "index.npz").read_bytes()
    for cut in (whole[:-30], whole[: len(whole) // 2], b"PK", b""):
        (rows.folder / "index.npz").write_bytes(cut)
        with pytest.raises(JaxSftError, match=r"index.npz is damaged: .*rebuild it with"):
            prepare(tmp_path)
    manifest = (rows.folder / "manifest.json").read_text()
    for damaged in ("[]", "{", manifest.replace('"hash"', '"hush"')):
        (rows.folder / "manifest.json").write_text(damaged)
        with pytest.raises(JaxSftError, match=r"manifest.json.*rebuild it with"):
            prepare(tmp_path)
    (rows.folder / "manifest.json").write_text(manifest)
    (rows.folder / "index.npz").write_bytes(b"PK")
    with pytest.raises(JaxSftError, match=r"index.npz is damaged"):
        prepare(tmp_path)
    with pytest.raises(UsageError, match="must lie on a local disk"):
        prepared_rows(RowSource(DATA, TOKENS, 0, str(tmp_path)), TOKENIZER, TEMPLATE, "gs://bucket/prepared")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jsonl", "missing.jsonl: no such file"),
        ("sets", "sets: is a folder without a built set in it"),
        ("sets/one", "one: is a folder; name its version, sets/one/1.0.0"),
        ("folder.jsonl", "folder.jsonl: is a folder"),
    ],
)
def test_sources_that_are_no_files_are_said_in_one_line(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "sets" / "one" / "1.0.0").mkdir(parents=True)
    (tmp_path / "sets" / "one" / "1.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(UsageError, match=message):
        prepare(tmp_path, replace(DATA, source=source))


def test_a_run_takes_what_was_prepared_and_else_makes_its_rows(tmp_path: Path) -> None:
    write_set(tmp_path, 23)
    run = Run(data=DATA, tokens=TOKENS)
    asked = Study("set", (run,), root=str(tmp_path), data_root=str(tmp_path)), run, TOKENIZER, TEMPLATE
    memory = run_rows(*asked)
    assert not (tmp_path / "prepared").exists()
    prepare(tmp_path)
    disk = run_rows(*asked)
    assert isinstance(disk, PreparedRows)
    assert not isinstance(memory, PreparedRows)
    assert disk.hash == memory.hash
    write_set(tmp_path, 22)
    with pytest.raises(UsageError, match=r"23 rows then, 22 now.*data prepare STUDY --rebuild"):
        run_rows(*asked)
