"""The units of a sweep, (run, step, benchmark): what is there of each, what it misses, what it depends on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from jax_sft.checkpoints.presence import Presence
from jax_sft.config import BenchmarkConfig, Run, Study
from jax_sft.evaluation.completions import CompletionsFile, check_settings, set_aside
from jax_sft.evaluation.likelihood import Questions
from jax_sft.evaluation.prompts import Prompts, Voice
from jax_sft.evaluation.settings import OURS, drawn_with, loop_tokens
from jax_sft.generation.backend import Backend, Request, Scorer
from jax_sft.generation.divergence import Divergences
from jax_sft.study.folder import aside_folder, unit_folder, unit_folders
from jax_sft.study.provenance import Present
from jax_sft.study.records import short_hash
from jax_sft.tasks.given_rows import Drift
from jax_sft.tasks.task import get_task
from jax_sft.tokens.tokenizer import Tokenizer


@dataclass
class UnitToDraw:
    """One (run, step, benchmark) that still misses completions, or likelihoods."""

    benchmark: BenchmarkConfig
    file: CompletionsFile
    prompts: Prompts
    loop_tokens: int
    questions: Questions
    """Whose likelihoods are asked; where there are some, nothing is drawn."""

    @property
    def base(self) -> int | None:
        """The step with which snapshots are compared, if that is what is asked."""
        task = get_task(self.benchmark.task)
        return task.base(self.benchmark) if isinstance(task, Drift) else None

    def requests(self, decode: Callable[[list[int]], str]) -> Iterator[tuple[Request, str]]:
        """The missing completions, each with its item; the ids keep apart what several benchmarks ask."""
        b = self.benchmark
        for item, sample in self.file.missing():
            request = Request(
                f"{b.name}/{item}",
                sample,
                self.prompts[item],
                b.max_new_tokens,
                b.sampling,
                b.logprobs,
                loop_tokens=self.loop_tokens,
                decode=decode,
            )
            yield request, item


@dataclass
class Work:
    """What a run's sweep has still to do: its snapshots in order, each with its units."""

    run: Run
    tokenizer: Tokenizer
    engine: Backend
    scorer: Scorer
    comparer: Divergences
    todo: dict[int, list[UnitToDraw]]
    complete: list[int]
    """Steps of which nothing is missing."""
    lengths: dict[tuple[str, int], int] = field(default_factory=dict)
    """New tokens of each completion, by request and sample, at the snapshot that was drawn last."""


def find_unit(
    study: Study,
    present: Present,
    b: BenchmarkConfig,
    voice: Voice,
    say: Callable[[str], None],
    backend: str = OURS,
) -> UnitToDraw:
    """The unit with what is there of it; `say` is told of what no longer counts.

    `backend` names what draws it.
    """
    place = study, present.run, present.step, b.name
    prompts, questions = voice.prompts.get(b.name, {}), voice.questions.get(b.name, {})
    read = {item: str(prompt) for item, prompt in prompts.items()}
    read |= {item: str(question.pairs) for item, question in questions.items()}
    hashes = {item: short_hash(text.encode()) for item, text in read.items()}
    record = present.as_unit(drawn_with(b, study.evaluation, backend), hashes)
    file = CompletionsFile(unit_folder(*place), aside_folder(*place), record, b.samples, say)
    return UnitToDraw(b, file, prompts, loop_tokens(b, study.evaluation), questions)


def check_drawn(study: Study, b: BenchmarkConfig, backend: str = OURS) -> None:
    """One curve holds completions of one kind: UsageError unless all are drawn with the settings of now.

    The backend is a setting: no curve holds completions of two.
    """
    for run in study.runs:
        for _, name, folder in unit_folders(study, run.name):
            if name == b.name and check_settings(folder, drawn_with(b, study.evaluation, backend)):
                return


def set_aside_steps(study: Study, run: Run, presence: Presence, say: Callable[[str], None]) -> None:
    """Units at steps that the run no longer has do not count; `say` is told of each."""
    steps = presence.record.snapshot_steps if presence.record else ()
    for step, benchmark, folder in list(unit_folders(study, run.name)):
        if steps and step not in steps:
            aside = aside_folder(study, run.name, step, benchmark)
            if target := set_aside(folder, aside):
                say(f"{folder}: run {run.name} has no step {step} now; set aside as {target}")
