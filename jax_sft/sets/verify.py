"""Verification of a raw pool (queries x many responses): right answers, one a query, none from a benchmark.

Beside the set `OUT.jsonl` lie `OUT.report.json` (what became of every response), `OUT.removed.jsonl` (queries
that overlap a benchmark, with the item and the words they share) and, while it runs, `OUT.partial.jsonl`: the
verdicts so far, from which an interrupted verification goes on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from etils import epath
from rich.console import Console

from jax_sft.data.records import read_records
from jax_sft.data.transforms import draw
from jax_sft.errors import UsageError
from jax_sft.files import in_bucket, read_jsonl, refuse_overwriting, write_json, write_jsonl
from jax_sft.options import VerifyOptions
from jax_sft.responses import mathematics
from jax_sft.responses.thinking import matched, visible
from jax_sft.responses.workers import Limits, Workers
from jax_sft.sets.overlap import index_items, overlap, read_items
from jax_sft.terminal import bar, messages

_BESIDE = (".report.json", ".removed.jsonl", ".partial.jsonl")


@dataclass
class VerifyReport:
    """What became of every response; the counts add up to `responses`."""

    responses: int = 0
    queries: int = 0
    duplicates: int = 0
    contaminated: int = 0
    over_length: int = 0
    """Longer than allowed, or with a trace that never ended, or think tags that do not match."""
    right: int = 0
    wrong: int = 0
    unparsable: int = 0
    """No answer in the response, or the right answer itself cannot be read."""
    timed_out: int = 0
    crashed: int = 0
    kept: int = 0
    queries_kept: int = 0
    removed: list[str] = field(default_factory=list)
    """Benchmark items that queries overlapped."""

    def __str__(self) -> str:
        parts = {name.replace("_", " "): value for name, value in asdict(self).items() if name != "removed"}
        return ", ".join(f"{value} {name}" for name, value in parts.items())


@dataclass(frozen=True)
class Candidate:
    """One response of the pool."""

    id: str
    prompt: str
    response: str
    answer: str

    @property
    def key(self) -> str:
        """Names the response and the answer it is judged by, whatever its row."""
        return hashlib.sha256(f"{self.answer}\0{self.response}".encode(errors="surrogatepass")).hexdigest()[
            :24
        ]


def verify(
    pool: epath.PathLike,
    out: epath.PathLike,
    options: VerifyOptions,
    benchmarks: Iterable[epath.PathLike] = (),
    console: Console | None = None,
) -> VerifyReport:
    """Judge every response of `pool` (.jsonl, .json, .parquet) and write the set that is left to `out`.

    Raises UsageError for a missing file or column, a wrong type (with its row), or when nothing is left.
    """
    target = epath.Path(out)
    options.check()
    if target.suffix != ".jsonl":
        raise UsageError(f"{out}: the set written must end in .jsonl")
    benchmarks = list(benchmarks)
    written = [target, *(target.with_suffix(suffix) for suffix in _BESIDE)]
    refuse_overwriting(written, [pool, *benchmarks])
    report = VerifyReport()
    removed: list[dict[str, str]] = []
    index = index_items(read_items(benchmarks), options.ngram)
    judged = list(_sifted(_candidates(epath.Path(pool), options), index, options, report, removed))
    report.removed = sorted({entry["item"] for entry in removed})
    verdicts = _judge_all(judged, target.with_suffix(".partial.jsonl"), options, console)
    for candidate in judged:
        name = verdicts[candidate.key]
        setattr(report, name, getattr(report, name) + 1)
    rows = list(_kept(judged, verdicts, options))
    report.kept, report.queries_kept = len(rows), len({row["prompt"] for row in rows})
    if not rows:
        raise UsageError(f"{pool}: no response is left ({report})")
    write_jsonl(target, rows)
    write_jsonl(target.with_suffix(".removed.jsonl"), removed)
    write_json(target.with_suffix(".report.json"), {"options": asdict(options)} | asdict(report))
    target.with_suffix(".partial.jsonl").unlink(missing_ok=True)
    return report


def _sifted(
    candidates: Iterable[Candidate],
    index: Mapping[str, str],
    options: VerifyOptions,
    report: VerifyReport,
    removed: list[dict[str, str]],
) -> Iterator[Candidate]:
    """The candidates worth judging; `report` counts the others, `removed` lists overlapping queries."""
    seen: set[tuple[str, str]] = set()
    contaminated: dict[str, bool] = {}
    for candidate in candidates:
        report.responses += 1
        if candidate.prompt not in contaminated:
            found = overlap(candidate.prompt, index, options.ngram)
            contaminated[candidate.prompt] = found is not None
            report.queries += 1
            if found:
                removed.append({"prompt": candidate.prompt, "item": found[0], "shared": found[1]})
        key = candidate.prompt, " ".join(candidate.response.split())
        if contaminated[candidate.prompt]:
            report.contaminated += 1
        elif key in seen:
            report.duplicates += 1
        elif _over_length(candidate.response, options.max_characters):
            report.over_length += 1
        else:
            yield candidate
        seen.add(key)


def _candidates(path: epath.Path, options: VerifyOptions) -> Iterator[Candidate]:
    for number, record in read_records(path):
        where = f"{path}, row {number}"
        names = (options.prompt, options.response, options.answer)
        if missing := [name for name in names if record.get(name) is None]:
            raise UsageError(f"{where}: no column {' and no '.join(missing)}; found {', '.join(record)}")
        prompt, answer = record[options.prompt], record[options.answer]
        responses = record[options.response]
        responses = responses if isinstance(responses, list | tuple) else [responses]
        for name, value in ((options.prompt, prompt), *((options.response, text) for text in responses)):
            if not isinstance(value, str):
                raise UsageError(f"{where}: {name} must be text, found {type(value).__name__}")
        if not _is_unicode(prompt):
            raise UsageError(f"{where}: {options.prompt} holds half of a surrogate pair: not valid Unicode")
        if not f"{prompt}{options.instruction}".strip():
            raise UsageError(f"{where}: {options.prompt} is empty")
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise UsageError(
                f"{where}: {options.answer} must be text or a number, found {type(answer).__name__}"
            )
        for place, response in enumerate(responses):
            given = record.get("id")
            name = f"{number if given in (None, '') else given}" + (f"-{place}" if len(responses) > 1 else "")
            yield Candidate(name, prompt, response, str(answer))


def _over_length(response: str, max_characters: int) -> bool:
    return not matched(response) or 0 < max_characters < len(response)


def _judge_all(
    candidates: list[Candidate], partial: epath.Path, options: VerifyOptions, console: Console | None
) -> dict[str, str]:
    """The verdict on each candidate by key; those found in `partial` are not judged again."""
    verdicts = {row["key"]: row["verdict"] for row in _readable(partial)}
    todo = list({c.key: c for c in candidates if c.key not in verdicts}.values())
    tasks = ((candidate.response, candidate.answer) for candidate in todo)
    names = {"timeout": "timed_out", "crashed": "crashed", "error": "unparsable"}
    partial.parent.mkdir(parents=True, exist_ok=True)
    # Written through, line by line, so that an interruption loses little; gs:// cannot append.
    with ExitStack() as stack:
        local = not in_bucket(partial)
        lines = stack.enter_context(open(partial, "a", buffering=1)) if local else None
        progress = stack.enter_context(bar(console or messages(quiet=True), "[bold]verifying", ""))
        task = progress.add_task("", total=len(candidates), completed=len(candidates) - len(todo))
        workers = stack.enter_context(Workers(Limits(options.workers, options.seconds, options.memory)))
        outcomes = workers.run(judge, tasks, warm=mathematics.warm)
        for candidate, (outcome, value) in zip(todo, outcomes, strict=True):
            verdicts[candidate.key] = value if outcome == "done" else names[outcome]
            if lines:
                lines.write(json.dumps({"key": candidate.key, "verdict": verdicts[candidate.key]}) + "\n")
            progress.advance(task)
    return verdicts


def _readable(partial: epath.Path) -> list[dict[str, Any]]:
    """The whole lines of an interrupted verification; the last may have been cut off."""
    if not partial.exists():
        return []
    text = partial.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        partial.write_text(whole)
    return list(read_jsonl(partial)) if whole else []


def judge(response: str, answer: str) -> str:
    """`right`, `wrong` or `unparsable`: the answer after the thinking, by the judge of the benchmarks."""
    said = visible(response)
    if said is None or not _is_unicode(response + answer):
        return "unparsable"
    right = mathematics.judge(said, answer).right
    return "unparsable" if right is None else ("right" if right else "wrong")


def _is_unicode(text: str) -> bool:
    """Whether the text can be written down: half of a surrogate pair, as JSON may hold, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kept(
    candidates: list[Candidate], verdicts: Mapping[str, str], options: VerifyOptions
) -> Iterator[dict[str, Any]]:
    """Rows of the set, in the order in which the queries first appear."""

    def right(candidate: Candidate) -> bool:
        return verdicts[candidate.key] == "right"

    if options.keep == "all":
        kept = [c for c in candidates if verdicts[c.key] in ("right", "wrong")]
    else:
        chosen: dict[str, Candidate] = {}
        for candidate in filter(right, candidates):
            best = chosen.setdefault(candidate.prompt, candidate)
            if draw(options.seed, "response", candidate.id) < draw(options.seed, "response", best.id):
                chosen[candidate.prompt] = candidate
        kept = list(chosen.values())
    shared = {name for name, count in Counter(candidate.id for candidate in kept).items() if count > 1}
    for place, candidate in enumerate(kept):
        yield {
            "id": f"{candidate.id}-{place}" if candidate.id in shared else candidate.id,
            "prompt": f"{candidate.prompt}\n{options.instruction}".rstrip("\n"),
            "response": candidate.response,
            "answer": candidate.answer,
            "correct": right(candidate),
        }
