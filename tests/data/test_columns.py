"""Which columns of a record say what: as named, and in the forms that sets usually have."""

import json
from pathlib import Path
from typing import Any

import pytest

from jax_sft.config import DataConfig, TokensConfig
from jax_sft.data.columns import file_options, row_of
from jax_sft.data.rows import RowSource
from jax_sft.data.sources import load_rows
from jax_sft.data.transforms import Knobs, query, remove_trace, transform, truncate_trace
from jax_sft.errors import UsageError
from jax_sft.options import BuildOptions
from jax_sft.sets.build import build
from jax_sft.tasks.rows import Row
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import ChatTemplate, load_template

ASK = {"role": "user", "content": "2 + 2?"}
SAY = {"role": "assistant", "content": "4"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
TOOLS = [{"type": "function", "function": {"name": "add"}}]
PROBLEM = {"problem": "2 + 2?", "solution": "four", "messages": [ASK, SAY]}


def read(record: dict[str, Any], **options: str) -> Row:
    return row_of(record, file_options(dict(options)), "rows.jsonl, row 1", "1")


def test_columns_that_are_named_win() -> None:
    assert read(PROBLEM, prompt="problem", response="solution") == Row("1", (ASK,), "four")
    named = read({**PROBLEM, "prompt": "other?", "response": "none"}, prompt="prompt", response="response")
    assert named == Row("1", ({"role": "user", "content": "other?"},), "none")
    talk = read({"talk": [ASK], "said": "4", "messages": [SAY]}, prompt="talk", response="said")
    assert talk == Row("1", (ASK,), "4")


@pytest.mark.parametrize("name", ["prompt", "response"])
def test_a_named_column_must_be_there(name: str) -> None:
    found = r"row 1: no column answr \(data.options " + name + r"\); found problem, solution, messages"
    with pytest.raises(UsageError, match=found):
        read(PROBLEM, **{name: "answr"})
    with pytest.raises(UsageError, match="no column solution"):
        read(PROBLEM | {"solution": None}, prompt="problem", response="solution")


def test_named_columns_of_a_set_that_is_built(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    options = {"prompt": "problem", "response": "solution"}
    built = build("math_cot", tmp_path, BuildOptions(str(tmp_path / "pool.jsonl"), dict(options), rows=1))
    assert load_rows(DataConfig(source=str(built)), 0) == [Row("1", (ASK,), "four")]
    with pytest.raises(UsageError, match="no column problm"):
        build("math_nocot", tmp_path, BuildOptions(str(tmp_path / "pool.jsonl"), {"prompt": "problm"}))


@pytest.mark.parametrize("name", ["messages", "message", "conversations"])
def test_the_last_turn_of_the_assistant_is_the_response(name: str) -> None:
    turns = [{"role": "system", "content": "Brief."}, ASK, {**SAY, "content": "5"}, ASK, SAY]
    assert read({name: turns}) == Row("1", tuple(turns[:-1]), "4")
    assert read({name: turns[:-1], "response": "5"}) == Row("1", tuple(turns[:-1]), "5")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"messages": [ASK, SAY], "response": "5"},
            "messages ends with the answer, but there is response too",
        ),
        ({"messages": [ASK, SAY], "reasoning_content": "hm"}, "there is reasoning_content too"),
        (
            {"messages": [ASK]},
            "no column response; found messages; name the columns with data.options prompt",
        ),
        ({"messages": [{"from": [], "value": "q"}]}, r"role must be one of .*, found \[\]"),
        ({"messages": [SAY]}, "messages holds the answer alone"),
        ({"messages": [ASK, SAY, SAY]}, "messages ends with two turns of the assistant"),
        ({"messages": [ASK | {"name": "\ud800"}, SAY]}, r"messages\[0\] holds half of a surrogate pair"),
        ({"messages": [ASK, SAY], "id": "\ud800"}, "id holds half of a surrogate pair"),
        ({"messages": [ASK, SAY], "tools": [{"name": "\ud800"}]}, "tools holds half of a surrogate pair"),
        ({"messages": [ASK, {**SAY, "content": 3, "tool_calls": [CALL]}]}, "content must be text, found int"),
        ({"instruction": ["q"], "output": "4"}, "instruction or input must be text, found list"),
        (
            {"messages": [ASK, {**SAY, "thinking": "hm"}]},
            "thinking is not read; put it into content or reason",
        ),
        (
            {"messages": [ASK, {**SAY, "content": None}]},
            r"messages\[1\]: content must be text, found NoneType",
        ),
        (
            {"messages": [ASK, {**SAY, "tool_calls": [{}]}]},
            r"messages\[1\]: tool_calls must name their functions",
        ),
        ({"messages": [ASK, {**SAY, "tool_calls": "add"}]}, "tool_calls is not JSON"),
        ({"messages": [ASK, SAY], "tools": ["add"]}, "tools must be a list of objects, found list"),
        ({"messages": [ASK, {**SAY, "reasoning_content": 3}]}, "reasoning_content must be text, found int 3"),
        (
            {
                "messages": [
                    ASK,
                    {"role": "assistant", "content": "<think>a</think>", "reasoning_content": "b"},
                ]
            },
            "has think tags and reasoning_content; keep one",
        ),
        ({"messages": [{"role": "system", "content": "a"}, ASK, SAY], "system": "b"}, "and a column system"),
        ({"prompt": "q", "response": [ASK]}, "response must be text or an assistant's turn"),
        ({"instruction": "q", "input": "", "output": ""}, "response is empty"),
    ],
)
def test_what_cannot_be_is_refused(record: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match="rows.jsonl, row 1.*" + message):
        read(record)


