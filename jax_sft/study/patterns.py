"""Runs by name or by pattern: `Qwen3-*_Math-CoT*`, as file names in a shell."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from jax_sft.errors import UsageError
from jax_sft.study.document import suggestion

WILD = "*?["
"""Characters that make a name a pattern."""


def matching(text: str, known: Sequence[str], where: str, what: str = "run") -> list[str]:
    """The known names that a comma-separated list of names and patterns means, in the order of the study.

    Nothing for an empty list. UsageError, opened by `where`, for a piece that means none, with near names.
    """
    chosen: set[str] = set()
    for piece in (piece.strip() for piece in text.split(",")):
        if not piece:
            continue
        found = [name for name in known if name == piece or fnmatchcase(name, piece)]
        if not found:
            raise UsageError(f"{where}: the study has no {what} {piece!r}{_near(piece, known)}")
        chosen.update(found)
    return [name for name in known if name in chosen]


def first_matching(patterns: Sequence[str], name: str) -> str | None:
    """The first of the patterns that means the name."""
    return next((pattern for pattern in patterns if name == pattern or fnmatchcase(name, pattern)), None)


def _near(piece: str, known: Sequence[str]) -> str:
    """Near names, or all of them where they are few."""
    bare = "".join(character for character in piece if character not in WILD)
    if close := suggestion(bare, list(known)):
        return close
    more = f" and {len(known) - 8} more" if len(known) > 8 else ""
    return f"; it has {', '.join(known[:8])}{more}" if known else "; it has none"
