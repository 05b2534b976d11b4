"""Whether an answer equals the right one, by math-verify: one judge for sets and benchmarks."""

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jax_sft.responses.answers import join_thousands, last_boxed

_LAST_CHARACTERS = 8000
"""An answer stands at the end; what is before it only costs time."""


@dataclass(frozen=True)
class Judgement:
    """What was read in a text, and whether it is right: None when there was nothing to judge."""

    answer: str = ""
    right: bool | None = None


def judge(text: str, gold: str) -> Judgement:
    """The last box of `text`, or else its last formula, against the gold answer.

    A gold answer is a formula, with or without $ or a box; after #### where there is one. Raises ValueError
    when it cannot be read. May hang or eat memory on hostile formulas: call it through `workers`.
    """
    from math_verify import verify

    wanted = _gold(gold)
    if not wanted:
        raise ValueError(f"the right answer {gold[:40]!r} cannot be read")
    boxed = last_boxed(text)
    found = _parse(text[-_LAST_CHARACTERS:]) if boxed is None else _parse(f"$\\boxed{{{boxed}}}$")
    if not found:
        return Judgement(boxed or "")
    right = verify(list(wanted), found, timeout_seconds=None)
    return Judgement(boxed or str(found[-1]), bool(right))


def warm() -> None:
    """Import and exercise math-verify, which takes seconds, before any answer is timed."""
    judge("\\boxed{1}", "1")


@lru_cache(maxsize=1024)
def _gold(answer: str) -> tuple[Any, ...]:
    final = answer.rsplit("####", 1)[-1].strip()
    # A $ opens LaTeX, but \$ is the money sign.
    is_latex = re.search(r"\\boxed|(?<!\\)\$", final)
    return tuple(_parse(final if is_latex else f"$\\boxed{{{final}}}$"))


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    # The time limit is the worker's; math-verify warns when its own, which needs signals, is off.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    # It reads 12\,000 as 12 times 000.
    return list(parse(join_thousands(text), parsing_timeout=0))
