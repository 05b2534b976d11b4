"""What a verification of responses is told; kept apart from it, because it is light to import."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VerifyOptions:
    """What `jax-sft data verify` is told."""

    prompt: str = "question"
    """Column of the query."""
    response: str = "response"
    """Column of the response: text, or a list of texts (many responses to one query in one row)."""
    answer: str = "answer"
    """Column of the right answer, with or without $ or \\boxed{}; after #### where there is one."""
    instruction: str = ""
    """Line added to the end of every prompt that is kept."""
    keep: str = "one"
    """`one` right response a query, drawn by seed; `all` responses judged, marked in the column `correct`."""
    max_characters: int = 0
    """Responses longer than this are left out (0: no bound)."""
    seed: int = 0
    ngram: int = 8
    """Words in a row that a query may not share with a benchmark item."""
    workers: int = 2
    seconds: float = 10.0
    """Time limit for one response."""
