"""From completions on disk to scores on disk: complete or refused, with intervals, again at any time."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from etils import epath
from rich.table import Table

from jax_sft.checkpoints.presence import Presence
from jax_sft.config import BenchmarkConfig, Study
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.evaluation.items import find_benchmark, stored_items
from jax_sft.evaluation.judge_scores import JudgeFindings, mixed_judges
from jax_sft.evaluation.judging import Asked, judge, scorers
from jax_sft.evaluation.likelihood import likelihood_task, weigh
from jax_sft.evaluation.outputs import measure_outputs, read_seconds
from jax_sft.evaluation.settings import check_protocol
from jax_sft.judges.chosen import Chosen, directions, headline_of, judges_of
from jax_sft.responses.thinking import reopened
from jax_sft.responses.workers import Workers
from jax_sft.statistics.intervals import estimate
from jax_sft.statistics.samples import Sample, sampled_scores
from jax_sft.study.folder import completions_file, unit_folder, unit_folders
from jax_sft.study.lines import LineFault, good_lines, read_completions
from jax_sft.study.provenance import Present
from jax_sft.study.records import (
    CompletionLine,
    Item,
    JudgedCompletion,
    UnitRecord,
    UnitScores,
    Verdict,
    items_hash,
    short_hash,
)
from jax_sft.tasks.protocols import reading_traps
from jax_sft.tasks.task import get_task, group_of, rules_of
from jax_sft.terminal import results

Unit = tuple[str, int, str]  # run, step, benchmark
TABLE_WIDTH = 120
"""Characters of the score table where it is not printed to a terminal."""


def score(
    study: Study,
    runs: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
) -> list[UnitScores]:
    """Score (again) every unit that has completions, print a table of the scores and give them.

    No or empty `runs`, `steps` or `benchmarks` mean all. UsageError for a name that the study lacks, and when
    there is nothing to score; JaxSftError naming the units that could not be scored, after all others are.
    """
    scored, problems = score_units(study, runs, steps, benchmarks)
    if problems:
        raise JaxSftError("; ".join(problems))
    if not scored:
        raise UsageError(
            f"study {study.name}: no completions to score under {study.root}; run the sweep first"
        )
    return scored


def score_units(
    study: Study,
    runs: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
    only: Collection[Unit] | None = None,
) -> tuple[list[UnitScores], list[str]]:
    """What `score` does, with what could not be scored told instead of raised; `only` bounds the units."""
    units = units_with_completions(study, runs, steps, benchmarks, only)
    presences = {run: Presence(study, run) for run, _, _ in units}
    scored, problems = [], []
    with scorers(study.evaluation) as workers:
        for run, step, name in units:
            try:
                scored.append(score_unit(study, presences[run].of(step, name), workers))
            except JaxSftError as error:
                problems.append(str(error))
    console = results()
    if not console.is_terminal:  # a file has no width to keep to
        console.width = TABLE_WIDTH
    if scored:
        console.print(score_table(scored))
    return scored, [*problems, *mixed_judges(scored)]


def score_unit(study: Study, present: Present, workers: Workers) -> UnitScores:
    """Score the stored completions of a unit, and write what was found beside them.

    JaxSftError when completions are missing, doubled, damaged, of unknown items or of something else than the
    unit is of now: nothing is averaged over then.
    """
    run, step, name = present.run, present.step, present.benchmark
    folder, config = unit_folder(study, run, step, name), find_benchmark(study, name)
    check_protocol(folder, config)
    asked, lines, items = asked_of_unit(study, present)
    if task := likelihood_task(config):
        verdicts, weighed = weigh(task, items, lines)
    else:
        traps = reading_traps(config.task) if config.protocol == "paper" else ()
        verdicts, weighed = judge(config.task, asked, workers, traps), items
    judges = judges_of(study, config)
    said = JudgeFindings(folder, judges, config, lines, asked)
    scores = UnitScores(
        study=study.name,
        run=run,
        step=step,
        **{**summarise(config, lines, said.add_to(verdicts), weighed, judges), **said.fields(verdicts)},
        completions_hash=short_hash(completions_file(folder).read_bytes()),
        items_hash=items_hash(items),
        scorer=rules_of(study, config),
        outputs=measure_outputs(lines, [text for _, text, _ in asked], read_seconds(folder)),
    )
    scores.write(folder)
    return scores


def asked_of_unit(study: Study, present: Present) -> tuple[list[Asked], list[CompletionLine], list[Item]]:
    """What a judge is given of a unit, with the stored completions that it is of, and all items.

    JaxSftError as for `score_unit`.
    """
    folder = unit_folder(study, present.run, present.step, present.benchmark)
    if stale := present.staleness(folder):
        raise JaxSftError(f"{folder}: {stale}; run the sweep again")
    items = stored_items(study, present.benchmark)
    lines = whole_completions(folder, items, find_benchmark(study, present.benchmark).samples)
    by_id = {item.id: item for item in items}
    opened = present.record is not None and present.record.opens_thinking
    texts = [reopened(line.completion, line.finish) if opened else line.completion for line in lines]
    asked: list[Asked] = [
        (by_id[line.item], text, line.finish) for line, text in zip(lines, texts, strict=True)
    ]
    return asked, lines, items


def whole_completions(folder: epath.PathLike, items: Sequence[Item], samples: int) -> list[CompletionLine]:
    """All completions of a unit, by item and sample; JaxSftError unless each is there just once, unharmed."""
    path, record, faults = completions_file(folder), UnitRecord.read(folder), list[LineFault]()
    lines = list(good_lines(path, record, faults) if record else read_completions(path))
    if faults:
        raise JaxSftError(f"{faults[0]} ({len(faults)} lines in all); run the sweep again, which mends it")
    found = Counter(line.key for line in lines)
    wanted = [(item.id, sample) for item in items for sample in range(samples)]
    problems = {
        "missing": [key for key in wanted if key not in found],
        "doubled": [key for key, count in found.items() if count > 1],
        "of no item or sample of the benchmark": list(found.keys() - set(wanted)),
    }
    for problem, keys in problems.items():
        if keys:
            item, sample = min(keys, key=str)
            raise JaxSftError(
                f"{path}: {len(keys)} of {len(wanted)} completions {problem}, for example item {item!r} "
                f"sample {sample}; run the sweep again to complete the unit"
            )
    place = {key: index for index, key in enumerate(wanted)}
    return sorted(lines, key=lambda line: place[line.key])


def summarise(
    config: BenchmarkConfig,
    lines: Sequence[CompletionLine],
    verdicts: Sequence[Verdict | None],
    items: Sequence[Item],
    judges: tuple[Chosen, ...] = (),
) -> dict[str, Any]:
    """The fields of `UnitScores` that follow from its verdicts, those of the benchmark's judges among them.

    A verdict that could not be had (None) is left out: means rest on what was judged, and say on how much.
    """
    task = get_task(config.task)
    main, better = headline_of(config, judges, task.headline, task.judged_by_model)
    seen = {name for verdict in verdicts if verdict for name in verdict.metrics}
    if config.headline not in ("", *seen, *directions(judges)):
        known = ", ".join(sorted(seen | directions(judges).keys()))
        raise UsageError(f"benchmark {config.name}: no metric {config.headline!r}; it has {known}")
    names = sorted(seen | {main})
    judged = [
        JudgedCompletion(line.item, line.sample, **vars(verdict))
        for line, verdict in zip(lines, verdicts, strict=True)
        if verdict
    ]
    values: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for verdict in judged:
        for name, value in verdict.metrics.items():
            values[name].setdefault(verdict.item, []).append(value)
    metrics = {
        name: estimate(by_item, {item.id: task.weight(item, name) for item in items}, task.shares)
        for name, by_item in values.items()
    }
    metrics |= task.derived(metrics)
    headline, count = metrics[main], len(lines)
    return {
        "benchmark": config.name,
        "kind": config.task,
        "group": group_of(config),
        "headline": main,
        "higher_is_better": task.higher_is_better if better is None else better,
        "items": len(items),
        "completions": count,
        "score": headline.mean,
        "low": headline.low,
        "high": headline.high,
        "metrics": metrics,
        "item_weights": {} if task.shares else {item.id: task.weight(item, main) for item in items},
        "mean_tokens": sum(line.tokens for line in lines) / count,
        "truncation_rate": sum(line.finish != "stop" for line in lines) / count,
        "no_answer_rate": sum(not verdict.answered for verdict in judged) / max(len(judged), 1),
        "scorer_failures": sum(verdict is None for verdict in verdicts),
        "verdicts": tuple(judged),
        "sampled": sampled_scores(
            _samples(judged, main), {item.id: task.weight(item, main) for item in items}
        ),
    }


def _samples(judged: Sequence[JudgedCompletion], metric: str) -> dict[str, list[Sample]]:
    """What a metric and the answers of each item's samples are."""
    samples: dict[str, list[Sample]] = {}
    for verdict in judged:
        if metric in verdict.metrics:
            answer = verdict.answer if verdict.answered else ""
            samples.setdefault(verdict.item, []).append((verdict.metrics[metric], answer))
    return samples


