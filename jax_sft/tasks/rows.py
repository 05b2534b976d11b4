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
