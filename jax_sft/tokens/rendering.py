"""Conversations to token ids and loss masks: rendered once, tokenised once, masked by character offsets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from jax_sft.errors import UsageError
from jax_sft.tokens.marks import PROBE, Marks, find_marks
from jax_sft.tokens.templates import ChatTemplate, Message
from jax_sft.tokens.thoughts import after_prompt, together
from jax_sft.tokens.tokenizer import Offsets, Tokenizer

End = Literal["end_of_text", "end_of_turn"]
Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class RenderedRow:
    """One training example as tokens."""

    ids: np.ndarray
    """int32 [T]: prompt, response, end token."""
    is_target: np.ndarray
    """bool [T]: true where the loss looks at the token, that is the response and its end token."""


def render_row(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    end: End,
    messages: Sequence[Message],
    response: str | Message,
    tools: Tools = (),
) -> RenderedRow:
    """Tokens of a prompt, the response to it and the token that closes it.

    A token made from both prompt and response characters is a target: the mask is the one that
    transformers derives from the same offsets.

    Args:
        tokenizer: makes the tokens.
        template: writes the turns.
        end: what closes the response.
        messages: the turns of the prompt.
        response: its text; or the assistant's turn with `reasoning_content` or `tool_calls`, which the
            template writes.
        tools: the functions that the prompt offers, as JSON schemas.

    Raises:
        UsageError: the template fails, or leaves something out.
    """
    marks = find_marks(tokenizer, template, [*messages, {"role": "assistant", "response": response}], tools)
    turns, tools, answer = marks.hide_turns(messages), marks.hide(tools), marks.hide(response, "assistant")
    prompt = _render_prompt_text(template, turns, tools)
    if isinstance(answer, str):
        learnt = after_prompt(template, prompt, answer) + _closing(tokenizer, template, end)
    else:
        written = _write_turn(template, turns, answer, prompt, tools)
        learnt = _close(tokenizer, template, end, written)
    ids, offsets = _encode(tokenizer, prompt + learnt, marks)
    prompt_length = len(marks.show(prompt))
    ends_T = np.fromiter((stop for _, stop in offsets), np.int64, len(offsets))
    return RenderedRow(np.asarray(ids, np.int32), ends_T > prompt_length)


def render_prompt(
    tokenizer: Tokenizer, template: ChatTemplate, messages: Sequence[Message], tools: Tools = ()
) -> np.ndarray:
    """int32 [T]: tokens of a conversation up to the header that opens the assistant's turn.

    Raises:
        UsageError: the template fails, or leaves something out.
    """
    marks = find_marks(tokenizer, template, messages, tools)
    text = _render_prompt_text(template, marks.hide_turns(messages), marks.hide(tools))
    return np.asarray(_encode(tokenizer, text, marks)[0], np.int32)


def render_conversation(
    tokenizer: Tokenizer, template: ChatTemplate, messages: Sequence[Message]
) -> np.ndarray:
    """int32 [T]: tokens of a whole conversation as the template writes it, what it puts at the end included.

    Raises:
        UsageError: the template fails.
    """
    marks = find_marks(tokenizer, template, messages)
    text = template.render(marks.hide_turns(messages))
    return np.asarray(_encode(tokenizer, text, marks)[0], np.int32)


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
    special = set(tokenizer.special_tokens.values())
    tail = tokenizer.encode(end_of_turn_text(template))
    return next((number for number in tail if number in special), tokenizer.eos_id)


def end_of_turn_text(template: ChatTemplate) -> str:
    """What the template writes after an assistant's message that ends the conversation."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE}]
    _, found, tail = template.render(turns).rpartition(PROBE)
    if not found:
        raise UsageError(f"chat template {template.name} leaves the assistant's message out")
    return tail


def _closing(tokenizer: Tokenizer, template: ChatTemplate, end: End) -> str:
    return tokenizer.backend.id_to_token(end_id(tokenizer, template, end)) or ""


def _render_prompt_text(template: ChatTemplate, messages: Sequence[Message], tools: Tools) -> str:
    if not messages:
        raise UsageError("a row needs at least one message before the response; this one has none")

    def render(turns: Sequence[Message], offered: Tools) -> str:
        return template.render(turns, add_generation_prompt=True, tools=list(offered) or None)

    text, last = render(messages, tools), messages[-1]
    content = last.get("content")
    # A template may write the content otherwise, as JSON for example: then the text changes with it.
    if isinstance(content, str) and content.strip() not in text:
        other = [*messages[:-1], {**last, "content": PROBE}]
        if render(other, tools) == text:
            raise UsageError(f"chat template {template.name} leaves the last message out: {content[:60]!r}")
    if tools and render(messages, ()) == text:
        raise UsageError(f"chat template {template.name} leaves the tools out; use one that writes them")
    if any(name not in text for message in messages for name in _called(message)):
        raise UsageError(f"chat template {template.name} leaves tool_calls out; use one that writes them")
    return text


def _write_turn(
    template: ChatTemplate, messages: Sequence[Message], turn: Message, prompt: str, tools: Tools
) -> str:
    """What the template writes after the prompt for a turn with fields of its own.

    Where it does not know `reasoning_content`, the thought stands in the content, between think tags.
    """
    thought, calls = str(turn.get("reasoning_content", "")), _called(turn)
    content = together(thought, turn.get("content") or "") if thought else turn.get("content")
    inside = {key: value for key, value in turn.items() if key != "reasoning_content"} | {"content": content}
    problem = ""
    for candidate in (turn, inside):
        try:
            whole = template.render([*messages, candidate], tools=list(tools) or None)
        except UsageError as error:
            problem = f": {error}"
            continue
        written = whole.removeprefix(prompt)
        if whole.startswith(prompt) and thought.strip() in written and all(name in written for name in calls):
            return written
    if calls:
        raise UsageError(f"chat template {template.name} does not write the answer's tool_calls{problem}")
    return after_prompt(template, prompt, str(content)) + end_of_turn_text(template)


def _close(tokenizer: Tokenizer, template: ChatTemplate, end: End, written: str) -> str:
    """The assistant's turn as the template wrote it, closed by one token and nothing after it."""
    text = written.rstrip()
    endings = [token for token in tokenizer.special_tokens if text.endswith(token)]
    ending = max(set(endings) - tokenizer.tags, key=len, default="")
    if ending and end == "end_of_turn":
        return text
    body = text.removesuffix(ending) if ending else written.removesuffix(end_of_turn_text(template))
    return body + _closing(tokenizer, template, end)


def _called(message: Message) -> set[str]:
    """Names of the functions that a turn calls."""
    return {str((call.get("function") or call).get("name")) for call in message.get("tool_calls") or ()}


def _encode(tokenizer: Tokenizer, text: str, marks: Marks) -> tuple[list[int], Offsets]:
    """Ids and offsets of marked text, the offsets counted in the text without marks."""
    ids, offsets = tokenizer.encode_with_offsets(text)
    if not marks.everywhere:
        return ids, offsets
    # With the marks in place, whatever is special was written by the template: cut the text there and
    # tokenise what lies between as plain text.
    special = set(tokenizer.special_tokens.values())
    written = [(number, span) for number, span in zip(ids, offsets, strict=True) if number in special]
    result_ids: list[int] = []
    result_offsets: Offsets = []
    done, position = 0, 0
    for number, (start, stop) in [*written, (-1, (len(text), len(text)))]:
        piece = marks.show(text[done:start])
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
