"""Whether what lies in a unit's folder is of the weights, the items and the rules that there are now."""

from dataclasses import dataclass

from etils import epath

from jax_sft.errors import UsageError
from jax_sft.files import read_if_there
from jax_sft.study.folder import completions_file, verdicts_file
from jax_sft.study.records import Item, RunRecord, UnitRecord, UnitScores, items_hash, short_hash


@dataclass(frozen=True)
class Present:
    """What a unit of a run would be made from if it were drawn now."""

    run: str
    step: int
    benchmark: str
    record: RunRecord | None
    snapshot: str
    """Checksum of the run's snapshot at that step; empty where there is none to compare with."""

    def staleness(self, folder: epath.PathLike) -> str:
        """Why the completions in `folder` are not of this; empty when they are, or nothing says otherwise."""
        steps = self.record.snapshot_steps if self.record else ()
        if steps and self.step not in steps:
            return "the run has no such step now"
        stored = UnitRecord.read(folder)
        if stored is None:
            return ""
        return stored.differs(self.as_unit({}, {}))

    def as_unit(self, settings: dict[str, int | float | str], prompts: dict[str, str]) -> UnitRecord:
        """The record of completions drawn now."""
        trained = self.record.fingerprint if self.record else ""
        template = self.record.template_hash if self.record else ""
        return UnitRecord(
            self.run, self.step, self.benchmark, trained, self.snapshot, template, settings, prompts
        )


def score_staleness(
    scores: UnitScores, present: Present, folder: epath.PathLike, items: list[Item] | None, scorer: str
) -> str:
    """Why scores are not of the completions, the items or the rules that there are now; empty when they are.

    Where completions or items are gone, or older versions did not keep what to compare with, nothing is said.
    """
    if (scores.run, scores.step, scores.benchmark) != (present.run, present.step, present.benchmark):
        return f"its scores are of {scores.run}, step {scores.step}, {scores.benchmark}"
    completions = read_if_there(completions_file(folder)) if scores.completions_hash else None
    if completions is not None and short_hash(completions) != scores.completions_hash:
        return "its completions have changed since they were scored"
    said = read_if_there(verdicts_file(folder)) if scores.verdicts_hash else None
    if said is not None and short_hash(said) != scores.verdicts_hash:
        return "judges have judged since it was scored"
    if scores.items_hash and items is not None and items_hash(items) != scores.items_hash:
        return "the items have changed since they were scored"
    if scores.scorer and scores.scorer != scorer:
        return f"scored by {scores.scorer}, now it is {scorer}"
    return ""


def readable_scores(folder: epath.PathLike) -> tuple[UnitScores | None, str]:
    """The scores in a unit's folder, or what is wrong with them."""
    try:
        return UnitScores.read(folder), ""
    except UsageError as error:
        return None, str(error)
