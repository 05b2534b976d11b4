"""Verdicts on completions: in this process, or in others within limits where a judge may hang or crash."""

from collections.abc import Collection, Iterable

from jax_sft.config import EvaluationConfig
from jax_sft.responses import sandbox
from jax_sft.responses.workers import Limits, Workers, run_here
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.protocols import PaperRules
from jax_sft.tasks.task import get_task

Asked = tuple[Item, str, str]
"""An item, a completion of it, and how that finished."""


def scorers(evaluation: EvaluationConfig) -> Workers:
    """The processes that judge, a context."""
    limits = Limits(
        evaluation.workers,
        evaluation.scorer_seconds,
        evaluation.scorer_memory,
        evaluation.allow_unsandboxed_code,
    )
    return Workers(limits)


def check_sandbox(task_name: str, allow_unsandboxed_code: bool) -> None:
    """JaxSftError when a task runs what models write, and there is no sandbox and no leave to do without."""
    if get_task(task_name).runs_code and not allow_unsandboxed_code:
        sandbox.require()


def judge(
    task_name: str, asked: Iterable[Asked], workers: Workers, traps: Collection[str] = ()
) -> list[Verdict | None]:
    """A task's verdict on each completion, in order; None where its judge ran out of time, raised or died.

    `traps` are those of the paper's protocol that are on. JaxSftError when the task needs a sandbox that
    cannot be had.
    """
    task = get_task(task_name)
    check_sandbox(task_name, workers.limits.allow_unsandboxed_code)
    verdict = PaperRules(task_name, tuple(traps), task.verdict).verdict if traps else task.verdict
    if task.isolated:
        outcomes = workers.run(verdict, asked, task.warm, task.verdict_seconds)
    else:
        outcomes = run_here(verdict, asked)
    return [verdict if outcome == "done" else None for outcome, verdict in outcomes]
