"""Judges swapped into the chips when all is drawn: what of the units is not judged yet is, once each.

Verdicts lie beside the completions. The same answer to the same request is judged once, whichever snapshot
gave it; a judging that was killed goes on where it was.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from etils import epath
from rich.console import Console

from jax_sft.checkpoints.presence import Presence
from jax_sft.config import BenchmarkConfig, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.items import find_benchmark
from jax_sft.evaluation.judge_asking import AnyJudge, Chips, ask, prepare
from jax_sft.evaluation.judge_parts import Asked, questions
from jax_sft.evaluation.score import Unit, asked_of_unit, units_with_completions
from jax_sft.generation.engine import Engine
from jax_sft.judges.chosen import Chosen, judges_of
from jax_sft.judges.page import Question
from jax_sft.sharding import make_generation_mesh
from jax_sft.study.folder import unit_folder
from jax_sft.study.records import Item, Key
from jax_sft.study.verdicts import JudgedPart, JudgeLine, read_verdicts, write_verdicts
from jax_sft.tasks.task import Task, get_task
from jax_sft.terminal import messages, progress_of_completions

FLUSH_SECONDS = 30.0


@dataclass
class JudgedUnit:
    """A whole unit as judges see it: its items and completions, and what was said of them."""

    folder: epath.Path
    task: Task
    items: Mapping[str, Item]
    texts: Mapping[Key, str]
    """Completions, a thought that the template opened reopened."""
    lines: dict[JudgedPart, JudgeLine]
    changed: bool = False

    def asked(self, judge: Chosen) -> Iterator[tuple[JudgedPart, Asked]]:
        """All that the judge is asked about the unit."""
        for (item, sample), text in self.texts.items():
            for asked in questions(self.task, judge, self.items[item], text):
                yield (item, sample, judge.config.name, asked.part), asked

    def has_all(self, judge: Chosen) -> bool:
        """Whether the judge, or one of its name, has said something of all that it is asked."""
        return all(key in self.lines and self.lines[key].of == asked.of for key, asked in self.asked(judge))

    def add(self, line: JudgeLine) -> None:
        """Keep what was said, in place of what was said of it before."""
        self.lines[line.key] = line
        self.changed = True

    def flush(self) -> None:
        """Write what was kept since."""
        if self.changed:
            order = {key: place for place, key in enumerate(self.texts)}
            known = [line for line in self.lines.values() if (line.item, line.sample) in order]
            write_verdicts(self.folder, sorted(known, key=lambda line: order[line.item, line.sample]))
            self.changed = False


Units = list[tuple[BenchmarkConfig, JudgedUnit]]


def judged_units(study: Study, units: Iterable[Unit], say: Callable[[str], None]) -> Units:
    """Those of the units that have judges and can be scored; of the others scoring tells.

    `say` is told of verdicts that are damaged, which are as if they were not.
    """
    found: Units = []
    presences: dict[str, Presence] = {}
    for run, step, name in units:
        benchmark = find_benchmark(study, name)
        if benchmark.judges:
            presence = presences.setdefault(run, Presence(study, run))
            with suppress(JaxSftError):
                asked, lines, items = asked_of_unit(study, presence.of(step, name))
                folder = unit_folder(study, run, step, name)
                texts = {line.key: text for line, (_, text, _) in zip(lines, asked, strict=True)}
                by_id = {item.id: item for item in items}
                faults: list[str] = []
                stored = read_verdicts(folder, faults)
                if faults:
                    say(f"{faults[0]} ({len(faults)} lines in all); judged again")
                found.append((benchmark, JudgedUnit(folder, get_task(benchmark.task), by_id, texts, stored)))
    return found


class Judging:
    """The judges of a study's benchmarks, their models found and checked, weights aside."""

    def __init__(
        self,
        study: Study,
        asked: Sequence[tuple[BenchmarkConfig, Sequence[Item]]],
        only: str = "",
    ) -> None:
        """`only` names the judges that are wanted, as `--judges` does. Errors for what is bound to fail."""
        self._evaluation = study.evaluation
        self.models: dict[str, AnyJudge] = {}
        """By the judge's name."""
        wanted = _wanted(only, {judge for benchmark, _ in asked for judge in benchmark.judges})
        for benchmark, items in asked:
            judges = judges_of(study, benchmark)
            task = get_task(benchmark.task)
            if judges and task.ask != "generate":
                raise UsageError(
                    f"benchmark {benchmark.name}: task {benchmark.task} is asked by {task.ask}, which leaves "
                    "nothing to judge; leave judges out"
                )
            if task.judged_by_model and not judges:
                raise UsageError(
                    f"benchmark {benchmark.name}: no rules judge task {benchmark.task}; name models that do, "
                    "as judges=('rm_rb2',) (docs/judges.md)"
                )
            for judge in judges:
                if judge.config.name in wanted:
                    self._prepare(judge, task, items, benchmark.name)

    def _prepare(self, judge: Chosen, task: Task, items: Sequence[Item], benchmark: str) -> None:
        name = judge.config.name
        if name not in self.models:
            self.models[name] = prepare(judge, self._evaluation)
        for item in items:
            question = task.question(item, "")
            if judge.page.compares and not question.other:
                raise UsageError(
                    f"benchmark {benchmark}: judge {name} compares two responses, but item {item.id!r} "
                    "holds none to compare with"
                )
        longest = max(items, key=lambda item: len(str(task.question(item, ""))))
        self.models[name].check_room(task.question(longest, ""), longest.id)

    def judge(self, units: Units, chips: Chips, console: Console) -> list[str]:
        """Judge what is not judged yet, a judge after the other; what could not be had, in words."""
        problems = []
        for name, model in self.models.items():
            of_judge = [unit for benchmark, unit in units if name in benchmark.judges]
            try:
                if missing := _missing(model, of_judge):
                    with progress_of_completions(console, f"judge {name}", len(missing)) as advance:
                        _judge(model, missing, of_judge, chips, advance)
            except JaxSftError as error:  # the other judges judge, and all is scored
                problems.append(str(error))
        return problems


