"""Snapshot schedules as data: the steps at which parameters are kept for good."""

import math
import re

from jax_sft.errors import UsageError

_EVERY = re.compile(r"every (\d+)(?: until (\d+))?$")
_EPOCHS = re.compile(r"(\d+(?:\.\d+)?) epochs?$")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%$")
GRAMMAR = "`40`, `last`, `every 10 until 100`, `every 80`, `25%` and `1.5 epochs`"


def snapshot_steps(
    schedule: str, total_steps: int, steps_per_epoch: float, field: str = "schedule"
) -> list[int]:
    """The sorted steps named by a comma-separated schedule, of a run of `total_steps` updates.

    Step s is the parameters after s updates; 0 is the start. `every N` continues after the previous piece's
    `until`. A step beyond the end, or a piece that is not understood, is a UsageError that names `field`, a
    field of `SnapshotConfig`.
    """
    steps: set[int] = set()
    reached = 0
    for piece in (piece.strip() for piece in schedule.strip().removesuffix(",").split(",")):
        where = f"snapshots.{field}: `{piece}`"
        if match := _EVERY.match(piece):
            every, until = int(match[1]), int(match[2] or total_steps)
            if every == 0:
                raise UsageError(f"{where}: the interval must be at least 1")
            _check(where, until, total_steps)
            first = (reached // every + 1) * every
            steps.update(range(first, until + 1, every))
            reached = until
            continue
        step = _single(where, piece, total_steps, steps_per_epoch)
        _check(where, step, total_steps)
        steps.add(step)
    if not steps:
        raise UsageError(
            f"snapshots.{field}: `{schedule}` names no step of a run of {total_steps}; add `last`"
        )
    return sorted(steps)


def _single(where: str, piece: str, total_steps: int, steps_per_epoch: float) -> int:
    if piece == "last":
        return total_steps
    if piece.isdecimal():
        return int(piece)
    if match := _PERCENT.match(piece):
        return math.floor(float(match[1]) / 100 * total_steps + 0.5)
    if match := _EPOCHS.match(piece):
        return math.floor(float(match[1]) * steps_per_epoch + 0.5)
    raise UsageError(f"{where} is not understood; pieces are {GRAMMAR}")


def _check(where: str, step: int, total_steps: int) -> None:
    if step > total_steps:
        raise UsageError(f"{where} is step {step}, beyond the end of training at step {total_steps}")
