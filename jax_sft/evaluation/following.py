"""Snapshots as training writes them: a sweep that follows looks for new ones until the runs have ended."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from jax_sft.checkpoints.store import snapshot_store
from jax_sft.config import Study
from jax_sft.errors import JaxSftError
from jax_sft.study.folder import run_folder
from jax_sft.study.records import RunRecord

SHORTEST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
"""Seconds between two looks; each pause without anything new is half as long again as the one before."""
Found = dict[str, list[int]]
"""Steps of snapshots by run."""
Wanted = Callable[[str, Sequence[int]], Sequence[int]]
"""Of a run and the steps of its snapshots, those that are this worker's."""


@dataclass
class _Seen:
    """What was seen of a run so far."""

    fingerprint: str = ""
    steps: set[int] = field(default_factory=set)
    ended: bool = False


def follow(
    study: Study, runs: Sequence[str], wanted: Wanted, timeout: float, say: Callable[[str], None]
) -> Iterator[Found]:
    """The wanted snapshots that are whole, as they come; each once.

    A run that has not begun is waited for; one has ended when its last snapshot is there. JaxSftError, naming
    what did not come, after `timeout` minutes without anything new (0 waits for ever).
    """
    seen = {name: _Seen() for name in runs}
    pause, since = SHORTEST_PAUSE, time.monotonic()
    while True:
        awaited: list[str] = []
        found = {name: new for name in runs if (new := _look(study, name, seen[name], wanted, awaited))}
        if found:
            yield found
            pause, since = SHORTEST_PAUSE, time.monotonic()
        if not awaited:
            return
        if found:
            continue  # much may have come meanwhile
        if timeout and time.monotonic() - since > 60 * timeout:
            raise JaxSftError(
                f"--follow-timeout: nothing new for {timeout:g} minutes; still awaited: "
                f"{'; '.join(awaited)}; what came is swept, and the same command goes on"
            )
        if pause == SHORTEST_PAUSE:
            say(f"waiting for {'; '.join(awaited)}")
        time.sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)


def _look(study: Study, name: str, seen: _Seen, wanted: Wanted, awaited: list[str]) -> list[int]:
    """Wanted steps of a run that were not seen before; `awaited` gets what has yet to come."""
    if seen.ended:
        return []
    folder = run_folder(study, name)
    record = RunRecord.read(folder)
    if record is None:
        awaited.append(f"{name}, which has not begun")
        return []
    if record.fingerprint != seen.fingerprint:  # begun, or begun again as another
        seen.fingerprint, seen.steps = record.fingerprint, set()
    with snapshot_store(folder, read_only=True, alone=True) as store:
        present = store.steps()
    planned = record.snapshot_steps or tuple(present)
    mine = wanted(name, planned)
    new = sorted(step for step in mine if step in present and step not in seen.steps)
    seen.steps.update(new)
    missing = [step for step in mine if step not in present]
    seen.ended = bool(planned) and (not missing or max(planned) in present)
    if not seen.ended:
        awaited.append(f"{name} at step {missing[0]}" if missing else f"{name} at any step")
    return new
