"""A record of a file as a row: which of its columns say what, as named or in one of the usual forms."""

import math
from collections.abc import Mapping
from typing import Any

from jax_sft.config import Option
from jax_sft.data.records import brief
from jax_sft.data.turns import read_answer, read_calls, read_text, read_tools, read_turns
from jax_sft.errors import UsageError
from jax_sft.tasks.rows import FORMATS, Row, training_format
from jax_sft.tokens.templates import Message

CONVERSATIONS = ("messages", "message", "conversations")
"""Columns of whole conversations, in the order in which they are looked for."""
_PLAIN = "rows"
"""The format whose columns are those of `Row`."""
_OPTIONS = ("format", "instruction", "prompt", "response")
_ANSWER = ("reasoning_content", "tool_calls")
"""What an answer may hold besides its text, in its turn or in columns of their own."""
_REMEDY = "name the columns with data.options prompt COLUMN response COLUMN"


def file_options(options: Mapping[str, Option]) -> dict[str, str]:
    """Options of a file as text, those of its format filled in; UsageError for a wrong one."""
    for name, value in options.items():
        if name not in _OPTIONS:
            raise UsageError(f"data.options {name!r} is not an option of a file: {', '.join(_OPTIONS)}")
        if not isinstance(value, str):
            raise UsageError(f"data.options {name!r} must be text, found {value!r}")
    text = {"format": _PLAIN} | {name: str(value) for name, value in options.items()}
    if text["format"] == _PLAIN:
        return text
    if text["format"] not in FORMATS:
        known = ", ".join((_PLAIN, *FORMATS))
        raise UsageError(f"data.options format {text['format']!r} is not one of {known}")
    named = training_format(text["format"])
    return {"prompt": named.prompt, "response": named.response, "instruction": named.instruction} | text


def row_of(record: Mapping[str, Any], options: Mapping[str, str], where: str, default_id: str) -> Row:
    """The row that a record is, checked.

    Args:
        record: columns of a file; a null is as if absent.
        options: as `file_options` gives them.
        where: file and row; opens the message of an error.
        default_id: the id of a record that has none.
    """
    columns = {name: value for name, value in record.items() if value is not None}
    turns, answer = _conversation(_usual(columns, options, where), options, where)
    if options["format"] in FORMATS and isinstance(answer.get("content"), str):
        answer = {**answer, "content": training_format(options["format"]).clean(answer["content"])}
    response, apart = read_answer(answer, f"{where}: response")
    row_id = columns.get("id", default_id)
    if isinstance(row_id, bool) or not isinstance(row_id, str | int) or row_id == "":
        raise UsageError(f"{where}: id must be text or a whole number, found {row_id!r}")
    return Row(
        id=read_text(str(row_id), f"{where}: id"),
        messages=tuple(_instructed(turns, options.get("instruction", ""), where)),
        response=response,
        advantage=_advantage(columns.get("advantage", 1.0), where),
        correct=_correct(columns.get("correct"), where),
        tools=read_tools(columns.get("tools"), where),
        tool_calls=tuple(answer.get("tool_calls", ())),
        reasoning_apart=apart,
    )


def _usual(columns: dict[str, Any], options: Mapping[str, str], where: str) -> dict[str, Any]:
    """Columns `instruction`, `input`, `output` (Alpaca) in the names of `Row`, where no others are meant."""
    others = {*CONVERSATIONS, "prompt", "response"} & set(columns)
    if others or {"prompt", "response"} & set(options) or not {"instruction", "output"} <= set(columns):
        return columns
    asked = [columns[name] for name in ("instruction", "input") if columns.get(name) not in (None, "")]
    lines = [read_text(text, f"{where}: instruction or input") for text in asked]
    return columns | {"prompt": "\n".join(lines), "response": columns["output"]}


def _conversation(
    columns: Mapping[str, Any], options: Mapping[str, str], where: str
) -> tuple[list[Message], Message]:
    """The turns of the prompt, and the assistant's turn that answers them."""
    for name in ("prompt", "response"):
        if options.get(name, name) not in columns and name in options:
            found = ", ".join(columns) or "none"
            raise UsageError(f"{where}: no column {options[name]} (data.options {name}); found {found}")
    usual = [name for name in (*CONVERSATIONS, "prompt") if name in columns]
    prompt, response = options.get("prompt") or (usual or [""])[0], options.get("response", "response")
    asked = columns.get(prompt)
    if isinstance(asked, str) and prompt not in CONVERSATIONS:
        asked = [{"role": "user", "content": asked}]
    turns = read_turns(asked, f"{where}: {prompt}") if prompt else []
    turns = _with_system(turns, columns.get("system"), where)
    fields = {name: columns[name] for name in _ANSWER if name in columns}
    ends_in_answer = bool(turns) and turns[-1]["role"] == "assistant"
    if ends_in_answer and (response in columns or fields):
        besides = ", ".join([*fields, *([response] if response in columns else [])])
        raise UsageError(f"{where}: {prompt} ends with the answer, but there is {besides} too; {_REMEDY}")
    if ends_in_answer:
        if len(turns) == 1:
            raise UsageError(f"{where}: {prompt} holds the answer alone, and no turn that it answers")
        if turns[-2]["role"] == "assistant":
            raise UsageError(f"{where}: {prompt} ends with two turns of the assistant")
        return turns[:-1], turns[-1]
    missing = [] if prompt else ["messages or message or prompt"]
    missing += [] if response in columns or fields.get("tool_calls") else ["response"]
    if missing:
        found = ", ".join(columns) or "none"
        raise UsageError(f"{where}: no column {' and no '.join(missing)}; found {found}; {_REMEDY}")
    return turns, _answer(columns.get(response), fields, where)


def _with_system(turns: list[Message], system: Any, where: str) -> list[Message]:
    """The turns after the system prompt that stood in a column of its own."""
    if not turns or system in (None, ""):
        return turns
    if turns[0]["role"] == "system":
        raise UsageError(f"{where}: a turn of the system and a column system; leave one out")
    return [{"role": "system", "content": read_text(system, f"{where}: system")}, *turns]


def _answer(response: Any, fields: dict[str, Any], where: str) -> Message:
    """The assistant's turn of a column: its text, or a list of that one turn, and columns beside it."""
    if isinstance(response, list):
        turns = read_turns(response, f"{where}: response")
        if len(turns) > 1 or turns[0]["role"] != "assistant" or fields:
            raise UsageError(
                f"{where}: response must be text or an assistant's turn, found {brief(response)}"
            )
        return turns[0]
    turn = {"role": "assistant", "content": response, **fields}
    if calls := read_calls(turn.pop("tool_calls", None), where):
        turn["tool_calls"] = calls
    return turn


def _instructed(turns: list[Message], instruction: str, where: str) -> list[Message]:
    """The turns with a line added to the end of the last one of the user."""
    if not instruction:
        return turns
    places = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
    if not places:
        raise UsageError(f"{where}: no turn of the user to which data.options instruction could be added")
    place = places[-1]
    content = f"{turns[place]['content']}\n{instruction}"
    return [*turns[:place], {**turns[place], "content": content}, *turns[place + 1 :]]


def _advantage(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{where}: advantage must be a finite number, found {brief(value)}")
    return float(value)


def _correct(value: Any, where: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{where}: correct must be true or false, found {brief(value)}")
    return value
