"""Countdown puzzles, their training rows (long search traces, or the answer alone) and their split.

Two regimes share one generator: the real game (three to six numbers, targets to a hundred and beyond) and the
miniature game (two of three one-digit numbers), small enough for a model that trains within minutes.
"""

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jax_sft.config import BenchmarkConfig, Group, Option
from jax_sft.errors import UsageError
from jax_sft.options import fitting
from jax_sft.responses.answers import BOX, boxes, find, within
from jax_sft.responses.expressions import check_answer
from jax_sft.responses.thinking import after_trace, visible
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.countdown_traces import Term, combine, miniature_trace, search_trace
from jax_sft.tasks.rows import Row
from jax_sft.tasks.task import Task, column, exact, register, user

TEST_SHARE = 0.2
_SMALL_POOL = 20_000  # ordered choices of numbers up to which all puzzles are listed, not sampled


@dataclass(frozen=True)
class CountdownOptions:
    """Which puzzles are made, and how their solutions are written. Every field is an option of the source."""

    miniature: bool = False
    """The miniature game: two of three different one-digit numbers, + - * only. Changes other defaults."""
    min_numbers: int = 3
    max_numbers: int = 6
    """A puzzle offers between min_numbers and max_numbers numbers."""
    low: int = 1
    high: int = 99
    """Numbers lie in low … high."""
    min_target: int = 10
    max_target: int = 100
    traces: bool = True
    """Write the search inside a think block; off leaves the boxed answer, on the same puzzles."""
    depth: int = 2
    """Wrong branches worked through at every choice before the right one; traces grow as a power of it."""
    verbosity: int = 1
    """0: bare equations; 1: sentences; 2: also restates the numbers and doubts its own arithmetic."""
    split: str = "train"
    """`train` or `test`; no puzzle is in both, whatever the order of its numbers."""


_MINIATURE = {"min_numbers": 3, "max_numbers": 3, "low": 1, "high": 9, "min_target": 1, "max_target": 81}


@dataclass(frozen=True)
class Puzzle:
    """Numbers and a target, and one solution that is known to be right."""

    numbers: tuple[int, ...]
    target: int
    solution: Term
    miniature: bool

    @property
    def key(self) -> str:
        """Name of the puzzle whatever the order of its numbers."""
        return f"{','.join(map(str, sorted(self.numbers)))}={self.target}"

    @property
    def id(self) -> str:
        """Name of the puzzle as asked, order included."""
        return f"countdown-{'-'.join(map(str, self.numbers))}-to-{self.target}"

    @property
    def reference(self) -> dict[str, Any]:
        """What `check` needs besides the answer."""
        if self.miniature:
            return {"numbers": list(self.numbers), "target": self.target, "uses": 2, "operations": "+-*"}
        return {"numbers": list(self.numbers), "target": self.target, "uses": 0, "operations": "+-*/"}

    @property
    def prompt(self) -> str:
        """The question put to the model."""
        if self.miniature:
            return f"use two of {' '.join(map(str, self.numbers))} to make {self.target}"
        return (
            f"Using the numbers {list(self.numbers)}, write an expression that equals {self.target}. You may "
            "use +, -, *, / and brackets, and each number at most once. Reason step by step, and put your "
            "final expression within \\boxed{}."
        )


def countdown_options(options: Mapping[str, Option]) -> CountdownOptions:
    """Options from a config's flat mapping; UsageError naming an unknown or impossible one."""
    known = {field.name: field.default for field in dataclasses.fields(CountdownOptions)}
    given: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise UsageError(f"countdown: unknown option {name!r}; known: {', '.join(known)}")
        given[name] = fitting(value, type(known[name]))
        if given[name] is None:
            wanted = type(known[name]).__name__
            raise UsageError(f"countdown: option {name} must be {wanted}, not {value!r}")
    defaults: dict[str, Any] = _MINIATURE if given.get("miniature") else {}
    made = CountdownOptions(**{**defaults, **given})
    if made.split not in ("train", "test"):
        raise UsageError(f"countdown: option split must be train or test, not {made.split!r}")
    if not 2 <= made.min_numbers <= made.max_numbers <= 8:
        raise UsageError("countdown: options need 2 <= min_numbers <= max_numbers <= 8")
    if not 1 <= made.low <= made.high or not 1 <= made.min_target <= made.max_target:
        raise UsageError("countdown: options need 1 <= low <= high and 1 <= min_target <= max_target")
    if made.miniature and made.min_numbers != made.max_numbers:
        raise UsageError("countdown: the miniature game needs min_numbers equal to max_numbers")
    if not 0 <= made.depth <= 6 or not 0 <= made.verbosity <= 2:
        raise UsageError("countdown: option depth must be 0 … 6 and verbosity 0 … 2")
    return made