def test_sharegpt_and_alpaca() -> None:
    said = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
    assert read({"conversations": said}) == Row("1", (ASK,), "4")
    system = {"role": "system", "content": "Brief."}
    assert read({"conversations": said, "system": "Brief."}) == Row("1", (system, ASK), "4")
    with pytest.raises(
        UsageError, match="role must be one of system, user, assistant, tool, found 'function_call'"
    ):
        read({"conversations": [{"from": "function_call", "value": "{}"}, *said]})
    assert read({"instruction": "Add.", "input": "2 and 2", "output": "4"}) == Row(
        "1", ({"role": "user", "content": "Add.\n2 and 2"},), "4"
    )
    for nothing in ({}, {"input": ""}, {"input": None}):
        assert read({"instruction": "2 + 2?", "output": "4", **nothing}) == Row("1", (ASK,), "4")
    assert read({"instruction": "x", "output": "y", "prompt": "2 + 2?", "response": "4"}) == Row(
        "1", (ASK,), "4"
    )


def test_prompt_and_completion_as_turns() -> None:
    assert read({"prompt": [ASK], "completion": [SAY]}, response="completion") == Row("1", (ASK,), "4")


def test_an_instruction_ends_the_last_turn_of_the_user() -> None:
    tool = {"role": "tool", "content": "4"}
    row = read({"messages": [ASK, tool], "response": "4"}, instruction="Box it.")
    assert row.messages == ({"role": "user", "content": "2 + 2?\nBox it."}, tool)
    assert read({"messages": [ASK, SAY]}, instruction="Box it.").messages[0]["content"] == "2 + 2?\nBox it."
    with pytest.raises(UsageError, match="no turn of the user to which"):
        read({"messages": [{"role": "system", "content": "a"}], "response": "4"}, instruction="Box it.")


def test_nulls_are_as_if_absent() -> None:
    record = {
        "id": None,
        "prompt": "2 + 2?",
        "response": "4",
        "advantage": None,
        "correct": None,
        "tools": None,
    }
    assert read(record) == Row("1", (ASK,), "4", 1.0)
    turns = [{**ASK, "tool_calls": None, "reasoning_content": None}, {**SAY, "tool_calls": []}]
    assert read({"messages": turns}) == Row("1", (ASK,), "4")


