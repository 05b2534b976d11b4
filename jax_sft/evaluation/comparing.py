"""Units that compare snapshots with a base of the same run: the base is read before the others."""

from collections.abc import Callable, Iterator, Sequence

import jax

from jax_sft.evaluation.units import UnitToDraw
from jax_sft.generation.backend import Given
from jax_sft.generation.divergence import Base, Divergences
from jax_sft.models import Params
from jax_sft.study.records import CompletionLine


class Compared:
    """The comparisons that a run's units miss, and what is remembered of their bases."""

    def __init__(self, comparer: Divergences, units: Sequence[UnitToDraw]) -> None:
        self._comparer = comparer
        self._given: dict[int, dict[str, Given]] = {}
        for unit in units:
            if unit.base is not None:
                asked = self._given.setdefault(unit.base, {})
                asked.update((one.id, one) for one, _ in _missing(unit))
        self._bases: dict[int, Base] = {}

    @property
    def bases(self) -> list[int]:
        """Steps that have to be read before others."""
        return sorted(self._given)

    def remember(self, step: int, params: Params) -> None:
        """Keep of a base what snapshots are compared with; of other steps nothing."""
        if step in self._given:
            with jax.transfer_guard("disallow"):
                self._bases[step] = self._comparer.remember(params, self._given[step].values())

    def compare(self, params: Params, units: Sequence[UnitToDraw], give_up: Callable[[str], None]) -> None:
        """Compare a snapshot as its units ask; `give_up` is told of those whose base could not be read."""
        for unit in units:
            assert unit.base is not None
            base = self._bases.get(unit.base)
            if base is None:
                where = unit.file.path.parent
                give_up(f"{where}: is compared with step {unit.base}, which could not be read; passed over")
                continue
            items = {one.id: item for one, item in _missing(unit)}
            try:
                with jax.transfer_guard("disallow"):
                    for one, found in self._comparer.score(params, base, [one for one, _ in _missing(unit)]):
                        tokens = len(one.continuations[0])
                        line = CompletionLine(items[one.id], 0, "", tokens, "stop", divergence=tuple(found))
                        unit.file.add(line)
            finally:
                unit.file.flush()


def _missing(unit: UnitToDraw) -> Iterator[tuple[Given, str]]:
    """What the unit has still to compare, each with its item."""
    for item, _ in unit.file.missing():
        for one, _ in unit.questions[item].given(f"{unit.benchmark.name}/{item}"):
            yield one, item
