"""Special tokens that a text spells stay text: unused characters stand for them while it is rendered.

Text that came from a user, a tool or a response never turns into a special token, even when it spells one.
One kind is the assistant's to write, and becomes the token where its own turns spell it, as in transformers:
tags, that is pairs `<name>` and `</name>` such as `<think>`, unless the template writes them around turns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jax_sft.responses.thinking import TAGS
from jax_sft.tokens.templates import ChatTemplate, Message
from jax_sft.tokens.tokenizer import Tokenizer

# Supplementary private use area A: 65,534 characters that no tokenizer and no sane text gives a meaning.
_PRIVATE_USE = range(0xF0000, 0xFFFFE)
PROBE = chr(_PRIVATE_USE[-1])
"""A text to find again in what a template writes."""


@dataclass(frozen=True)
class Marks:
    """For each special token that is spelt, the character that stands for it."""

    everywhere: Mapping[str, str]
    tags: frozenset[str]
    """Those that the assistant may write."""

    def hide(self, value: Any, role: str = "") -> Any:
        """The value with characters for the tokens that its texts spell, as one with that role writes it."""
        if not self.everywhere:
            return value
        if isinstance(value, str):
            for token, mark in self.everywhere.items():
                if role != "assistant" or token not in self.tags:
                    value = value.replace(token, mark)
        elif isinstance(value, Mapping):
            value = {key: self.hide(entry, role) for key, entry in value.items()}
        elif isinstance(value, Sequence):
            value = [self.hide(entry, role) for entry in value]
        return value

    def hide_turns(self, messages: Sequence[Message]) -> list[Message]:
        """Each turn as its role writes it."""
        return [self.hide(message, message["role"]) for message in messages]

    def show(self, text: str) -> str:
        """The text with the tokens in place of their characters."""
        for token, mark in self.everywhere.items():
            text = text.replace(mark, token)
        return text


def find_marks(
    tokenizer: Tokenizer, template: ChatTemplate, messages: Sequence[Message], tools: Any = ()
) -> Marks:
    """Characters that occur nowhere, for the special tokens that are spelt and must stay text."""
    tags = _own_tags(tokenizer, template)
    own = _strings([message for message in messages if message["role"] == "assistant"])
    others = _strings([[message for message in messages if message["role"] != "assistant"], tools])
    spelt = [
        token
        for token in tokenizer.special_tokens
        if any(token in text for text in others) or (token not in tags and any(token in text for text in own))
    ]
    if not spelt:
        return Marks({}, tags)
    used = set().union(*own, *others)
    unused = (chr(number) for number in _PRIVATE_USE if chr(number) not in used)
    # Longest first: one special token may be part of another.
    return Marks(dict(zip(sorted(spelt, key=len, reverse=True), unused, strict=False)), tags)


@lru_cache(maxsize=16)
def _own_tags(tokenizer: Tokenizer, template: ChatTemplate) -> frozenset[str]:
    """The tags that are tokens where the assistant spells them."""
    if not tokenizer.tags:
        return tokenizer.tags
    turns = [{"role": role, "content": PROBE} for role in ("user", "assistant", "user")]
    around = template.render(turns, add_generation_prompt=True)
    return frozenset(tag for tag in tokenizer.tags if tag in TAGS or tag not in around)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence):
        return [text for entry in value for text in _strings(entry)]
    return []