def test_a_thought_of_its_own() -> None:
    row = read({"messages": [ASK, {**SAY, "reasoning_content": "two\nand two"}]})
    assert row == Row("1", (ASK,), "<think>\ntwo\nand two\n</think>\n\n4", reasoning_apart=True)
    assert row.answer == {**SAY, "reasoning_content": "two\nand two"}
    assert read({"prompt": "2 + 2?", "response": "4", "reasoning_content": "two\nand two"}) == row
    assert read({"messages": [ASK, {**SAY, "reasoning_content": " \n"}]}) == Row("1", (ASK,), "4")
    assert truncate_trace(row, 0.5).answer == {**SAY, "reasoning_content": "two\nand"}
    assert remove_trace(row).answer == "4"


def test_calls_and_tools() -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    row = read({"messages": [ASK, turn], "tools": json.dumps(TOOLS)})
    assert (row.response, row.tools, row.tool_calls) == ("", tuple(TOOLS), (CALL,))
    assert row.answer == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert read({"prompt": "2 + 2?", "tool_calls": [CALL], "tools": [json.dumps(TOOLS[0])]}) == row
    told = read(
        {"messages": [ASK, turn, {"role": "tool", "content": "4", "name": "add"}, SAY], "tools": TOOLS}
    )
    assert told.messages[1:] == (row.answer, {"role": "tool", "content": "4", "name": "add"})
    assert len({query(row), query(told), query(Row("1", (ASK,), "4"))}) == 3
    thought = read({"messages": [ASK, {**turn, "reasoning_content": "add"}]})
    assert transform([thought], Knobs(trace="remove"), 0)[0].answer == row.answer


def test_built_sets_keep_all_of_a_row(tmp_path: Path) -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    tool = {"role": "tool", "content": "4", "name": "add"}
    records = [
        {"messages": [ASK, SAY]},
        {"messages": [ASK, turn, tool, {**SAY, "reasoning_content": "so"}], "tools": TOOLS},
        {"messages": [{**ASK, "content": "again"}, {**turn, "reasoning_content": "add"}], "tools": TOOLS},
    ]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pool = load_rows(DataConfig(source="pool.jsonl"), 0, str(tmp_path))
    built = build("math_cot", tmp_path, BuildOptions(str(tmp_path / "pool.jsonl"), rows=3))
    assert load_rows(DataConfig(source=str(built)), 0) == pool


def test_parquet_turns_hold_no_fields_of_others(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    pq.write_table(
        pa.Table.from_pylist([{"messages": [ASK, turn]}, {"messages": [ASK, SAY]}]), tmp_path / "a.parquet"
    )
    rows = load_rows(DataConfig(source="a.parquet"), 0, str(tmp_path))
    assert rows == [read({"messages": [ASK, turn]}), Row("2", (ASK,), "4")]


def test_a_row_reaches_the_tokens_with_its_fields(tmp_path: Path, golden: Path) -> None:
    """Through the template that a study names, with the row named where it cannot be."""
    record = {"messages": [ASK, {**SAY, "reasoning_content": "hm", "tool_calls": [CALL]}], "tools": TOOLS}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    tokens = TokensConfig(template=str(golden / "templates" / "qwen3.jinja"))
    source = RowSource(DataConfig(source="a.jsonl", row_length=4096), tokens, 0, str(tmp_path))
    tokenizer = load_tokenizer(tokens)
    rows = source.tokenised(tokenizer, load_template(tokens, tokenizer))
    learnt = tokenizer.decode(rows.tokens_N[rows.is_target_N].tolist(), skip_special_tokens=False)
    call = '\n<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|im_end|>'
    assert learnt == "<think>\nhm\n</think>\n\n4" + call
    with pytest.raises(UsageError, match="row 1: chat template chatml leaves the tools out"):
        source.tokenised(tokenizer, ChatTemplate(tokenizer.chat_template or "", "chatml"))