def in_test_split(key: str) -> bool:
    """Whether the thing of that name belongs to the test split: a hash of its name, so always the same."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def countdown_puzzles(count: int, seed: int, options: CountdownOptions) -> list[Puzzle]:
    """`count` different puzzles of one split; UsageError when the options do not allow that many.

    A test set holds no puzzle twice even in another order; a training set may hold the same numbers in
    another order.
    """
    rng = random.Random(f"countdown {seed} {options.split}")
    wanted = options.split == "test"
    puzzles: list[Puzzle] = []
    seen = set()
    for puzzle in _miniature_pool(options, rng) if options.miniature else _sampled(options, rng, count):
        name = puzzle.key if wanted else puzzle.id
        if in_test_split(puzzle.key) != wanted or name in seen:
            continue
        seen.add(name)
        puzzles.append(puzzle)
        if len(puzzles) == count:
            return puzzles
    raise UsageError(
        f"countdown: found only {len(puzzles)} different {options.split} puzzles of the {count} asked for; "
        "ask for fewer or widen the options"
    )


def count_puzzles(options: CountdownOptions) -> int:
    """How many different puzzles a split of the miniature game holds."""
    wanted = options.split == "test"
    pool = [p for p in _miniature_pool(options, random.Random(0)) if in_test_split(p.key) == wanted]
    return len({p.key if wanted else p.id for p in pool})


def training_rows(count: int, seed: int, options: Mapping[str, Option]) -> list[Row]:
    """`count` training rows, every answer checked; see CountdownOptions.

    The rows with and without traces hold the same puzzles, in the same order, with the same answers.
    """
    made = countdown_options(options)
    return [_training_row(puzzle, seed, made) for puzzle in countdown_puzzles(count, seed, made)]


def _training_row(puzzle: Puzzle, seed: int, options: CountdownOptions) -> Row:
    """One training row; the trace depends on the puzzle, the seed and the options alone."""
    if options.miniature:
        trace, answer = miniature_trace(puzzle.numbers, puzzle.target)
    else:
        rng = random.Random(f"trace {seed} {puzzle.id}")
        trace, answer = search_trace(
            puzzle.numbers, puzzle.target, puzzle.solution, options.depth, options.verbosity, rng
        )
    reference = puzzle.reference
    if not check_answer(answer, **reference):
        raise AssertionError(f"{puzzle.id}: the trace ends in a wrong answer {answer!r}")
    boxed = f"\\boxed{{{answer}}}"
    response = after_trace(trace, boxed) if options.traces else boxed
    return Row(puzzle.id, user(puzzle.prompt), response)


def _miniature_pool(options: CountdownOptions, rng: random.Random) -> Iterator[Puzzle]:
    """All puzzles of the miniature game, in a seeded order."""
    choices = list(itertools.permutations(range(options.low, options.high + 1), options.max_numbers))
    if len(choices) > _SMALL_POOL:
        raise UsageError("countdown: the miniature game is too large; narrow low … high")
    pool: list[Puzzle] = []
    for numbers in choices:
        solutions: dict[int, Term] = {}
        for left, right in itertools.combinations(numbers, 2):
            for operation in "+-*":
                term = combine(Term.number(left), operation, Term.number(right))
                if term and options.min_target <= term.value <= options.max_target:
                    solutions.setdefault(term.value, term)
        pool.extend(Puzzle(numbers, target, term, True) for target, term in sorted(solutions.items()))
    rng.shuffle(pool)
    return iter(pool)


def _sampled(options: CountdownOptions, rng: random.Random, count: int) -> Iterator[Puzzle]:
    """Random puzzles made backwards from a random solution; gives up after many tries for each asked for."""
    for _ in range(1000 * count + 10_000):
        size = rng.randint(options.min_numbers, options.max_numbers)
        numbers = tuple(rng.randint(options.low, options.high) for _ in range(size))
        solution = _random_solution(numbers, options, rng)
        if solution is not None:
            yield Puzzle(numbers, solution.value, solution, False)


def _random_solution(numbers: tuple[int, ...], options: CountdownOptions, rng: random.Random) -> Term | None:
    """Combine numbers at random until a value of at least two operations is in the range of targets."""
    terms = [Term.number(number) for number in numbers]
    while len(terms) > 1:
        rng.shuffle(terms)
        left, right = terms.pop(), terms.pop()
        made = combine(left, rng.choice("+-*/"), right)
        if made is None:
            return None
        terms.append(made)
        in_range = options.min_target <= made.value <= options.max_target
        if in_range and len(made.made) >= min(2, len(numbers) - 1) and made.value not in numbers:
            return made
    return None


@register("countdown")
class Countdown(Task):
    """Options: those of the training source that shape puzzles (`miniature True`, `max_numbers 4`, …), and

    - size: puzzles in the benchmark before `limit`; 0 is 500, or in the miniature game all there are;
    - seed: which puzzles.

    Puzzles come from the test split: no training row of any seed holds them, in any order of the numbers.
    """

    group: ClassVar[Group] = "in_domain"
    free_options: ClassVar[bool] = True
    defaults: ClassVar = {"size": 0, "seed": 0}

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """The puzzles as items."""
        options: dict[str, Any] = self.options(config)
        size, seed = options.pop("size"), options.pop("seed")
        made = countdown_options({**options, "split": "test"})
        if not size:
            size = count_puzzles(made) if made.miniature else 500
        puzzles = countdown_puzzles(size, seed, made)
        return [Item(puzzle.id, user(puzzle.prompt), puzzle.reference) for puzzle in puzzles]

    def check(self, reference: Mapping[str, Any], where: str) -> None:
        """There are numbers and a target."""
        column(reference, "numbers", where), column(reference, "target", where)

    def verdict(self, item: Item, completion: str, finish: str) -> Verdict:
        """1 when the last boxed expression after the thinking solves the puzzle."""
        found = find(visible(completion) or "", [(BOX, within(boxes, str))])
        return exact(found, bool(found and check_answer(found.text, **item.reference)))