def score_table(scores: Sequence[UnitScores]) -> Table:
    """One line a unit: score with its interval, mean length, truncated and unanswered shares."""
    table = Table("run", "benchmark", "metric", "step", "score", "95%", "tokens", "cut", "no answer")
    for unit in scores:
        failures = f" ({unit.scorer_failures} scorer failures)" if unit.scorer_failures else ""
        show = _percent if get_task(unit.kind).shares else _number
        table.add_row(
            unit.run,
            unit.benchmark,
            unit.headline,
            str(unit.step),
            show(unit.score) if unit.judged else "–",
            f"{show(unit.low)} – {show(unit.high)}" if unit.judged else "–",
            f"{unit.mean_tokens:.0f}",
            f"{100 * unit.truncation_rate:.0f}%",
            f"{100 * unit.no_answer_rate:.0f}%{failures}",
        )
    return table


def units_with_completions(
    study: Study,
    runs: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
    only: Collection[Unit] | None = None,
) -> list[Unit]:
    """The chosen units whose completions are all there; UsageError for a name that the study lacks."""
    for run in runs or ():
        if run not in {known.name for known in study.runs}:
            raise UsageError(f"study {study.name}: no run {run!r}")
    for name in benchmarks or ():
        find_benchmark(study, name)
    return [
        (run, step, name)
        for run, step, name in _complete_units(study)
        if (not runs or run in runs)
        and (not steps or step in steps)
        and (not benchmarks or name in benchmarks)
        and (only is None or (run, step, name) in only)
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _complete_units(study: Study) -> Iterator[Unit]:
    """Units of the study, as configured now, whose completions are all there; in the study's order."""
    for run in study.runs:
        there = [
            (step, name)
            for step, name, folder in unit_folders(study, run.name)
            if completions_file(folder).exists()
        ]
        for config in study.benchmarks:
            yield from ((run.name, step, name) for step, name in there if name == config.name)
