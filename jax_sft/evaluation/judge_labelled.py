"""`jax-sft judge --page`: completions from anywhere judged by a model, and how far it agrees with labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath
from rich.table import Table

from jax_sft.config import EvaluationConfig
from jax_sft.errors import UsageError
from jax_sft.evaluation.judge_asking import Chips, ask, prepare
from jax_sft.evaluation.judge_parts import part_of
from jax_sft.files import numbered_jsonl, refuse_overwriting, write_jsonl
from jax_sft.generation.backend import MakeBackend
from jax_sft.generation.engine import Engine
from jax_sft.judges.chosen import Chosen
from jax_sft.judges.page import Judge, Question, Reading, digest
from jax_sft.judges.pages import get_page
from jax_sft.options import JudgeOptions
from jax_sft.sharding import make_generation_mesh
from jax_sft.statistics.agreement import cohen_kappa
from jax_sft.terminal import messages, progress_of_completions

_KINDS = {"request": str, "completion": str}
_MAY = {"context": str, "other": str, "label": bool | int}


@dataclass(frozen=True)
class LabelledCase:
    """A line of the file: a request, a completion of it, and what a person says of that."""

    values: dict[str, Any]
    question: Question

    @property
    def label(self) -> bool | None:
        """What a person answers to the page's question; None without one."""
        label = self.values.get("label")
        return None if label is None else bool(label)


def judge_by_model(
    cases: epath.PathLike, out: epath.PathLike, options: JudgeOptions, make_backend: MakeBackend = Engine
) -> Table:
    """Write the lines {id, request, completion} of `cases` to `out`, with what a model says of each.

    Added are `metrics` (empty where its answer cannot be read), `grade`, `outputs` and `cut`. A line may hold
    `context` and `other`, as the page takes them, and a `label` (0 or 1): the table then says how far the
    headline of the page, 1 from one half on, agrees with the labels. UsageError, with file and line, for what
    cannot be judged, and for a model that cannot judge.
    """
    refuse_overwriting([out], [cases])
    page = get_page(options.page)
    read = list(_read(cases, options, page))
    evaluation = EvaluationConfig(slots=options.slots)
    model = prepare(Chosen(options.judge_config, page), evaluation)
    longest = max(read, key=lambda case: len(case.question.request + case.question.context))
    model.check_room(longest.question, str(longest.values.get("id", "")))
    asked = {digest(page.conversations(case.question)): case.question for case in read}
    chips = Chips(make_generation_mesh(evaluation.tensor), make_backend)
    with progress_of_completions(messages(), f"judge {page.name}", len(asked)) as advance:
        said = {of: (outputs, cut) for of, outputs, cut in ask(model, asked, chips, advance)}
    readings: list[Reading | None] = []
    rows = []
    for case in read:
        outputs, cut = said[digest(page.conversations(case.question))]
        reading = page.read(outputs)
        readings.append(reading)
        added = (
            {"metrics": reading.metrics, "grade": reading.grade} if reading else {"metrics": {}, "grade": ""}
        )
        rows.append({**case.values, **added, "outputs": list(outputs), "cut": cut})
    write_jsonl(out, rows)
    return _table(page, read, readings)


def _read(path: epath.PathLike, options: JudgeOptions, page: Judge) -> Iterator[LabelledCase]:
    empty = True
    for line, values in numbered_jsonl(path):
        where, empty = f"{path}, line {line}", False
        for name, kind in _KINDS.items():
            if name not in values:
                raise UsageError(f"{where}: no field {name}; found {', '.join(values)}")
            if not isinstance(values[name], kind):
                raise UsageError(f"{where}: {name} must be text, found {values[name]!r}")
        for name, may in _MAY.items():
            if name in values and not isinstance(values[name], may):
                wanted = "0 or 1" if name == "label" else "text"
                raise UsageError(f"{where}: {name} must be {wanted}, found {values[name]!r}")
        if page.compares and not values.get("other"):
            raise UsageError(f"{where}: no field other, which page {page.name} compares with")
        response = part_of(values["completion"], options.part)
        context, other = values.get("context", ""), values.get("other", "")
        yield LabelledCase(values, Question(values["request"], response, context, other))
    if empty:
        raise UsageError(f"{path}: holds no cases")


def _table(page: Judge, cases: Sequence[LabelledCase], readings: Sequence[Reading | None]) -> Table:
    """Means of the metrics, what is missing, and the agreement with the labels."""
    table = Table("page", "cases", "metrics", "unreadable", "agrees with labels", "kappa")
    values: dict[str, list[float]] = {}
    for reading in readings:
        for name, value in (reading.metrics if reading else {}).items():
            values.setdefault(name, []).append(value)
    means = [f"{name} {sum(of) / len(of):.3g} of {len(of)}" for name, of in values.items()]
    pairs: Mapping[str, list[tuple[bool, bool]]] = {
        str(number): [(case.label, reading.metrics[page.headline] >= 0.5)]
        for number, (case, reading) in enumerate(zip(cases, readings, strict=True))
        if reading is not None and case.label is not None and page.headline in reading.metrics
    }
    agrees = kappa = "–"
    if pairs:
        share, found = cohen_kappa(pairs)
        agrees = f"{share:.1%} of {len(pairs)}"
        kappa = f"{found.mean:.2f} ({found.low:.2f} – {found.high:.2f})" if found.n else "–"
    unreadable = sum(reading is None for reading in readings)
    table.add_row(page.name, str(len(cases)), ", ".join(means), str(unreadable), agrees, kappa)
    return table
