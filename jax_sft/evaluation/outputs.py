"""Measures what completions were like, and keeps how long they took."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence

from etils import epath

from jax_sft.errors import UsageError
from jax_sft.files import read_json, write_json
from jax_sft.responses.habits import ends_in_loop
from jax_sft.responses.thinking import matched, tags
from jax_sft.study.folder import timing_file
from jax_sft.study.outputs import Outputs
from jax_sft.study.records import CompletionLine


def measure_outputs(lines: Sequence[CompletionLine], texts: Sequence[str], seconds: float | None) -> Outputs:
    """What a unit's completions were like; `texts` are theirs, with the think tag that a template opened."""
    count = len(lines)
    if not count:
        return Outputs()
    tokens = [line.tokens for line in lines]
    loops = sum(line.finish == "loop" or ends_in_loop(line.completion) for line in lines)
    thought = [text for text in texts if tags(text)]
    return Outputs(
        samples=len({line.sample for line in lines}),
        median_tokens=float(statistics.median(tokens)),
        total_tokens=sum(tokens),
        unfinished_rate=sum(line.finish != "stop" for line in lines) / count,
        loop_rate=loops / count,
        thought_rate=len(thought) / count,
        well_formed_rate=sum(map(matched, thought)) / len(thought) if thought else None,
        seconds=seconds,
    )


class Clock:
    """Wall time of one stream of completions, shared out over the units in it by their tokens."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._tokens: Counter[epath.Path] = Counter()

    def count(self, unit: epath.Path, token_count: int) -> None:
        """A completion of the unit in this folder has come."""
        self._tokens[unit] += token_count

    def write(self) -> None:
        """Add each unit's part to what its folder says; the stream has ended."""
        passed, total = time.perf_counter() - self._start, self._tokens.total()
        for unit, token_count in self._tokens.items():
            seconds = (read_seconds(unit) or 0.0) + passed * token_count / max(total, 1)
            write_json(timing_file(unit), {"seconds": seconds})


def read_seconds(unit: epath.PathLike) -> float | None:
    """How long the completions in a unit's folder took to draw; None where that was not kept."""
    path = timing_file(unit)
    value = read_json(path, missing=None)
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("seconds"), int | float):
        raise UsageError(f"{path}: expected an object with a number `seconds`; remove the file")
    return float(value["seconds"])
