"""Countdown: reach a target with + - * / from given numbers, each used at most once; checked exactly."""

from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig
from jax_sft.data.countdown import count_puzzles, countdown_options, countdown_puzzles
from jax_sft.data.expressions import check_answer
from jax_sft.evaluation.benchmarks.base import Benchmark, Item, Verdict, user
from jax_sft.evaluation.scoring.answers import last_boxed, visible


class Countdown(Benchmark):
    """Options: those of the training source that shape puzzles (`miniature True`, `max_numbers 4`, …), and

    - size: puzzles in the benchmark before `limit`; 0 is 500, or in the miniature game all there are;
    - seed: which puzzles.

    Puzzles come from the test split: no training row of any seed holds them, in any order of the numbers.
    """

    free_options: ClassVar[bool] = True
    defaults: ClassVar = {"size": 0, "seed": 0}

    def load(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The puzzles as items."""
        options: dict[str, Any] = self.options(config)
        size, seed = options.pop("size"), options.pop("seed")
        made = countdown_options({**options, "split": "test"})
        if not size:
            size = count_puzzles(made) if made.miniature else 500
        puzzles = countdown_puzzles(size, seed, made)
        return [Item(puzzle.id, user(puzzle.prompt), puzzle.reference) for puzzle in puzzles]

    def score(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the last boxed expression after the thinking solves the puzzle."""
        text = visible(completion)
        answer = last_boxed(text) if text is not None else None
        if answer is None:
            return Verdict({"accuracy": 0.0}, answered=False)
        return Verdict({"accuracy": float(check_answer(answer, **item.reference))}, True, answer)