def judge_stored(
    study: Study,
    runs: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
    judges: str = "",
) -> list[str]:
    """Have judges judge what they have not judged of what is stored; what could not be had, in words.

    Where nothing is missing no model is looked for.
    """
    console = messages()
    units = judged_units(study, units_with_completions(study, runs, steps, benchmarks), console.print)
    wanted = _wanted(judges, {judge for benchmark, _ in units for judge in benchmark.judges})
    if all(
        unit.has_all(judge)
        for benchmark, unit in units
        for judge in judges_of(study, benchmark)
        if judge.config.name in wanted
    ):
        return []
    asked = {benchmark.name: (benchmark, list(unit.items.values())) for benchmark, unit in units}
    chips = Chips(make_generation_mesh(study.evaluation.tensor), Engine)
    return Judging(study, list(asked.values()), judges).judge(units, chips, console)


def _wanted(names: str, known: set[str]) -> set[str]:
    """Of the known judges those that `--judges` names; UsageError for one that no benchmark has."""
    if names.strip() == "none":
        return set()
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    if unknown := wanted - known:
        there = ", ".join(sorted(known)) or "none"
        raise UsageError(f"--judges: no benchmark has a judge {min(unknown)!r}; there are {there}")
    return wanted or known


Owners = dict[str, tuple[Question, list[tuple[JudgedUnit, JudgedPart]]]]
"""Of each thing that is to be judged, by its checksum: the question, and whose it is."""


def _missing(model: AnyJudge, units: Sequence[JudgedUnit]) -> Owners:
    """What has no line by this very judge; what was judged elsewhere is taken over."""
    known = {
        line.of: line for unit in units for line in unit.lines.values() if line.identity == model.identity
    }
    missing: Owners = {}
    for unit in units:
        for key, asked in unit.asked(model.judge):
            line = unit.lines.get(key)
            if line is not None and (line.of, line.identity) == (asked.of, model.identity):
                continue
            if asked.of in known:
                unit.add(replace(known[asked.of], item=key[0], sample=key[1], part=key[3]))
            else:
                missing.setdefault(asked.of, (asked.question, []))[1].append((unit, key))
        unit.flush()
    return missing


def _judge(
    model: AnyJudge,
    missing: Owners,
    units: Sequence[JudgedUnit],
    chips: Chips,
    advance: Callable[[int], None],
) -> None:
    """Write what the judge says of what is missing, from time to time and at the end."""
    flushed = time.monotonic()
    try:
        for of, outputs, cut in ask(model, {of: asked for of, (asked, _) in missing.items()}, chips, advance):
            reading = model.page.read(outputs)
            grade = reading.grade if reading else ""
            for unit, (item, sample, judge, part) in missing[of][1]:
                line = JudgeLine(
                    item, sample, judge, part, outputs, grade, of, model.identity, model.weights_name, cut
                )
                unit.add(line)
            if time.monotonic() - flushed > FLUSH_SECONDS:
                for unit in units:
                    unit.flush()
                flushed = time.monotonic()
    finally:
        for unit in units:
            unit.flush()
