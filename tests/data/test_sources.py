"""Reading rows: every accepted shape, and one clear line for each way a file can be wrong."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from jax_sft.config import DataConfig, Option
from jax_sft.data import sources
from jax_sft.data.sources import load_rows
from jax_sft.errors import UsageError
from jax_sft.tasks.gsm8k import GSM8K_INSTRUCTION
from jax_sft.tasks.rows import Row

GOOD = {"id": "a", "prompt": "1 + 1?", "response": "2"}


def load(path: Path, *, rows: int = 0, **options: Option) -> list[Row]:
    return load_with(path, options, rows)


def load_with(path: Path, options: dict[str, Option], rows: int = 0) -> list[Row]:
    return load_rows(DataConfig(source=path.name, rows=rows, options=options), 0, str(path.parent))


def write(folder: Path, records: Sequence[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_every_file_type_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "é?"}]
    records = [
        {"message": turns, "response": "<think>hm</think> yes", "advantage": 0.5, "data_source": "math"},
        {"message": turns[1:], "response": "no", "advantage": 1.0, "data_source": "math"},
    ]
    assert load(write(tmp_path, records, name)) == [
        Row("1", tuple(turns), "<think>hm</think> yes", 0.5),
        Row("2", (turns[1],), "no", 1.0),
    ]


def test_prompt_text_becomes_a_user_turn(tmp_path: Path) -> None:
    [row] = load(write(tmp_path, [GOOD]), instruction="Box the answer.")
    assert row == Row("a", ({"role": "user", "content": "1 + 1?\nBox the answer."},), "2", 1.0)


def test_columns_can_be_named(tmp_path: Path) -> None:
    records = [{"id": 7, "question": "why?", "prompt": 3, "solution": "so", "response": None}]
    [row] = load(write(tmp_path, records, "rows.json"), prompt="question", response="solution")
    assert row == Row("7", ({"role": "user", "content": "why?"},), "so")


def test_gsm8k_format(tmp_path: Path) -> None:
    path = write(tmp_path, [{"question": "48 halved?", "answer": "48/2 = <<48/2=24>>24.\n#### 24"}])
    [row] = load(path, format="gsm8k")
    assert row.messages == ({"role": "user", "content": f"48 halved?\n{GSM8K_INSTRUCTION}"},)
    assert row.response == "48/2 = 24.\n#### 24"


def test_first_rows_only_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": f"q{index}", "response": "r"}) for index in range(3)]
    path.write_bytes(b"\xef\xbb\xbf" + "\n\n".join(lines).encode() + b"\r\nbroken")
    assert [row.id for row in load(path, rows=3)] == ["1", "3", "5"]


def test_generators_make_as_many_as_asked() -> None:
    config = DataConfig(source="countdown", rows=5, options={"miniature": True})
    rows = load_rows(config, 3)
    assert len(rows) == 5
    assert rows == load_rows(config, 3) != load_rows(config, 4)
    assert len(load_rows(DataConfig(source="miniature_base", rows=4), 0)) == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(source="countdown"), "set data.rows to how many"),
        (DataConfig(source="miniature_base", rows=2, options={"depth": 1}), "has no options, found depth"),
        (DataConfig(source="countdwn"), "'countdwn' is neither a generator .countdown, .* nor a file"),
        (DataConfig(source="missing.jsonl"), r"folder/missing.jsonl: no such file"),
        (DataConfig(source="x.jsonl", options={"format": "csv"}), "no such file"),
    ],
)
def test_bad_sources(config: DataConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_rows(config, 0, "folder")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "q", "answer": "r"}, "no column response; found prompt, answer"),
        ({"question": "q"}, "no column messages or message or prompt and no response; found question"),
        (GOOD | {"response": 2}, "response must be text, found int 2"),
        (GOOD | {"response": " \n"}, "response is empty"),
        (GOOD | {"prompt": ""}, "content is empty"),
        (GOOD | {"response": "\ud800"}, "half of a surrogate pair"),
        (GOOD | {"response": "2 </think> </think>"}, "unmatched think tags: </think> </think>"),
        (GOOD | {"response": "<think> <think> </think> 2"}, "unmatched think tags: <think> <think>"),
        (GOOD | {"id": 1.5}, "id must be text or a whole number, found 1.5"),
        (GOOD | {"id": "first"}, "id 'first' was used by .*rows.jsonl, row 1; ids"),
        (GOOD | {"advantage": "1"}, "advantage must be a finite number, found str '1'"),
        (GOOD | {"advantage": float("nan")}, "advantage must be a finite number"),
        (GOOD | {"messages": "q"}, "messages must be a list of messages and not empty, found str 'q'"),
        (GOOD | {"messages": []}, "messages must be a list of messages and not empty"),
        (GOOD | {"messages": [{"role": "user"}]}, r"messages\[0\] must be an object with role and content"),
        (GOOD | {"messages": [{"role": "human", "content": "q"}]}, "role must be one of .*, found 'human'"),
        (GOOD | {"messages": [{"role": "user", "content": [1]}]}, "content must be text, found list"),
        ([1], "expected an object, found list"),
    ],
)
def test_bad_rows_name_file_and_row(tmp_path: Path, record: Any, message: str) -> None:
    path = write(tmp_path, [GOOD | {"id": "first"}, record])
    with pytest.raises(UsageError, match=f"rows.jsonl, row 2.*{message}"):
        load(path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"prompt": "q", "response": "\xff"}', "rows.jsonl, row 1: not valid UTF-8 .byte 29"),
        (b'{"prompt": "q"', "rows.jsonl, row 1: not JSON"),
        (b"", "rows.jsonl: holds no rows"),
    ],
)
def test_bad_bytes(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match=message):
        load(path)


def test_more_rows_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"asks for 3 rows, it holds 1"):
        load(write(tmp_path, [GOOD]), rows=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 2}, "'depth' is not an option of a file: format, instruction"),
        ({"prompt": 2}, "'prompt' must be text, found 2"),
        ({"format": "csv"}, "format 'csv' is not one of rows, gsm8k"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Option], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_with(write(tmp_path, [GOOD]), options)


def test_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(UsageError, match=r"rows\.parquet: not a readable parquet file"):
        load(path)
    good, bad = pa.array(["q", "q"]), pa.array([b"r", b"\xff"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"prompt": good, "response": bad}), path)
    with pytest.raises(UsageError, match=r"rows\.parquet, row 2: not valid UTF-8"):
        load(path)
    pq.write_table(pa.table({"prompt": good, "reply": good}), path)
    with pytest.raises(UsageError, match=r"row 1: no column response; found prompt, reply"):
        load(path)


def test_shared_sets_load(shared_data: Path) -> None:
    folder = shared_data / "reasoning_sft"
    assert len(load(folder / "gsm8k_train.jsonl", format="gsm8k")) == 7473
    assert len(load(folder / "STAR-1_decontaminated.json", prompt="question")) == 952


def test_a_set_of_several_files_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"{number}?", "response": "yes"} for number in range(4)]
    files = [write(tmp_path, rows[:2], "train-0.parquet"), write(tmp_path, rows[2:], "train-1.parquet")]
    monkeypatch.setattr(sources, "data_files", lambda spec: [epath.Path(file) for file in files])
    found = load_rows(DataConfig(source="hub:owner/name"), 0, "unused")
    assert [row.id for row in found] == ["train-0/1", "train-0/2", "train-1/1", "train-1/2"]
    assert [row.messages[0]["content"] for row in found] == ["0?", "1?", "2?", "3?"]
    write(tmp_path, [GOOD, GOOD], "train-1.parquet")
    with pytest.raises(
        UsageError, match=r"train-1.parquet, row 2: id 'a' was used by .*train-1.parquet, row 1"
    ):
        load_rows(DataConfig(source="hub:owner/name"), 0)
