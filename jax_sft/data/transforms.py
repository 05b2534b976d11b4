"""Data quality as knobs: rows in, rows out, so that "low-quality data hurts" is a study and not a fork.

`data.knobs` names them, for example `wrong 0.25 trace_share 0.5`. Everything drawn depends on the seed and on
the row alone, never on how many other rows there are or on their order.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jax_sft.config import Option
from jax_sft.errors import UsageError
from jax_sft.options import fitting
from jax_sft.responses.habits import branching
from jax_sft.responses.thinking import change_traces, without_traces
from jax_sft.tasks.rows import Row
from jax_sft.tokens.templates import Message


@dataclass(frozen=True)
class Knobs:
    """What is done to the rows of a set; the defaults change nothing. Applied from top to bottom."""

    wrong: float = -1.0
    """Share of queries answered wrongly; needs rows marked `correct`; keeps one row a query. -1: as is."""
    min_words: int = 0
    max_words: int = 0
    """Keep responses of min_words to max_words words (0: no bound)."""
    max_branches: float = 0.0
    """Keep responses whose trace changes its mind at most so often per 1,000 words (0: no bound)."""
    subset: int = 0
    """Keep so many rows, drawn by the seed, in the order they had (0: all)."""
    trace_share: float = 1.0
    """Keep this share of each trace's words, from its beginning."""
    trace: str = "keep"
    """`remove` leaves out the think block and keeps the summary and answer."""


def parse_knobs(values: Mapping[str, Option]) -> Knobs:
    """The knobs of `data.knobs`; UsageError for an unknown name, a wrong type or a value out of range."""
    fields = {field.name: field for field in dataclasses.fields(Knobs)}
    fitted: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise UsageError(f"data.knobs {name!r} is not one of {', '.join(fields)}")
        kind = type(fields[name].default)
        fitted[name] = fitting(value, kind)
        if fitted[name] is None:
            raise UsageError(f"data.knobs {name} must be {kind.__name__}, found {value!r}")
    knobs = dataclasses.replace(Knobs(), **fitted)
    for name in ("min_words", "max_words", "max_branches", "subset"):
        if getattr(knobs, name) < 0:
            raise UsageError(f"data.knobs {name} must not be below 0, found {getattr(knobs, name)}")
    if not 0 <= knobs.trace_share <= 1 or (knobs.wrong != -1 and not 0 <= knobs.wrong <= 1):
        raise UsageError("data.knobs wrong and trace_share are shares: from 0 to 1")
    if knobs.trace not in ("keep", "remove"):
        raise UsageError(f"data.knobs trace must be keep or remove, found {knobs.trace!r}")
    return knobs


def transform(rows: Sequence[Row], knobs: Knobs, seed: int) -> list[Row]:
    """The rows after all knobs; UsageError when none is left or a knob asks for what the rows do not have."""
    kept = list(rows)
    if knobs.wrong >= 0:
        kept = mix_in_wrong(kept, knobs.wrong, seed)
    steps: list[tuple[str, bool, Callable[[Row], bool]]] = [
        ("min_words", knobs.min_words > 0, lambda row: len(row.response.split()) >= knobs.min_words),
        ("max_words", knobs.max_words > 0, lambda row: len(row.response.split()) <= knobs.max_words),
        ("max_branches", knobs.max_branches > 0, lambda row: branching(row.response) <= knobs.max_branches),
    ]
    for name, wanted, keep in steps:
        if wanted:
            kept = [row for row in kept if keep(row)]
            if not kept:
                raise UsageError(f"data.knobs {name} {getattr(knobs, name)} leaves none of {len(rows)} rows")
    if knobs.subset:
        kept = subset(kept, knobs.subset, seed)
    if knobs.trace_share < 1:
        kept = [truncate_trace(row, knobs.trace_share) for row in kept]
    return [remove_trace(row) for row in kept] if knobs.trace == "remove" else kept


def draw(seed: int, *names: str) -> int:
    """A number from 0 to 2**64 - 1 that depends on the seed and the names alone."""
    return int.from_bytes(hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()[:8], "big")


def query(row: Row) -> str:
    """The prompt as one text: rows with the same one answer the same query."""
    tools = [json.dumps(row.tools)] if row.tools else []
    return "\n".join([*tools, *(_turn(message) for message in row.messages)])


def _turn(message: Message) -> str:
    calls = f" {json.dumps(message['tool_calls'])}" if message.get("tool_calls") else ""
    return f"{message['role']}: {message['content'] or ''}{calls}"


def subset(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """`count` rows drawn by seed and id, in the order they had; smaller subsets lie inside larger ones."""
    if count > len(rows):
        raise UsageError(f"data.knobs subset asks for {count} rows, there are {len(rows)}")
    chosen = sorted(range(len(rows)), key=lambda i: (draw(seed, "subset", rows[i].id), i))[:count]
    return [rows[i] for i in sorted(chosen)]


def one_per_query(rows: Sequence[Row], seed: int) -> list[Row]:
    """One row of each query, drawn by seed and id, in the order the queries first appear."""
    chosen: dict[str, Row] = {}
    for row in rows:
        best = chosen.setdefault(query(row), row)
        if draw(seed, "response", row.id) < draw(seed, "response", best.id):
            chosen[query(row)] = row
    return list(chosen.values())


def mix_in_wrong(rows: Sequence[Row], share: float, seed: int) -> list[Row]:
    """One row a query, of which exactly round(share * queries) are wrong; as many queries as allow that.

    Raises UsageError when rows are not marked `correct`, or no query is left.
    """
    unmarked = next((row for row in rows if row.correct is None), None)
    if unmarked is not None:
        raise UsageError(f"data.knobs wrong: row {unmarked.id} has no column correct; verify the set first")
    right = {query(row): row for row in one_per_query([row for row in rows if row.correct], seed)}
    wrong = {query(row): row for row in one_per_query([row for row in rows if not row.correct], seed)}
    # Queries that nobody answered rightly serve as wrong ones last: they are the hardest, not a fair sample.
    wrong_order = sorted(wrong, key=lambda text: (text not in right, draw(seed, "wrong", text)))
    both = len(right.keys() & wrong.keys())
    for total in range(len(right.keys() | wrong.keys()), 0, -1):
        count = round(share * total)
        if count <= len(wrong) and total - count <= len(right) - min(count, both):
            break
    else:
        raise UsageError(
            f"data.knobs wrong {share}: {len(wrong)} queries have a wrong response, {len(right)} a right one"
        )
    chosen = {text: wrong[text] for text in wrong_order[:count]}
    spare = sorted(right.keys() - chosen.keys(), key=lambda text: draw(seed, "right", text))
    chosen |= {text: right[text] for text in spare[: total - count]}
    return [chosen[text] for text in dict.fromkeys(map(query, rows)) if text in chosen]


def remove_trace(row: Row) -> Row:
    """The row without its think block; UsageError when nothing else is in the response."""
    rest = without_traces(row.response)
    if not rest.strip() and not row.tool_calls:
        raise UsageError(f"row {row.id}: nothing is left of the response without its think block")
    return dataclasses.replace(row, response=rest)


def truncate_trace(row: Row, share: float) -> Row:
    """The row with the first `share` of its trace's words; what lies between words stays as written."""

    def cut(trace: str) -> str:
        pieces = re.split(r"(\s+)", trace)
        words = sum(1 for piece in pieces if piece.strip())
        kept, left = [], round(share * words)
        for piece in pieces:
            left -= bool(piece.strip())
            if left < 0:
                break
            kept.append(piece)
        return "".join(kept).rstrip() + "\n"

    return dataclasses.replace(row, response=change_traces(row.response, cut))
