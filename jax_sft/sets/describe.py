"""What a set is made of: lengths, traces, kinds of answers and habits of speech, as a table and a page."""

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import numpy as np
import vl_convert
from etils import epath
from rich.table import Table

from jax_sft.data.rows import tokenise
from jax_sft.data.transforms import TRACE, branching, query
from jax_sft.errors import UsageError
from jax_sft.files import write_atomically
from jax_sft.responses.habits import behaviours
from jax_sft.tasks.rows import Row
from jax_sft.tokens.templates import ChatTemplate
from jax_sft.tokens.tokenizer import Tokenizer

ANSWER_KINDS: Mapping[str, re.Pattern[str]] = {
    "boxed number": re.compile(r"\\boxed\{\s*-?\$?[\d,.]+\s*\}"),
    "boxed formula": re.compile(r"\\boxed\{"),
    "number after ####": re.compile(r"####\s*-?\$?[\d,.]+"),
    "refusal": re.compile(
        r"\b(?:I'm sorry|I am sorry|I can(?:no|')t (?:help|assist|provide))", re.IGNORECASE
    ),
}
_EDGES_PER_DOUBLING = 3


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
    inside = sum(len(match[1]) for row in rows for match in TRACE.finditer(row.response))
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
        with_trace=float(np.mean([TRACE.search(row.response) is not None for row in rows])),
        trace_share=inside / sum(len(row.response) for row in rows),
        marked_wrong=float(np.mean([row.correct is False for row in rows])),
        branches=float(np.mean([branching(row.response) for row in rows])),
        answers={kind: count / len(rows) for kind, count in kinds.most_common()},
        behaviours=behaviours(spoken) or {},
        lengths=tuple(tokenised.lengths_E.tolist()),
    )


def answer_kind(response: str) -> str:
    """The first of `ANSWER_KINDS` found after the trace, or `free text`."""
    visible = response[response.rfind("</think>") + len("</think>") :] if "</think>" in response else response
    return next((kind for kind, pattern in ANSWER_KINDS.items() if pattern.search(visible)), "free text")


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


def table(descriptions: Sequence[SetDescription]) -> Table:
    """One column a set, for the terminal."""
    made = Table("", *(description.name for description in descriptions))
    columns = [lines_of(description) for description in descriptions]
    for name in dict.fromkeys(name for column in columns for name in column):
        made.add_row(name, *(column.get(name, "") for column in columns))
    return made


def write_page(descriptions: Sequence[SetDescription], path: epath.PathLike) -> None:
    """The table and the figures (lengths, answers, behaviours) as one HTML file that needs no network."""
    columns = [lines_of(description) for description in descriptions]
    names = dict.fromkeys(name for column in columns for name in column)
    head = "".join(f"<th>{html.escape(description.name)}</th>" for description in descriptions)
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td>{column.get(name, '')}</td>" for column in columns)
        + "</tr>\n"
        for name in names
    )
    figures = "\n".join(
        f"<figure>{vl_convert.vegalite_to_svg(chart.to_dict())}</figure>" for chart in charts(descriptions)
    )
    write_atomically(path, _PAGE.format(head=head, body=body, figures=figures))


def charts(descriptions: Sequence[SetDescription]) -> list[alt.Chart]:
    """Lengths of rows on a logarithmic axis, kinds of answers, and behaviours where they were counted."""
    shares = [
        {"set": d.name, "kind": kind, "share": share}
        for d in descriptions
        for kind, share in d.answers.items()
    ]
    habits = [
        {"set": d.name, "kind": kind, "value": value}
        for d in descriptions
        for kind, value in d.behaviours.items()
        if kind != "loops"
    ]
    made = [
        alt.Chart(alt.Data(values=length_histogram(descriptions)), title="Tokens of a row, share of rows")
        .mark_line(interpolate="step-after")
        .encode(
            x=alt.X("tokens:Q", scale=alt.Scale(type="log", base=2), title="tokens"),
            y=alt.Y("share:Q", axis=alt.Axis(format="%"), title=None),
            color="set:N",
        )
        .properties(width=620, height=240),
        _bars(shares, "share", "Answers, share of rows", "%"),
    ]
    return [*made, _bars(habits, "value", "Phrases per 1,000 tokens", ".1f")] if habits else made


def length_histogram(descriptions: Sequence[SetDescription]) -> list[dict[str, Any]]:
    """Share of each set's rows between edges that are equally far apart in the logarithm."""
    longest = max(d.longest_row for d in descriptions)
    count = int(np.ceil(np.log2(longest + 1) * _EDGES_PER_DOUBLING)) + 1
    edges = 2 ** (np.arange(count + 1) / _EDGES_PER_DOUBLING)
    return [
        {"set": d.name, "tokens": float(edge), "share": float(share)}
        for d in descriptions
        for edge, share in zip(edges[:-1], np.histogram(d.lengths, edges)[0] / d.rows, strict=True)
    ]


def _bars(values: list[dict[str, Any]], field: str, title: str, number: str) -> alt.Chart:
    return (
        alt.Chart(alt.Data(values=values), title=title)
        .mark_bar()
        .encode(
            y=alt.Y("kind:N", title=None, sort=None),
            x=alt.X(f"{field}:Q", axis=alt.Axis(format=number), title=None),
            color="set:N",
            yOffset="set:N",
        )
        .properties(width=620)
    )


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Data sets</title>
<style>
body {{ font-family: Inter, "Helvetica Neue", Arial, sans-serif; margin: 2em auto; max-width: 60em; }}
td, th {{ padding: .2em .9em; text-align: right; border-bottom: 1px solid #e6e8eb; }}
td:first-child {{ text-align: left; }}
figure {{ margin: 2em 0; }}
</style>
<h1>Data sets</h1>
<table><tr><th></th>{head}</tr>
{body}</table>
{figures}
</html>
"""
