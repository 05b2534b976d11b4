"""What the sweep of one snapshot is expected to draw and read, benchmark by benchmark.

Lengths are those of the completions that the study has already drawn, where it has; else what the study
expects; else a share of `max_new_tokens`. Items are those at hand, or else as many as the public set has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from etils import epath

from jax_sft.config import BenchmarkConfig, Study
from jax_sft.errors import JaxSftError
from jax_sft.evaluation.items import items_of, stored_items
from jax_sft.study.folder import completions_file, unit_folders
from jax_sft.study.lines import read_completions
from jax_sft.study.patterns import first_matching
from jax_sft.study.records import Item, UnitRecord
from jax_sft.tasks.likelihood import LikelihoodTask
from jax_sft.tasks.task import get_task

PROMPT_TOKENS = 256
"""Of a prompt, where its items are not at hand."""
CHARACTERS = 4.0
"""Of a token, where no completions say it."""
UNITS = 24
"""Whose completions are read for their lengths, of each benchmark: over all runs and steps."""


@dataclass(frozen=True)
class Drawn:
    """Completions of a benchmark that the study has drawn."""

    units: int
    tokens: float
    """Of a completion, on the mean."""
    live: float
    """New tokens that are there when one is drawn, on the mean over all that were."""
    characters: float
    """Of a token."""


@dataclass(frozen=True)
class BenchmarkWork:
    """A benchmark's part of the sweep of a snapshot. Tokens are means."""

    benchmark: BenchmarkConfig
    items: int
    assumed_items: bool
    """Whether they are not at hand, and their number is that of the public set."""
    prompt_tokens: float
    new_tokens: float
    """Of a completion; 0 where nothing is drawn."""
    live: float
    """New tokens that are there when one is drawn."""
    given_tokens: float
    """Of the continuations of an item whose likelihood is asked."""
    units: int
    """From whose completions lengths were taken; 0 where they are assumed."""

    @property
    def completions(self) -> int:
        """Completions drawn."""
        return self.items * self.benchmark.samples if self.new_tokens else 0

    @property
    def tokens(self) -> float:
        """New tokens of all of them together."""
        return self.completions * self.new_tokens


@dataclass(frozen=True)
class SweepWorkload:
    """What the sweep of one snapshot draws."""

    completions: int
    prompts: int
    """That are followed by completions."""
    tokens: float
    """New tokens of all completions together."""
    unknown: tuple[str, ...] = field(default=())
    """Benchmarks whose items are not at hand and whose number is not known: they are left out."""
    items: Mapping[str, int] = field(default_factory=dict)
    """Of each other benchmark that draws."""
    live: float = 0.0
    """Positions of a sequence, its prompt among them, when a token is drawn: mean over all tokens drawn."""
    prompt_tokens: float = PROMPT_TOKENS
    """Of a prompt, on the mean."""
    works: tuple[BenchmarkWork, ...] = ()


def sweep_workload(study: Study, completion_share: float = 1.0) -> SweepWorkload:
    """Completions and their tokens, summed over the study's benchmarks."""
    unknown, works = [], []
    for benchmark in study.benchmarks:
        work = _work(study, benchmark, completion_share)
        if work is None:
            unknown.append(benchmark.name)
        else:
            works.append(work)
    drawing = [work for work in works if work.completions]
    tokens, prompts = sum(work.tokens for work in drawing), sum(work.items for work in drawing)
    return SweepWorkload(
        completions=sum(work.completions for work in drawing),
        prompts=prompts,
        tokens=tokens,
        unknown=tuple(unknown),
        items={work.benchmark.name: work.items for work in drawing},
        live=sum(work.tokens * (work.prompt_tokens + work.live) for work in drawing) / max(tokens, 1),
        prompt_tokens=sum(work.items * work.prompt_tokens for work in drawing) / max(prompts, 1),
        works=tuple(works),
    )


def _work(study: Study, benchmark: BenchmarkConfig, completion_share: float) -> BenchmarkWork | None:
    task, items = get_task(benchmark.task), _items(study, benchmark)
    count = len(items) or min(benchmark.limit or task.public_items, task.public_items or benchmark.limit)
    if not count:
        return None
    given = isinstance(task, LikelihoodTask)
    drawn = None if given else drawn_so_far(study, benchmark)
    characters = drawn.characters if drawn else CHARACTERS
    length = drawn.tokens if drawn else _expected(study, benchmark, completion_share)
    asked = [sum(len(str(turn.get("content", ""))) for turn in item.messages) for item in items]
    follow = []
    if isinstance(task, LikelihoodTask):
        follow = [sum(len(_text(each)) for each in task.continuations(item)) for item in items]
    return BenchmarkWork(
        benchmark,
        items=count,
        assumed_items=not items,
        prompt_tokens=_mean(asked) / characters or PROMPT_TOKENS,
        new_tokens=0.0 if given else length,
        live=drawn.live if drawn else length / 2,
        given_tokens=_mean(follow) / characters,
        units=drawn.units if drawn else 0,
    )


def _expected(study: Study, benchmark: BenchmarkConfig, completion_share: float) -> float:
    """Tokens of a completion, as the study expects them or as a share of the most."""
    pattern = first_matching(list(study.completion_tokens), benchmark.name)
    if pattern is None:
        return benchmark.max_new_tokens * completion_share
    return min(study.completion_tokens[pattern], benchmark.max_new_tokens)


def _items(study: Study, benchmark: BenchmarkConfig) -> list[Item]:
    """Those at hand, or those that the study's sweep stored; none where there are neither."""
    for find in (lambda: items_of(benchmark, study.data_root), lambda: stored_items(study, benchmark.name)):
        try:
            return find()
        except (JaxSftError, OSError):
            continue
    return []


def drawn_so_far(study: Study, benchmark: BenchmarkConfig) -> Drawn | None:
    """Lengths of what the study has drawn for a benchmark with as many tokens at most; None for nothing.

    Of up to UNITS whole units, spread over all; one that cannot be read is passed over.
    """
    units, lengths, characters = 0, list[int](), 0
    for folder in _spread(list(_whole_units(study, benchmark))):
        try:
            record = UnitRecord.read(folder)
            most = record.settings.get("max_new_tokens") if record else None
            if most not in (None, benchmark.max_new_tokens):
                continue
            lines = list(read_completions(completions_file(folder)))
        except JaxSftError:
            continue
        units += bool(lines)
        lengths += [line.tokens for line in lines]
        characters += sum(len(line.completion) for line in lines)
    total = sum(lengths)
    if not total:
        return None
    live = sum(length * length for length in lengths) / 2 / total
    return Drawn(units, total / len(lengths), live, max(characters / total, 1.0))


def _whole_units(study: Study, benchmark: BenchmarkConfig) -> Iterator[epath.Path]:
    for run in study.runs:
        for _, name, folder in unit_folders(study, run.name):
            if name == benchmark.name and completions_file(folder).exists():
                yield folder


def _spread(folders: Sequence[epath.Path]) -> list[epath.Path]:
    """At most UNITS of them, at equal distances."""
    count = min(UNITS, len(folders))
    return [folders[len(folders) * n // count] for n in range(count)]


def _text(continuation: object) -> str:
    return str(continuation.get("content", "")) if isinstance(continuation, dict) else str(continuation)


def _mean(counts: Sequence[int]) -> float:
    return sum(counts) / len(counts) if counts else 0.0
