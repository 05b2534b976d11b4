"""Training rows: what one is, which tasks make them, and which have public files in a format of their own.

A task that makes rows has a function `training_rows(count, seed, options)` in its file; one whose public
training set needs reading of its own has a `TrainingFormat` there.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jax_sft.config import Option
from jax_sft.tokens.templates import Message
from jax_sft.tokens.thoughts import apart

Generator = Callable[[int, int, Mapping[str, Option]], "list[Row]"]


@dataclass(frozen=True)
class Row:
    """One training example: the turns of the prompt, and the response to learn."""

    id: str
    messages: tuple[Message, ...]
    response: str
    advantage: float = 1.0
    correct: bool | None = None
    """Whether the response was found right; None where nobody looked."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """The functions that the prompt offers, as JSON schemas."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Functions that the answer calls after its response, which may be empty then."""
    reasoning_apart: bool = False
    """Whether the thought of the response stood in a field of its own, which the template writes."""

    @property
    def answer(self) -> str | Message:
        """What is learnt: the response; or, with more to it than text, the assistant's turn."""
        reasoning, content = apart(self.response) if self.reasoning_apart else ("", self.response)
        if not self.tool_calls and not reasoning:
            return self.response
        fields = {"reasoning_content": reasoning, "tool_calls": list(self.tool_calls)}
        return {
            "role": "assistant",
            "content": content or None,
            **{name: value for name, value in fields.items() if value},
        }


@dataclass(frozen=True)
class TrainingFormat:
    """How the rows of a task's public training file are read."""

    prompt: str
    """Column of the question."""
    response: str
    """Column of the response."""
    instruction: str
    """Line added to the end of every question, as the task asks it."""
    clean: Callable[[str], str]
    """The response as it is trained on."""


_GENERATORS = {"countdown": "countdown.training_rows", "miniature_base": "miniature.training_rows"}
_FORMATS = {"gsm8k": "gsm8k.TRAINING_FORMAT"}
GENERATORS, FORMATS = tuple(_GENERATORS), tuple(_FORMATS)


def generated_rows(source: str, count: int, seed: int, options: Mapping[str, Option]) -> list[Row]:
    """`count` rows of one of `GENERATORS`, ids unique; UsageError for options it does not have."""
    generate: Generator = _imported(_GENERATORS[source])
    return generate(count, seed, options)


def training_format(name: str) -> TrainingFormat:
    """The format of that name, one of `FORMATS`."""
    found = _imported(_FORMATS[name])
    assert isinstance(found, TrainingFormat)
    return found


def _imported(place: str) -> Any:
    """What `module.name` is in this room; imported here because only its users should need it."""
    module, name = place.split(".")
    return getattr(importlib.import_module(f"jax_sft.tasks.{module}"), name)
