"""Queries that overlap benchmark items, found by word n-grams as is usual since GPT-3."""

import re
from collections.abc import Iterable, Mapping

from etils import epath

from jax_sft.data.records import read_records
from jax_sft.errors import UsageError
from jax_sft.files import home

_WORD = re.compile(r"\w+")
TEXT_COLUMNS = ("question", "problem", "prompt", "goal", "instruction")


def ngrams(text: str, size: int) -> set[str]:
    """Runs of `size` words (letters and digits, lower case); the whole text when it has fewer words."""
    words = _WORD.findall(text.lower())
    if len(words) <= size:
        return {" ".join(words)} if words else set()
    return {" ".join(words[at : at + size]) for at in range(len(words) - size + 1)}


def index_items(items: Mapping[str, str], size: int) -> dict[str, str]:
    """From each n-gram of the items (id to text) to the first item that holds it."""
    index: dict[str, str] = {}
    for name, text in items.items():
        for gram in sorted(ngrams(text, size)):
            index.setdefault(gram, name)
    return index


def overlap(text: str, index: Mapping[str, str], size: int) -> tuple[str, str] | None:
    """(item, shared n-gram) of the first overlap in alphabetical order; None when there is none."""
    shared = sorted(gram for gram in ngrams(text, size) if gram in index)
    return (index[shared[0]], shared[0]) if shared else None


def read_items(paths: Iterable[epath.PathLike]) -> dict[str, str]:
    """Texts of benchmark items in .jsonl, .json or .parquet files, by `file:id`.

    A line is an item of a study (`messages`) or a row with one of the usual columns; UsageError otherwise.
    """
    items: dict[str, str] = {}
    for path in paths:
        for number, row in read_records(home(path)):
            given = row.get("id")
            name = f"{epath.Path(path).stem}:{number if given in (None, '') else given}"
            # Items that share an id are still two.
            name = f"{name}, row {number}" if name in items else name
            texts = [
                str(turn.get("content", "")) for turn in row.get("messages") or [] if isinstance(turn, dict)
            ]
            texts = texts or [row[column] for column in TEXT_COLUMNS if isinstance(row.get(column), str)][:1]
            if not texts:
                raise UsageError(
                    f"{path}, row {number}: no column messages or {' or '.join(TEXT_COLUMNS)}; "
                    f"found {', '.join(row)}"
                )
            items[name] = "\n".join(texts)
    return items
