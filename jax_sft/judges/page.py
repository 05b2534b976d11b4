"""What a judge is: a page that says how a model is asked about a response, and what its answer means.

A page knows no weights, tokens or files. Its prompts are the public ones, byte for byte; their sources and
licences stand on the page, their checksums in tests/golden/judges.json.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar, Literal

from jax_sft.responses.thinking import visible

Conversation = tuple[dict[str, str], ...]
Kind = Literal["generative", "score"]
_PROBES = ("", "context")


@dataclass(frozen=True)
class Question:
    """What a judge is told of a completion."""

    request: str
    """What the user asked for."""
    response: str
    """What is judged: the answer, the reasoning before it, or both."""
    context: str = ""
    """What stood before the request, where the benchmark keeps it apart."""
    other: str = ""
    """The response that it is compared with, for a judge of pairs."""


@dataclass(frozen=True)
class Reading:
    """What a judge's answer says."""

    metrics: dict[str, float]
    """Values by name; one that the answer says nothing of is left out."""
    grade: str
    """In a word or two, for people."""


class Judge(ABC):
    """A page. Stateless; any model can be put behind it, its own weights are only the default."""

    name: ClassVar[str]
    kind: ClassVar[Kind] = "generative"
    """Answers in words, or with one number for the whole conversation (a head `score`)."""
    weights: ClassVar[str] = ""
    """Hub id of the model that the page was made for; empty where any instructed model will do."""
    size: ClassVar[str] = ""
    """The preset of `models.families` that has their shape, by which a plan counts."""
    template: ClassVar[str] = "auto"
    """`auto`: the model's own chat template writes the turns; `raw`: they stand as they are; or a file."""
    max_new_tokens: ClassVar[int] = 16
    """Longest answer, in tokens."""
    response_tokens: ClassVar[int] = 0
    """Only so many tokens of a response are judged, where the public procedure says so; 0 means all."""
    compares: ClassVar[bool] = False
    """Judges a response against another one, which the items hold."""
    version: ClassVar[int] = 1
    """Raised when answers are read in another way: scores that rest on them are then given anew."""

    metrics: ClassVar[Mapping[str, bool]]
    """What it measures, and whether more of it is better."""
    headline: ClassVar[str]
    questions: ClassVar[Mapping[str, str]] = {}
    """Questions with two answers that other judges answer too, and the metric (0 or 1) that holds it."""
    official_for: ClassVar[tuple[str, ...]] = ()
    """Tasks whose published scores are this judge's: its headline is theirs."""

    meaning: ClassVar[str]
    """What its numbers mean, in a line."""
    source: ClassVar[str]
    """Where prompt and model come from."""
    licence: ClassVar[str]
    """Of prompt and weights, and what has to be accepted to get them."""

    @abstractmethod
    def conversations(self, question: Question) -> tuple[Conversation, ...]:
        """What the model is shown: one conversation, or several whose answers are read together."""

    @abstractmethod
    def read(self, outputs: Sequence[str]) -> Reading | None:
        """What the answers to the conversations say; None when they do not say it (never a zero)."""

    @property
    def prompt_hash(self) -> str:
        """Checksum of what it shows a model, whatever is judged, and how the turns are written."""
        shown = [self.conversations(Question("request", "response", context, "other")) for context in _PROBES]
        written = self.template if self.template in ("auto", "raw") else prompt_text(self.template)
        return digest([shown, written, self.response_tokens])


def digest(value: object) -> str:
    """12 hexadecimal digits that tell plain values apart."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=6).hexdigest()


@cache
def prompt_text(file: str) -> str:
    """A prompt of `judges/prompts`, line ends as they are."""
    return (resources.files("jax_sft.judges") / "prompts" / file).read_bytes().decode()


def filled(text: str, **values: str) -> str:
    """The text with each {name} replaced; what is put in is not looked at again, and other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)


def user(content: str, system: str = "") -> Conversation:
    """A conversation of one user turn, after a system prompt where there is one."""
    first = ({"role": "system", "content": system},) if system else ()
    return (*first, {"role": "user", "content": content})


def exchange(question: Question) -> Conversation:
    """The request and the response to it as turns."""
    return (*user(question.request), {"role": "assistant", "content": question.response})


_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def yes(output: str) -> bool | None:
    """Whether an answer begins with yes; None when with neither yes nor no."""
    found = _YES_NO.match(said(output))
    return None if found is None else found[1].lower() == "yes"


def said(output: str) -> str:
    """A judge's answer without what it thought before; nothing when it never ended that."""
    return (visible(output) or "").strip()
