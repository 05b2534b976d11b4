"""A sample of completions for the report's pages: the same items at every snapshot, small enough to embed."""

import hashlib
import itertools
import json
from typing import Any

from jax_sft.analysis.study import StudyResults
from jax_sft.responses.thinking import reopened, thought
from jax_sft.study.records import CompletionLine, Item, JudgedCompletion, UnitScores

RANDOM_ITEMS, CHANGING_ITEMS = 5, 3
TEXT_LIMITS = (4000, 2000, 1000, 500)
"""Characters kept of one completion: the first limit with which everything fits the budget."""
BUDGET = 4_000_000
"""Characters of text the page may spend on completions."""


class CompletionSample:
    """Collects the chosen items' completions, one unit at a time."""

    def __init__(self, record: StudyResults) -> None:
        self._record = record
        self._opened = {run.name for run in record.runs if run.record and run.record.opens_thinking}
        self._chosen = {b.name: choose_items(record, b.name) for b in record.benchmarks}
        self._units: dict[tuple[str, str, int], list[dict[str, Any] | None]] = {}

    def add(self, unit: UnitScores, lines: list[CompletionLine]) -> None:
        """Keep the first sample of each chosen item of a unit, with its verdict."""
        verdicts = {verdict.item: verdict for verdict in unit.verdicts if verdict.sample == 0}
        texts = {line.item: line for line in lines if line.sample == 0}
        entries: list[dict[str, Any] | None] = []
        for item, _ in self._chosen[unit.benchmark]:
            line, verdict = texts.get(item), verdicts.get(item)
            entries.append(_entry(line, verdict, unit, unit.run in self._opened) if line else None)
        self._units[unit.run, unit.benchmark, unit.step] = entries

    def as_json(self) -> dict[str, Any]:
        """{items: {benchmark: [...]}, units: {run: {benchmark: {step: [...]}}}}, within the budget."""
        limit = next((limit for limit in TEXT_LIMITS if self._size(limit) <= BUDGET), TEXT_LIMITS[-1])
        units: dict[str, dict[str, dict[int, list[dict[str, Any] | None]]]] = {}
        for (run, benchmark, step), entries in self._units.items():
            shortened = [e and {**e, **_shortened(e, limit)} for e in entries]
            units.setdefault(run, {}).setdefault(benchmark, {})[step] = shortened
        items = {name: [self._item(name, *of) for of in chosen] for name, chosen in self._chosen.items()}
        return {"items": items, "units": units}

    def _size(self, limit: int) -> int:
        return sum(
            min(len(e["thought"]) + len(e["said"]), limit) + 120
            for of in self._units.values()
            for e in of
            if e
        )

    def _item(self, benchmark: str, item: str, why: str) -> dict[str, Any]:
        stored = self._record.items.get(benchmark, {}).get(item, Item(item, (), {}))
        messages = [
            {"role": turn["role"], "content": shorten(turn["content"], TEXT_LIMITS[0])}
            for turn in stored.messages
        ]
        reference = json.dumps(stored.reference, ensure_ascii=False)
        return {"id": item, "why": why, "messages": messages, "reference": shorten(reference, 600)}


def choose_items(record: StudyResults, benchmark: str) -> list[tuple[str, str]]:
    """(item, why): five at random, by a hash of the id, and three whose verdict changed most often."""
    flips: dict[str, int] = {}
    for run in record.swept:
        units = [unit for (_, name), unit in sorted(run.units.items()) if name == benchmark]
        scores = [unit.item_scores for unit in units]
        for item in dict.fromkeys(item for of in scores for item in of):
            seen = [of[item] for of in scores if item in of]
            changes = sum(a != b for a, b in itertools.pairwise(seen))
            flips[item] = flips.get(item, 0) + changes
    shuffled = sorted(flips, key=lambda item: hashlib.sha256(f"{benchmark}/{item}".encode()).hexdigest())
    random = shuffled[:RANDOM_ITEMS]
    changing = sorted(shuffled[RANDOM_ITEMS:], key=lambda item: -flips[item])[:CHANGING_ITEMS]
    return [(item, "picked at random") for item in random] + [
        (item, "picked because its verdict changes most") for item in changing if flips[item]
    ]


def shorten(text: str, limit: int) -> str:
    """At most about `limit` characters: the beginning, how much is left out, and the end."""
    if len(text) <= limit:
        return text
    head = 3 * limit // 5
    tail = limit - head
    return f"{text[:head]}\n[… {len(text) - limit:,} characters left out …]\n{text[-tail:]}"


def _shortened(entry: dict[str, Any], limit: int) -> dict[str, str]:
    """Thought and what is said after it, in about `limit` characters; what is said may take half at least."""
    inner, said = entry["thought"], entry["said"]
    said = shorten(said, max(limit // 2, limit - len(inner)))
    return {"thought": shorten(inner, max(limit // 2, limit - len(said))), "said": said}


def _entry(
    line: CompletionLine, verdict: JudgedCompletion | None, unit: UnitScores, opened: bool
) -> dict[str, Any]:
    score = verdict.metrics.get(unit.headline) if verdict else None
    text = reopened(line.completion, line.finish) if opened else line.completion
    inner = thought(text)
    return {
        "thought": inner,
        "said": text[len(inner) :],
        "tokens": line.tokens,
        "finish": line.finish,
        "score": score if score is None or unit.higher_is_better else 1 - score,
        "answer": shorten(verdict.answer, 200) if verdict else "",
        "answered": verdict.answered if verdict else False,
        "judged": verdict is not None,
    }
