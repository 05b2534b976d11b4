"""Which steps of a run are saved: snapshots by the schedule, state at an interval and at the end."""

import time
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from jax_sft.checkpoints.store import DamagedSave, Store, to_snapshot
from jax_sft.config import SnapshotConfig
from jax_sft.models import Params
from jax_sft.training.step import TrainState


class Saves:
    """The two stores of a run and the steps at which each is written.

    A state at step s is committed only after every snapshot up to s: what a resumed run skips is there.
    """

    def __init__(
        self,
        snapshots: Store,
        states: Store,
        snapshot_steps: Iterable[int],
        config: SnapshotConfig,
        total_steps: int,
        plain: Callable[[Params], Params],
    ) -> None:
        """`plain` makes the parameters of the plain model out of those that are trained (see LoRA)."""
        self.snapshots, self.states, self._plain = snapshots, states, plain
        self._snapshot_steps = frozenset(snapshot_steps)
        self._config, self._total_steps = config, total_steps
        self._last_state: tuple[int, float] | None = None
        self._next_state = config.state_every

    def due(self, step: int) -> bool:
        """Whether anything is saved after `step` updates."""
        return step in self._snapshot_steps or self._state_due(step)

    def resume_at(self, step: int) -> None:
        """Take note of the step that training goes on from."""
        self._last_state = step, time.monotonic()
        self._next_state = step - step % self._config.state_every + self._config.state_every

    def save(self, step: int, state: TrainState) -> None:
        """Start saving what is due at `step`; sound snapshots of an interrupted run are left as they are."""
        if step in self._snapshot_steps:
            snapshot = to_snapshot(self._plain(state.params))
            if not self._has_sound(step, snapshot):
                self.snapshots.save_later(step, snapshot)
        if self._state_due(step):
            self.save_state(step, state)

    def save_state(self, step: int, state: TrainState) -> None:
        """Start saving the state at `step` if it is not there, scheduled or not."""
        self.states.wait()  # one under way may be of this very step
        if step not in self.states.steps():
            self.snapshots.wait()
            self.states.save(step, state)
        self._plan_next(step)

    def check(self) -> None:
        """Raise the error of a save in the background, if one failed."""
        self.snapshots.check()
        self.states.check()

    def missed(self, start_step: int) -> list[int]:
        """Scheduled snapshots that a run going on from `start_step` can no longer make."""
        return sorted(s for s in self._snapshot_steps - set(self.snapshots.steps()) if s < start_step)

    def _state_due(self, step: int) -> bool:
        return step == self._total_steps or (step > 0 and step >= self._next_state)

    def _plan_next(self, step: int) -> None:
        """At which step the next state is due; by time, if steps take as long as since the last one."""
        self._next_state = step - step % self._config.state_every + self._config.state_every
        if self._config.state_minutes > 0 and self._last_state is not None and step > self._last_state[0]:
            before, since = self._last_state
            seconds = (time.monotonic() - since) / (step - before)
            # All processes must save the same step: that of the first counts.
            seconds = float(multihost_utils.broadcast_one_to_all(np.float32(seconds)))
            self._next_state = step + max(1, round(60 * self._config.state_minutes / seconds))
        self._last_state = step, time.monotonic()

    def _has_sound(self, step: int, snapshot: Params) -> bool:
        """Whether there is a snapshot like this one; one that is not what was written is deleted."""
        if step not in self.snapshots.steps():
            return False
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), snapshot
        )
        try:
            self.snapshots.load(step, like)
        except DamagedSave:
            self.snapshots.drop(step)
            return False
        return True


def load_last_state(states: Store, wanted: TrainState, console: Console) -> TrainState | None:
    """The last state that is what was written, typed and sharded as `wanted`; None when there is none.

    Later ones are named and deleted.
    """
    state, damaged = None, []
    for step in reversed(states.steps()):
        try:
            state = states.load(step, wanted)
            break
        except DamagedSave as error:
            console.print(f"{error.save}: {error.fault}; passed over", style="yellow")
            damaged.append(step)
    for step in damaged:
        states.drop(step)
    return state
