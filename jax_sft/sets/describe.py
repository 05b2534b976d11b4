"""What a set is made of, in numbers: lengths, traces, kinds of answers and habits of speech."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich.table import Table

from jax_sft.data.rows import tokenise
from jax_sft.data.transforms import query
from jax_sft.errors import UsageError
from jax_sft.responses.habits import behaviours, branching
from jax_sft.responses.refusals import refuses
from jax_sft.responses.thinking import traces, visible
from jax_sft.tasks.rows import Row
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.tokens.tokenizer import Tokenizer

ANSWER_KINDS: Mapping[str, re.Pattern[str]] = {
    "boxed number": re.compile(r"\\boxed\{\s*-?\$?[\d,.]+\s*\}"),
    "boxed formula": re.compile(r"\\boxed\{"),
    "number after ####": re.compile(r"####\s*-?\$?[\d,.]+"),
}


@dataclass(frozen=True)
class SetDescription:
    """Numbers of one set; lengths are tokens, shares are of rows unless said otherwise."""

    name: str
    rows: int
    queries: int
    tokens: int
    prompt_mean: float
    response_mean: float
    response_median: float
    response_95: float
    """95 of 100 responses are at most so long."""
    longest_row: int
    with_trace: float
    trace_share: float
    """Share of all response characters that stand inside think blocks."""
    marked_wrong: float
    """Share of the rows marked `correct false`."""
    branches: float
    """Mean of the changes of mind per 1,000 words of trace; the knob `max_branches` bounds it row by row."""
    answers: dict[str, float]
    """Share of each kind of answer."""
    behaviours: dict[str, float]
    lengths: tuple[int, ...]
    """Tokens of every row."""


def describe_set(
    name: str,
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    template: ChatTemplate,
    end: Literal["end_of_text", "end_of_turn"],
) -> SetDescription:
    """Render, tokenise and count. UsageError for a set without rows."""
    if not rows:
        raise UsageError(f"{name}: holds no rows")
    tokenised = tokenise(rows, tokenizer, template, end, max_length=1 << 30)
    responses_E = tokenised.targets_E
    spoken = zip((row.response for row in rows), responses_E.tolist(), strict=True)
    inside = sum(len(trace) for row in rows for trace in traces(row.response))
    kinds = Counter(answer_kind(row.response) for row in rows)
    return SetDescription(
        name=name,
        rows=len(rows),
        queries=len({query(row) for row in rows}),
        tokens=int(tokenised.offsets[-1]),
        prompt_mean=float((tokenised.lengths_E - responses_E).mean()),
        response_mean=float(responses_E.mean()),
        response_median=float(np.median(responses_E)),
        response_95=float(np.quantile(responses_E, 0.95)),
        longest_row=int(tokenised.lengths_E.max()),
        with_trace=float(np.mean([bool(traces(row.response)) for row in rows])),
        trace_share=inside / sum(len(row.response) for row in rows),
        marked_wrong=float(np.mean([row.correct is False for row in rows])),
        branches=float(np.mean([branching(row.response) for row in rows])),
        answers={kind: count / len(rows) for kind, count in kinds.most_common()},
        behaviours=behaviours(spoken) or {},
        lengths=tuple(tokenised.lengths_E.tolist()),
    )


def answer_kind(response: str) -> str:
    """The first of `ANSWER_KINDS` found after the trace, else `refusal` or `free text`."""
    said = visible(response) or ""
    if kind := next((kind for kind, pattern in ANSWER_KINDS.items() if pattern.search(said)), None):
        return kind
    return "refusal" if refuses(said) else "free text"


def lines_of(description: SetDescription) -> dict[str, str]:
    """The numbers of a set as text, in the order of the table."""
    d = description
    lines = {
        "rows": f"{d.rows:,}",
        "queries": f"{d.queries:,}",
        "tokens": f"{d.tokens:,}",
        "prompt tokens, mean": f"{d.prompt_mean:.0f}",
        "response tokens, mean": f"{d.response_mean:.0f}",
        "response tokens, median": f"{d.response_median:.0f}",
        "response tokens, 95%": f"{d.response_95:.0f}",
        "longest row": f"{d.longest_row:,}",
        "rows with a trace": f"{d.with_trace:.1%}",
        "trace share of responses": f"{d.trace_share:.1%}",
        "marked wrong": f"{d.marked_wrong:.1%}",
        "branches per 1,000 words": f"{d.branches:.2f}",
    }
    lines |= {f"answer: {kind}": f"{share:.1%}" for kind, share in d.answers.items()}
    for name, value in d.behaviours.items():
        known_share = name == "loops"
        label = "ends in a loop" if known_share else f"{name} per 1,000 tokens"
        lines[label] = f"{value:.1%}" if known_share else f"{value:.2f}"
    return lines


def comparison(descriptions: Sequence[SetDescription]) -> list[tuple[str, ...]]:
    """What is counted, and its value in each set as text; empty where a set lacks it."""
    columns = [lines_of(description) for description in descriptions]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, "") for column in columns)) for name in names]


def table(descriptions: Sequence[SetDescription]) -> Table:
    """One column a set, for the terminal."""
    compared = Table("", *(description.name for description in descriptions))
    for cells in comparison(descriptions):
        compared.add_row(*cells)
    return compared
