"""How likely a model finds given text, as a unit keeps it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Likelihood:
    """Of one continuation of an item's prompt."""

    logprob: float
    """Sum over its tokens, in nats."""
    tokens: int
    greedy: bool
    """Whether decoding greedily would write it."""
