"""A tokenizer: one thin class over the `tokenizers` library."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import tokenizers
from etils import epath

from jax_sft import files
from jax_sft.errors import UsageError

Offsets = list[tuple[int, int]]

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
"""What tokenizer_config.json names, and every chat template sees."""


_TAG = re.compile(r"<[A-Za-z][\w-]*>")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to token ids and back, with the special tokens known by what they are for.

    Nothing is added by itself at either end of a text: what a model needs there, its chat template writes.
    Two kinds of added tokens exist, as in transformers. *Special* ones (`<|im_end|>`) steer the model and are
    left out when text is decoded for a person; others (`<think>` in Qwen3) are ordinary words that happen to
    be one token.
    """

    name: str
    backend: tokenizers.Tokenizer
    """What does the work; share it, do not change it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Content of tokenizer_config.json: names of the special tokens, the chat template."""

    @cached_property
    def hash(self) -> str:
        """sha256 of what decides ids: two tokenizers with the same hash read texts alike."""
        described = json.dumps([self.backend.to_str(), self.named_tokens], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id: the fewest rows an embedding table needs."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def check_fits(self, vocab_size: int, owner: str) -> None:
        """UsageError, naming the owner, when ids may come out for which a model has no embedding."""
        if self.vocab_size > vocab_size:
            raise UsageError(
                f"{owner}: model.vocab_size {vocab_size} is too small for the {self.vocab_size} tokens of "
                f"tokenizer {self.name}"
            )

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Every special token and its id."""
        added = self.backend.get_added_tokens_decoder()
        return {token.content: number for number, token in sorted(added.items()) if token.special}

    @cached_property
    def tags(self) -> frozenset[str]:
        """Special tokens that mark up the model's own text: pairs `<name>` and `</name>`, as `<think>`."""
        special, named = self.special_tokens, set(self.named_tokens.values())
        opening = [token for token in special if _TAG.fullmatch(token) and f"</{token[1:]}" in special]
        pairs = [{token, f"</{token[1:]}"} for token in opening]
        return frozenset().union(*(pair for pair in pairs if not pair & named))

    @cached_property
    def named_tokens(self) -> dict[str, str]:
        """`bos_token`, `eos_token`, … to their text, as a chat template may ask for them."""
        named = {key: _token_text(self.settings.get(key)) for key in NAMED_TOKENS}
        return {key: text for key, text in named.items() if text is not None}

    @cached_property
    def eos_id(self) -> int:
        """The tokenizer's end of text; UsageError when it names none."""
        if "eos_token" not in self.named_tokens:
            raise UsageError(f"tokenizer {self.name}: tokenizer_config.json names no eos_token; add it")
        return self.token_id(self.named_tokens["eos_token"])

    @cached_property
    def pad_id(self) -> int:
        """Fills unused positions; the end of text when the tokenizer names no padding."""
        name = self.named_tokens.get("pad_token")
        return self.eos_id if name is None else self.token_id(name)

    @property
    def chat_template(self) -> str | None:
        """Jinja text of the tokenizer's own template, the one named `default` when it has several."""
        template = self.settings.get("chat_template")
        if isinstance(template, list):
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        return template

    def token_id(self, token: str) -> int:
        """Id of one token given as text; UsageError when the tokenizer has no such token."""
        number = self.backend.token_to_id(token)
        if number is None:
            raise UsageError(f"tokenizer {self.name}: no token {token!r} in its vocabulary")
        return int(number)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens spelt in it become those tokens."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], Offsets]:
        """Ids of `text`, and for each the characters [start, end) it was made from."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def encode_plain(self, text: str) -> tuple[list[int], Offsets]:
        """Like `encode_with_offsets`, but special tokens spelt in the text stay plain text."""
        encoding = self._plain_backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def encode_plain_texts(self, texts: Sequence[str]) -> list[tuple[list[int], Offsets]]:
        """As `encode_plain` of each text, by all cores of the machine."""
        encodings = self._plain_backend.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """Text of `ids`; bytes that do not make a character yet become U+FFFD.

        `skip_special_tokens` leaves out those that steer the model, but not its tags.
        """
        if skip_special_tokens and self.tags:
            silent = {number for token, number in self.special_tokens.items() if token not in self.tags}
            return self.backend.decode([i for i in ids if i not in silent], skip_special_tokens=False)
        return self.backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def save(self, folder: epath.PathLike, chat_template: str | None = None) -> None:
        """Write tokenizer.json and tokenizer_config.json as transformers reads them.

        Args:
            folder: made when it does not exist.
            chat_template: written in place of the tokenizer's own.
        """
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self.settings}
        if chat_template is not None:
            settings["chat_template"] = chat_template
        files.write_atomically(epath.Path(folder) / "tokenizer.json", self.backend.to_str(pretty=False))
        files.write_json(epath.Path(folder) / "tokenizer_config.json", settings)

    @cached_property
    def _plain_backend(self) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        backend.encode_special_tokens = True
        return backend


def _token_text(value: Any) -> str | None:
    """A special token is stored as its text or as an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
