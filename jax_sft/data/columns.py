"""A record of a file as a row: its columns by name, and every check that nothing downstream repeats."""

import math
from collections.abc import Mapping
from typing import Any

from jax_sft.config import Option
from jax_sft.data.records import brief
from jax_sft.errors import UsageError
from jax_sft.responses import thinking
from jax_sft.tasks.rows import FORMATS, Row, training_format
from jax_sft.tokens.templates import Message

ROLES = ("system", "user", "assistant", "tool")
PROMPT_COLUMNS = ("messages", "message", "prompt")
_PLAIN = "rows"
"""The format whose columns are those of `Row`."""
_OPTIONS = ("format", "instruction", "prompt", "response")


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


def _rename(record: Mapping[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    """A record in the names of `Row`, the instruction added; what is missing stays missing."""
    renamed = dict(record)
    for name in ("prompt", "response"):
        column = options.get(name, name)
        if column != name:
            renamed.pop(name, None)
            if column in renamed:
                renamed[name] = renamed.pop(column)
    if options["format"] in FORMATS and isinstance(renamed.get("response"), str):
        renamed["response"] = training_format(options["format"]).clean(renamed["response"])
    if options.get("instruction") and isinstance(renamed.get("prompt"), str):
        renamed["prompt"] = f"{renamed['prompt']}\n{options['instruction']}"
    return renamed


def row_of(record: Mapping[str, Any], options: Mapping[str, str], where: str, default_id: str) -> Row:
    """The row that a record is, checked.

    Args:
        record: columns of a file.
        options: as `file_options` gives them.
        where: file and row; opens the message of an error.
        default_id: the id of a record that has none.
    """
    record = _rename(record, options)
    present = [name for name in PROMPT_COLUMNS if record.get(name) is not None]
    missing = [] if present else [" or ".join(PROMPT_COLUMNS)]
    if "response" not in record:
        missing.append("response")
    if missing:
        found = ", ".join(record) or "none"
        raise UsageError(f"{where}: no column {' and no '.join(missing)}; found {found}")
    prompt = record[present[0]]
    if isinstance(prompt, str) and present[0] == "prompt":
        prompt = [{"role": "user", "content": prompt}]
    row_id = record.get("id", default_id)
    if isinstance(row_id, bool) or not isinstance(row_id, str | int) or row_id == "":
        raise UsageError(f"{where}: id must be text or a whole number, found {row_id!r}")
    response = _text(record["response"], f"{where}: response")
    _check_think_tags(response, where)
    return Row(
        id=str(row_id),
        messages=_messages(prompt, f"{where}: {present[0]}"),
        response=response,
        advantage=_advantage(record.get("advantage", 1.0), where),
        correct=_correct(record.get("correct"), where),
    )


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise UsageError(f"{where} must be a list of messages and not empty, found {brief(value)}")
    messages: list[Message] = []
    for position, message in enumerate(value):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise UsageError(
                f"{where}[{position}] must be an object with role and content, found {brief(message)}"
            )
        if message["role"] not in ROLES:
            raise UsageError(
                f"{where}[{position}]: role must be one of {', '.join(ROLES)}, found {message['role']!r}"
            )
        content = _text(message["content"], f"{where}[{position}]: content")
        messages.append({"role": message["role"], "content": content})
    return tuple(messages)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where} must be text, found {brief(value)}")
    if not value.strip():
        raise UsageError(f"{where} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where} holds half of a surrogate pair, which is not valid Unicode") from None
    return value


def _advantage(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{where}: advantage must be a finite number, found {brief(value)}")
    return float(value)


def _correct(value: Any, where: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{where}: correct must be true or false, found {brief(value)}")
    return value


def _check_think_tags(response: str, where: str) -> None:
    """Think tags must come in pairs, opened before closed and not nested."""
    tags = thinking.tags(response)
    if tags != list(thinking.TAGS) * (len(tags) // 2):
        raise UsageError(f"{where}: response has unmatched think tags: {' '.join(tags[:6])}")
