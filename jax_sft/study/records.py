"""What a study leaves on disk, as types that read and write themselves: the interface between all stages.

A stage writes these and the next one reads them, at another time or on another machine. Of a file that an
older version wrote, what it has in common is read; a field that is missing or of another type is a UsageError
that names the file.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from etils import epath

from jax_sft.config import Group, Run, Study
from jax_sft.errors import UsageError
from jax_sft.files import read_json, read_jsonl, write_json, write_jsonl
from jax_sft.statistics.intervals import Estimate
from jax_sft.study.document import differences, from_json, run_from_json, run_to_json, to_json
from jax_sft.study.folder import items_file, run_file, scores_file, unit_file
from jax_sft.study.likelihoods import Likelihood
from jax_sft.study.outputs import Outputs
from jax_sft.study.verdicts import Agreement, JudgeSummary

FREE_TO_CHANGE = ("optimizer_memory", "parallelism", "remat", "show_first_row", "snapshots", "trace")
"""Parts of a run that may differ when it is resumed: they do not change what is computed."""
_NAMES_OF_CONTENT = {
    "tokens": ("tokenizer", "template", "template_options"),
    "data": ("source", "options", "knobs", "rows"),
}
"""Fields that stand for what the hashes of a record are of."""
Finish = Literal["stop", "length", "loop"]
"""A stop token or stop text came, the limit was reached, or it was cut for repeating itself."""
Key = tuple[str, int]
"""(item, sample)"""
_NOTHING = object()


@dataclass(frozen=True)
class RunRecord:
    """A run as it was trained: its resolved config, and hashes of what it was trained on."""

    study: str
    run: Run
    data_root: str = ""
    tokenizer_hash: str = ""
    template_hash: str = ""
    data_hash: str = ""
    total_steps: int = 0
    snapshot_steps: tuple[int, ...] = ()
    opens_thinking: bool = False
    """Whether the chat template opens the thought, so that completions come without their first think tag."""
    packing: str = ""
    """How full the packed rows are, in words."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the libraries that numbers depend on."""

    @property
    def described(self) -> dict[str, Any]:
        """The config less what is free to change, and hashes of what it names."""
        run = {name: value for name, value in run_to_json(self.run).items() if name not in FREE_TO_CHANGE}
        hashes = {"tokenizer_hash": self.tokenizer_hash} if self.tokenizer_hash else {}
        return {
            **run,
            **hashes,
            "template_hash": self.template_hash,
            "data_hash": self.data_hash,
            "total_steps": self.total_steps,
        }

    @property
    def essence(self) -> dict[str, Any]:
        """What decides the weights: of files only their content counts, not where they lie."""
        essence = self.described
        if self.tokenizer_hash:
            for part, names in _NAMES_OF_CONTENT.items():
                essence[part] = {name: value for name, value in essence[part].items() if name not in names}
        return essence

    def changes_since(self, old: "RunRecord") -> list[str]:
        """What changed that decides the weights, in words; nothing where an old record made the same."""
        new = self if old.tokenizer_hash else replace(self, tokenizer_hash="")
        return differences(old.described, new.described) if new.essence != old.essence else []

    @property
    def fingerprint(self) -> str:
        """Short hash of the essence: equal for runs that make the same weights."""
        return hashlib.sha256(json.dumps(self.essence, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, folder: epath.PathLike) -> None:
        """Write the record into the run's folder."""
        write_json(run_file(folder), to_json(self))

    @staticmethod
    def read(folder: epath.PathLike) -> "RunRecord | None":
        """The record in a run's folder; None when there is none, UsageError when it is malformed."""
        path = run_file(folder)
        value = read_json(path, missing=_NOTHING)
        if value is _NOTHING:
            return None
        if not isinstance(value, dict):
            raise UsageError(f"{path}: expected an object, found {type(value).__name__}")
        run = run_from_json(value.get("run"), where=str(path))
        return replace(from_json(RunRecord, {"study": ""} | value, str(path)), run=run)


@dataclass(frozen=True)
class Item:
    """One question: the turns of its prompt, and what its scorer needs to judge a completion (plain JSON)."""

    id: str
    messages: tuple[dict[str, Any], ...]
    reference: dict[str, Any]


def write_items(study: Study, benchmark: str, items: Sequence[Item]) -> None:
    """Write the items that every unit of the benchmark is asked."""
    write_jsonl(items_file(study, benchmark), [dataclasses.asdict(item) for item in items])


def read_items(study: Study, benchmark: str) -> list[Item] | None:
    """The stored items of a benchmark; None when there are none, UsageError when the file is malformed."""
    path = items_file(study, benchmark)
    if not path.exists():
        return None
    return [from_json(Item, row, f"{path}, line {n}") for n, row in enumerate(read_jsonl(path), start=1)]


def items_hash(items: Sequence[Item]) -> str:
    """Short hash of items, references among them."""
    return short_hash(json.dumps([dataclasses.asdict(item) for item in items]).encode())


@dataclass(frozen=True)
class CompletionLine:
    """The i-th draw for an item: the text that came back."""

    item: str
    sample: int
    completion: str
    tokens: int
    """Tokens generated, the one that ended the sequence counted."""
    finish: Finish
    likelihoods: tuple[Likelihood, ...] = ()
    """Of the item's continuations, where these were asked; `completion` is the likeliest then."""
    divergence: tuple[float, ...] = ()
    """KL from the base and back, summed over a given response's tokens, where that was asked."""
    logprobs: tuple[float, ...] = ()
    """Of each of `tokens`, by the model itself and in nats to five decimals, where they are to be kept."""

    @property
    def key(self) -> Key:
        """What was asked."""
        return self.item, self.sample

    @property
    def text(self) -> str:
        """The line as it stands in a file."""
        return json.dumps(self.fields, ensure_ascii=False)

    @property
    def fields(self) -> dict[str, Any]:
        """The line as JSON, without what it does not have."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value != ()}

    @staticmethod
    def from_json(value: dict[str, Any], where: str) -> "CompletionLine":
        """The line of a stored completion; UsageError, opened by `where`, when it is none."""
        return from_json(CompletionLine, value, where)


@dataclass(frozen=True)
class UnitRecord:
    """What the completions of a unit are made from. Whatever differs in any of it has other completions."""

    run: str
    step: int
    benchmark: str
    trained: str
    """Fingerprint of the run's record."""
    snapshot: str
    """Checksum of the weights; empty where they were drawn before it was kept."""
    template_hash: str
    settings: dict[str, int | float | str]
    """Sampling, limit, seed, type and what else decides them; see evaluation/settings.py."""
    prompts: dict[str, str]
    """Of each item, a short hash of its prompt's tokens."""
    lines: tuple[str, ...] = ()
    """Checksums of the lines of the whole file, in order; empty until it is written."""

    def write(self, unit: epath.PathLike) -> None:
        """Write the record into the unit's folder."""
        write_json(unit_file(unit), to_json(self))

    @staticmethod
    def read(unit: epath.PathLike) -> "UnitRecord | None":
        """The record in a unit's folder; None when there is none, UsageError when it is malformed."""
        path = unit_file(unit)
        value = read_json(path, missing=_NOTHING)
        return None if value is _NOTHING else from_json(UnitRecord, value, str(path))

    def differs(self, other: "UnitRecord") -> str:
        """In what the completions of two units must differ, prompts aside; empty when in nothing."""
        if (self.run, self.step, self.benchmark) != (other.run, other.step, other.benchmark):
            return f"drawn for {self.run}, step {self.step}, {self.benchmark}"
        if self.trained and other.trained and self.trained != other.trained:
            return "drawn from a run that was trained in another way"
        if self.snapshot and other.snapshot and self.snapshot != other.snapshot:
            return "drawn from another snapshot"
        if self.template_hash and self.template_hash != other.template_hash:
            return "drawn with another chat template"
        return ""


def short_hash(data: bytes) -> str:
    """12 hexadecimal digits that tell content apart."""
    return hashlib.blake2b(data, digest_size=6).hexdigest()


@dataclass(frozen=True)
class Verdict:
    """What was found in one completion."""

    metrics: dict[str, float]
    """Values by name, usually 0 or 1; a metric that does not apply to the item is left out."""
    answered: bool
    """Whether there was an answer to judge, right or wrong."""
    answer: str = ""
    """The answer as read, for people who page through completions."""
    form: str = ""
    """In which form it stood: tag, box, marked, stated, …; empty where there was no answer."""


@dataclass(frozen=True)
class JudgedCompletion:
    """A verdict beside what it is on."""

    item: str
    sample: int
    metrics: dict[str, float]
    answered: bool
    answer: str = ""
    form: str = ""


@dataclass(frozen=True)
class UnitScores:
    """The scores of one unit (run, step, benchmark), with the verdicts that they come from."""

    study: str
    run: str
    step: int
    benchmark: str
    kind: str  # the task
    group: Group
    headline: str
    """The metric that stands for the benchmark."""
    higher_is_better: bool
    items: int
    completions: int
    score: float
    """Mean of the headline metric."""
    low: float
    high: float
    metrics: dict[str, Estimate]
    mean_tokens: float
    truncation_rate: float
    no_answer_rate: float
    """Share of the judged completions that hold no answer."""
    scorer_failures: int
    """Completions without a verdict, because the judge ran out of time or died; in no mean."""
    verdicts: tuple[JudgedCompletion, ...]
    completions_hash: str = ""
    """Of the file that was judged; empty where it was judged before this was kept."""
    item_weights: dict[str, float] = field(default_factory=dict)
    """Of items in the mean of the headline; empty where they count alike."""
    items_hash: str = ""
    scorer: str = ""
    """The rules that judged, with their version."""
    outputs: Outputs = field(default_factory=Outputs)
    sampled: dict[str, Estimate] = field(default_factory=dict)
    """Of the headline where items have several samples: `avg@n`, `pass@k`, `majority@n`."""
    judges: tuple[JudgeSummary, ...] = ()
    """What judges that are models said, in numbers; their metrics are among the others."""
    agreements: tuple[Agreement, ...] = ()
    verdicts_hash: str = ""
    """Of the file of what they said; empty without judges."""

    def write(self, unit: epath.PathLike) -> None:
        """Write the scores into the unit's folder."""
        write_json(scores_file(unit), dataclasses.asdict(self))

    @staticmethod
    def read(unit: epath.PathLike) -> "UnitScores | None":
        """The scores in a unit's folder; None when there are none, UsageError when they are malformed."""
        path = scores_file(unit)
        value = read_json(path, missing=_NOTHING)
        if value is _NOTHING:
            return None
        return from_json(UnitScores, value, str(path), remedy="score the unit again with `jax-sft score`")

    @property
    def judged(self) -> bool:
        """Whether the headline metric applies to any item, so that there is a score."""
        return math.isfinite(self.score) and self.metrics[self.headline].n > 0

    @cached_property
    def item_scores(self) -> dict[str, float]:
        """Headline metric of each item, averaged over its samples; others are left out."""
        values: dict[str, list[float]] = {}
        for verdict in self.verdicts:
            if self.headline in verdict.metrics:
                values.setdefault(verdict.item, []).append(verdict.metrics[self.headline])
        return {item: sum(of) / len(of) for item, of in values.items()}
