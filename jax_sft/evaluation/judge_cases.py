"""`jax-sft judge`: verdicts on completions from anywhere, one a line, by the rules of the benchmarks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from etils import epath
from rich.table import Table

from jax_sft.errors import UsageError
from jax_sft.evaluation.judging import judge
from jax_sft.evaluation.traps import add_trap, trap_sizes, traps_table
from jax_sft.files import numbered_jsonl, refuse_overwriting, write_jsonl
from jax_sft.options import JudgeOptions
from jax_sft.responses.workers import Limits, Workers
from jax_sft.study.records import Finish, Item, Verdict
from jax_sft.tasks.protocols import reading_traps
from jax_sft.tasks.task import get_task

_KINDS = {"task": str, "reference": dict, "completion": str, "finish": str}
_NO_VERDICT = {"metrics": {}, "answered": False, "answer": "", "form": ""}


@dataclass(frozen=True)
class Case:
    """A line of the file: an item's reference and a completion."""

    line: int
    values: dict[str, Any]

    @property
    def task(self) -> str:
        """The task by whose rules it is judged."""
        return str(self.values["task"])

    @property
    def asked(self) -> tuple[Item, str, str]:
        """What its judge is given."""
        item = Item(str(self.values["id"]), (), self.values["reference"])
        return item, self.values["completion"], self.values["finish"]


def judge_cases(cases: epath.PathLike, out: epath.PathLike, options: JudgeOptions) -> list[Table]:
    """Write the lines {id, task, reference, completion, finish} of `cases` to `out`, their verdicts added.

    What is added is metrics, answered, answer and form; without a verdict (the judge ran out of time or died)
    metrics is empty. The first table has a line a task; a second, where asked for, the sizes of the paper's
    traps. UsageError, with file and line, for what cannot be judged.
    """
    refuse_overwriting([out], [cases])
    read = list(_read(cases))
    verdicts: dict[int, Verdict | None] = {}
    sizes = traps_table("task")
    with Workers(Limits(options.workers, options.seconds, options.memory)) as workers:
        for task in dict.fromkeys(case.task for case in read):
            of_task = [case for case in read if case.task == task]
            asked = [case.asked for case in of_task]
            on = reading_traps(task) if options.protocol == "paper" else ()
            found = judge(task, asked, workers, on)
            if options.traps and reading_traps(task):
                for size in trap_sizes(task, asked, workers):
                    add_trap(sizes, size, task)
            verdicts |= {case.line: verdict for case, verdict in zip(of_task, found, strict=True)}
    write_jsonl(out, ({**case.values, **_as_row(verdicts[case.line])} for case in read))
    return [_table(read, verdicts), *([sizes] if options.traps else [])]


def _read(path: epath.PathLike) -> Iterator[Case]:
    empty = True
    for line, values in numbered_jsonl(path):
        where, empty = f"{path}, line {line}", False
        if missing := [name for name in ("id", *_KINDS) if name not in values]:
            raise UsageError(f"{where}: no field {' and no '.join(missing)}; found {', '.join(values)}")
        for name, kind in _KINDS.items():
            if not isinstance(values[name], kind):
                raise UsageError(f"{where}: {name} must be {_said(kind)}, found {values[name]!r}")
        if values["finish"] not in get_args(Finish):
            raise UsageError(
                f"{where}: finish must be one of {', '.join(get_args(Finish))}; found {values['finish']!r}"
            )
        try:
            task = get_task(values["task"])
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        task.check(values["reference"], f"{where}: reference")
        yield Case(line, values)
    if empty:
        raise UsageError(f"{path}: holds no cases")


def _said(kind: type) -> str:
    return "an object" if kind is dict else "text"


def _as_row(verdict: Verdict | None) -> Mapping[str, Any]:
    return _NO_VERDICT if verdict is None else asdict(verdict)


def _table(cases: Sequence[Case], verdicts: Mapping[int, Verdict | None]) -> Table:
    """A line a task: cases, the mean of each metric with how many it rests on, and what is missing."""
    table = Table("task", "cases", "metrics", "no answer", "no verdict")
    for task in dict.fromkeys(case.task for case in cases):
        found = [verdicts[case.line] for case in cases if case.task == task]
        judged = [verdict for verdict in found if verdict]
        values: dict[str, list[float]] = {}
        for verdict in judged:
            for name, value in verdict.metrics.items():
                values.setdefault(name, []).append(value)
        means = [f"{name} {sum(of) / len(of):.1%} of {len(of)}" for name, of in sorted(values.items())]
        unanswered = sum(not verdict.answered for verdict in judged)
        table.add_row(task, str(len(found)), ", ".join(means), str(unanswered), str(len(found) - len(judged)))
    return table
