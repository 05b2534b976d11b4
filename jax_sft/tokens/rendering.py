"""Conversations to token ids and loss masks: rendered once, tokenised once, masked by character offsets.

Text that came from a user or a response never turns into a special token, even when it spells one: such
strings are replaced by unused characters before the template sees them and put back before tokenising.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from jax_sft.errors import UsageError
from jax_sft.tokens.templates import ChatTemplate, Message
from jax_sft.tokens.tokenizer import Offsets, Tokenizer

End = Literal["end_of_text", "end_of_turn"]

# Supplementary private use area A: 65,534 characters that no tokenizer and no sane text gives a meaning.
_PRIVATE_USE = range(0xF0000, 0xFFFFE)


@dataclass(frozen=True)
class RenderedRow:
    """One training example as tokens."""

    ids: np.ndarray
    """int32 [T]: prompt, response, end token."""
    is_target: np.ndarray
    """bool [T]: true where the loss looks at the token, that is the response and its end token."""


def render_row(
    tokenizer: Tokenizer, template: ChatTemplate, end: End, messages: Sequence[Message], response: str
) -> RenderedRow:
    """Tokens of a prompt, the response to it and the token that closes it.

    A token made from both prompt and response characters is a target: the mask is the one that
    transformers derives from the same offsets.

    Raises:
        UsageError: the template fails, or leaves the last message out.
    """
    marks = _marks(tokenizer, [messages, response])
    prompt = _render_prompt_text(template, _mark(messages, marks))
    closing = tokenizer.backend.id_to_token(end_id(tokenizer, template, end))
    ids, offsets = _encode(tokenizer, prompt + _mark(response, marks) + closing, marks)
    prompt_length = len(_unmark(prompt, marks))
    ends_T = np.fromiter((stop for _, stop in offsets), np.int64, len(offsets))
    return RenderedRow(np.asarray(ids, np.int32), ends_T > prompt_length)


def render_prompt(tokenizer: Tokenizer, template: ChatTemplate, messages: Sequence[Message]) -> np.ndarray:
    """int32 [T]: tokens of a conversation up to the header that opens the assistant's turn.

    Raises:
        UsageError: the template fails, or leaves the last message out.
    """
    marks = _marks(tokenizer, messages)
    ids, _ = _encode(tokenizer, _render_prompt_text(template, _mark(messages, marks)), marks)
    return np.asarray(ids, np.int32)


def end_id(tokenizer: Tokenizer, template: ChatTemplate, end: End) -> int:
    """The token that closes a response.

    `end_of_text` is the tokenizer's eos_token. `end_of_turn` is the special token that the template writes
    after an assistant's message; the eos_token when it writes none.
    """
    return tokenizer.eos_id if end == "end_of_text" else _end_of_turn_id(tokenizer, template)


def stop_ids(tokenizer: Tokenizer, template: ChatTemplate) -> tuple[int, ...]:
    """Tokens at which generation stops: end of text and end of turn, ascending, each once."""
    return tuple(sorted({tokenizer.eos_id, _end_of_turn_id(tokenizer, template)}))


@lru_cache(maxsize=16)
def _end_of_turn_id(tokenizer: Tokenizer, template: ChatTemplate) -> int:
    probe = chr(_PRIVATE_USE[-1])
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": probe}]
    _, found, tail = template.render(turns).rpartition(probe)
    if not found:
        raise UsageError(f"chat template {template.name} leaves the assistant's message out")
    special = set(tokenizer.special_tokens.values())
    return next((number for number in tokenizer.encode(tail) if number in special), tokenizer.eos_id)


def _render_prompt_text(template: ChatTemplate, messages: Sequence[Message]) -> str:
    if not messages:
        raise UsageError("a row needs at least one message before the response; this one has none")
    text = template.render(messages, add_generation_prompt=True)
    content = messages[-1].get("content")
    if isinstance(content, str) and content.strip() not in text:
        raise UsageError(f"chat template {template.name} leaves the last message out: {content[:60]!r}")
    return text


def _encode(tokenizer: Tokenizer, text: str, marks: Mapping[str, str]) -> tuple[list[int], Offsets]:
    """Ids and offsets of marked text, the offsets counted in the text without marks."""
    ids, offsets = tokenizer.encode_with_offsets(text)
    if not marks:
        return ids, offsets
    # With the marks in place, whatever is special was written by the template: cut the text there and
    # tokenise what lies between as plain text.
    special = set(tokenizer.special_tokens.values())
    written = [(number, span) for number, span in zip(ids, offsets, strict=True) if number in special]
    result_ids: list[int] = []
    result_offsets: Offsets = []
    done, position = 0, 0
    for number, (start, stop) in [*written, (-1, (len(text), len(text)))]:
        piece = _unmark(text[done:start], marks)
        if piece:
            piece_ids, piece_offsets = tokenizer.encode_plain(piece)
            result_ids += piece_ids
            result_offsets += [(position + first, position + last) for first, last in piece_offsets]
            position += len(piece)
        if number >= 0:
            result_ids.append(number)
            result_offsets.append((position, position + stop - start))
            position += stop - start
        done = stop
    return result_ids, result_offsets


def _marks(tokenizer: Tokenizer, value: Any) -> dict[str, str]:
    """For every special token spelt somewhere in `value`, a character that occurs nowhere in it."""
    texts = list(_strings(value))
    spelt = [token for token in tokenizer.special_tokens if any(token in text for text in texts)]
    if not spelt:
        return {}
    used = set().union(*texts)
    unused = (chr(number) for number in _PRIVATE_USE if chr(number) not in used)
    # Longest first: one special token may be part of another.
    return dict(zip(sorted(spelt, key=len, reverse=True), unused, strict=False))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence):
        return [text for entry in value for text in _strings(entry)]
    return []


def _mark(value: Any, marks: Mapping[str, str]) -> Any:
    if not marks:
        return value
    if isinstance(value, str):
        for token, mark in marks.items():
            value = value.replace(token, mark)
        return value
    if isinstance(value, Mapping):
        return {key: _mark(entry, marks) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_mark(entry, marks) for entry in value]
    return value


def _unmark(text: str, marks: Mapping[str, str]) -> str:
    for token, mark in marks.items():
        text = text.replace(mark, token)
    return text
