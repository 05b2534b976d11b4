"""What the completions of a unit were like, beside its score."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outputs:
    """Numbers of all completions of a unit, whatever they scored; None where they were not kept."""

    samples: int | None = None
    """Completions of an item."""
    median_tokens: float | None = None
    total_tokens: int | None = None
    unfinished_rate: float | None = None
    """Share that did not end by themselves: cut at the limit, or stopped in a loop."""
    loop_rate: float | None = None
    """Share that went round in a loop: stopped for it, or ending in one piece of text over and over."""
    thought_rate: float | None = None
    """Share that thought, or whose chat template opened the thought."""
    well_formed_rate: float | None = None
    """Share of those that thought whose think tags come in pairs, in order; None where none thought."""
    seconds: float | None = None
    """Wall time of generation, each stream's shared out over its units by their tokens."""
