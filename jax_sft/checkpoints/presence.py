"""What a unit would be drawn from now, told without reading a snapshot that is what it was."""

from functools import cached_property

from jax_sft.checkpoints.store import snapshot_checksum, snapshot_store
from jax_sft.config import Study
from jax_sft.errors import UsageError
from jax_sft.study.folder import run_folder, unit_folder
from jax_sft.study.provenance import Present
from jax_sft.study.records import RunRecord, UnitRecord


class Presence:
    """Of one run: its record, and the checksums of its snapshots."""

    def __init__(self, study: Study, run: str) -> None:
        self._study, self._run = study, run
        self._folder = run_folder(study, run)
        self._checksums: dict[int, str] = {}
        self._faults: dict[int, str] = {}

    @cached_property
    def record(self) -> RunRecord | None:
        """The run's record; None when it is not trained."""
        return RunRecord.read(self._folder)

    def of(self, step: int, benchmark: str) -> Present:
        """What the unit would be made from now.

        A snapshot that differs from what the unit was drawn from, because it is damaged, says nothing
        against the unit: it is looked into only then.
        """
        snapshot = self._checksum(step)
        try:
            stored = UnitRecord.read(unit_folder(self._study, self._run, step, benchmark))
        except UsageError:
            stored = None
        if snapshot and stored and stored.snapshot not in ("", snapshot) and self._fault(step):
            snapshot = ""
        return Present(self._run, step, benchmark, self.record, snapshot)

    def _checksum(self, step: int) -> str:
        if step not in self._checksums:
            self._checksums[step] = snapshot_checksum(self._folder, step)
        return self._checksums[step]

    def _fault(self, step: int) -> str:
        if step not in self._faults:
            with snapshot_store(self._folder, read_only=True, alone=True) as store:
                self._faults[step] = store.fault(step)
        return self._faults[step]
