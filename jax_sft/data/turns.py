"""The turns of a conversation as files hold them, checked: what a template sees, and the answer to learn."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jax_sft.data.records import brief
from jax_sft.errors import UsageError
from jax_sft.responses import thinking
from jax_sft.tokens.templates import Message
from jax_sft.tokens.thoughts import together

T = TypeVar("T")
ROLES = ("system", "user", "assistant", "tool")
_SPEAKERS = {"human": "user", "gpt": "assistant", "observation": "tool"}
"""Roles in the words of ShareGPT, where they are others."""
_NOT_READ = ("audio", "function_call", "images", "reasoning", "refusal", "thinking")
"""Fields of an answer that may hold what is to be learnt."""


def read_turns(value: Any, where: str) -> list[Message]:
    """Messages {role, content, …} or {from, value}, all that is not null of them; UsageError for others."""
    if not isinstance(value, list | tuple) or not value:
        raise UsageError(f"{where} must be a list of messages and not empty, found {brief(value)}")
    return [_turn(message, f"{where}[{position}]") for position, message in enumerate(value)]


def _turn(message: Any, where: str) -> Message:
    if isinstance(message, Mapping) and "role" not in message and {"from", "value"} <= set(message):
        speaker = message["from"]
        message = {"role": _SPEAKERS.get(str(speaker), speaker), "content": message["value"]}
    fields = set(message) if isinstance(message, Mapping) else set()
    if "role" not in fields or not fields & {"content", "tool_calls"}:
        raise UsageError(f"{where} must be an object with role and content, found {brief(message)}")
    role = message["role"]
    if role not in ROLES:
        raise UsageError(f"{where}: role must be one of {', '.join(ROLES)}, found {role!r}")
    turn = {key: value for key, value in message.items() if value is not None or key == "content"}
    calls = read_calls(turn.pop("tool_calls", None), where)
    if not calls:
        read_text(turn.get("content"), f"{where}: content", empty=role == "tool")
    else:
        # Without text the content is null, as OpenAI has it and templates look for it.
        content = read_text(turn.get("content") or "", f"{where}: content", empty=True)
        turn |= {"content": content or None, "tool_calls": calls}
    return _check_unicode(turn, where)


def read_calls(value: Any, where: str) -> list[dict[str, Any]]:
    """Calls of functions that have a name, as a list or as JSON text; none for null or an empty one."""
    calls = _objects(value, f"{where}: tool_calls")
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UsageError(f"{where}: tool_calls must name their functions, found {brief(call)}")
    return calls


def read_tools(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """Functions as JSON schemas, as a list or as JSON text."""
    return tuple(_objects(value, f"{where}: tools"))


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UsageError(f"{where} is not JSON: {error}") from None
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = [json.loads(entry) if _is_json(entry) else entry for entry in value]
    if value and not (isinstance(value, list) and all(isinstance(entry, dict) for entry in value)):
        raise UsageError(f"{where} must be a list of objects, found {brief(value)}")
    return _check_unicode(value or [], where)


def _is_json(value: Any) -> bool:
    try:
        return isinstance(value, str) and isinstance(json.loads(value), dict)
    except ValueError:
        return False


def read_answer(turn: Message, where: str) -> tuple[str, bool]:
    """The text to learn of an assistant's turn, and whether its thought stood in `reasoning_content`.

    Raises:
        UsageError: nothing to learn, think tags that do not match, or a field that is not read.
    """
    for name in _NOT_READ:
        if turn.get(name):
            raise UsageError(f"{where}: {name} is not read; put it into content or reasoning_content")
    content, calls = turn.get("content"), turn.get("tool_calls")
    content = read_text("" if content is None and calls else content, where, empty=bool(calls))
    thought = turn.get("reasoning_content")
    if thought is None or (isinstance(thought, str) and not thought.strip()):
        if not thinking.matched(content):
            tags = " ".join(thinking.tags(content)[:6])
            raise UsageError(f"{where} has unmatched think tags: {tags}")
        return content, False
    read_text(thought, f"{where}: reasoning_content")
    if thinking.tags(thought + content):
        raise UsageError(f"{where} has think tags and reasoning_content; keep one of the two")
    return together(thought, content), True


def read_text(value: Any, where: str, empty: bool = False) -> str:
    """The value, which is text; UsageError when it is not, or is `empty` and must not be."""
    if not isinstance(value, str):
        raise UsageError(f"{where} must be text, found {brief(value)}")
    if not value.strip() and not empty:
        raise UsageError(f"{where} is empty")
    return _check_unicode(value, where)


def _check_unicode(value: T, where: str) -> T:
    """The value; UsageError when a text in it holds half of a surrogate pair, as JSON may."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where} holds half of a surrogate pair, which is not valid Unicode") from None
    return value
