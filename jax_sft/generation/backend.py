"""What answers requests: our own engine, or another. The words that both sides share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from jax_sft.config import EvaluationConfig, ModelConfig, Sampling
from jax_sft.models import Params
from jax_sft.study.records import Finish

if TYPE_CHECKING:  # whoever plans requests does without JAX
    from jax.sharding import Mesh


@dataclass(frozen=True)
class Request:
    """One completion to draw."""

    id: str
    """Whose it is; means nothing to a backend, but with sample and seed it fixes what is drawn at random."""
    sample: int
    prompt: tuple[int, ...]
    """Token ids."""
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    logprobs: bool = False
    """Whether the log-probability of each new token is wanted."""
    loop_tokens: int = 0
    """End it when its last tokens, so many at least, are one repetition (generation/loops.py); 0: never."""
    decode: Callable[[list[int]], str] | None = field(default=None, compare=False, repr=False)
    """The text of tokens, in which a backend that sees no text finds the stop texts."""
    listen: Callable[[Sequence[int]], None] | None = field(default=None, compare=False, repr=False)
    """Told of new tokens as they come, the closing stop token among them."""
    expected_tokens: int = 0
    """New tokens that it is thought to take, 0 where nobody knows; decides when it is answered, not how."""


@dataclass(frozen=True)
class Completion:
    """What came back: the new tokens, the closing stop token not among them."""

    tokens: tuple[int, ...]
    token_count: int
    """Tokens generated, the stop token counted."""
    finish: Finish
    logprobs: tuple[float, ...] = ()
    """Of each token generated, the stop token among them, by the model itself: without temperature, penalties
    and filters. Empty when not wanted."""
    text: str | None = None
    """Where a stop text ended it: what stands before that. Otherwise the text is that of the tokens."""


class Backend(Protocol):
    """Draws completions with the weights that were loaded last."""

    def abstract_params(self) -> Params:
        """Shapes, types and shardings in which it takes weights; nothing when it has its own."""

    def load(self, params: Params) -> None:
        """Take these weights, which may lie on the host, from now on; let go of the others before."""

    def unload(self) -> None:
        """Let go of the weights."""

    def generate(self, requests: Iterable[Request], seed: int = 0) -> Iterator[tuple[Request, Completion]]:
        """Each request with its completion, in the order in which they end.

        A completion depends on weights, prompt, sampling, id, sample and seed alone. UsageError, before
        anything is drawn, for a request that cannot be answered.
        """


@dataclass(frozen=True)
class Given:
    """Continuations of one prompt, whose likelihoods are asked."""

    id: str
    """Whose they are; means nothing to a scorer."""
    prompt: tuple[int, ...]
    """Token ids, at least one."""
    continuations: tuple[tuple[int, ...], ...]
    """Token ids, at least one in each."""


@dataclass(frozen=True)
class Scored:
    """What a model makes of one continuation."""

    logprobs: tuple[float, ...]
    """Of each of its tokens after all that comes before it, in nats."""
    greedy: bool
    """Whether no other token is likelier anywhere: decoding greedily would write it."""


class Scorer(Protocol):
    """Says how likely given text is with the weights that were loaded last."""

    def abstract_params(self) -> Params:
        """Shapes, types and shardings in which it takes weights; nothing when it has its own."""

    def load(self, params: Params) -> None:
        """Take these weights, placed as `abstract_params` says, from now on."""

    def unload(self) -> None:
        """Let go of the weights."""

    def score(self, given: Iterable[Given]) -> Iterator[tuple[Given, tuple[Scored, ...]]]:
        """Each question with what the model makes of its continuations, in the order in which they end."""


MakeBackend = Callable[[ModelConfig, EvaluationConfig, tuple[int, ...], "Mesh"], Backend]
"""Makes a backend for a model, with the settings of an evaluation, stop tokens and a mesh."""
