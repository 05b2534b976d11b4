"""Verdicts on completions: in this process, or in others within limits where a judge may hang or crash."""

from collections.abc import Iterable

from jax_sft.config import EvaluationConfig
from jax_sft.responses.workers import Limits, Workers, run_here
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.task import get_task

Asked = tuple[Item, str, str]
"""An item, a completion of it, and how that finished."""


def scorers(evaluation: EvaluationConfig) -> Workers:
    """The processes that judge, a context."""
    return Workers(Limits(evaluation.workers, evaluation.scorer_seconds, evaluation.scorer_memory))


def judge(task_name: str, asked: Iterable[Asked], workers: Workers) -> list[Verdict | None]:
    """A task's verdict on each completion, in order; None where its judge ran out of time, raised or died."""
    task = get_task(task_name)
    outcomes = workers.run(task.verdict, asked, task.warm) if task.isolated else run_here(task.verdict, asked)
    return [verdict if outcome == "done" else None for outcome, verdict in outcomes]
