"""Training one run from start (or where it stopped) to its last step."""

import time
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from rich.console import Console

from jax_sft.checkpoints.schedules import snapshot_steps
from jax_sft.checkpoints.store import Store, snapshot_store, state_store, to_snapshot
from jax_sft.config import Run, Study
from jax_sft.data.loader import Batch, BatchPlan, iterate
from jax_sft.data.rows import tokenise
from jax_sft.data.sources import load_rows
from jax_sft.errors import JaxSftError
from jax_sft.sharding import make_mesh
from jax_sft.tokens.templates import load_template
from jax_sft.tokens.tokenizer import load_tokenizer
from jax_sft.training.metrics import MetricsLog, TrainProgress
from jax_sft.training.start import start_state, write_identity
from jax_sft.training.step import (
    DeviceBatch,
    Metrics,
    TrainState,
    abstract_state,
    batch_shardings,
    compile_step,
)

SKIPS_IN_A_ROW = 10
"""Steps without a finite gradient after which training stops."""


def train(study: Study, run: Run) -> None:
    """Train `run` to its end, resuming from its last state; everything is written under its folder."""
    console = Console(stderr=True)
    plan = make_plan(study, run)
    steps = snapshot_steps(run.snapshots.schedule, plan.total_steps, plan.steps_per_epoch)
    template = load_template(run.tokens, load_tokenizer(run.tokens))
    folder = write_identity(study, run, plan, template, steps)
    console.print(f"{run.name}: {plan.report()}")
    mesh = make_mesh(run.parallelism)
    snapshots, states = snapshot_store(folder), state_store(folder)
    try:
        with jax.set_mesh(mesh):
            state = resume(run, mesh, states, console) or start_state(study, run, mesh)
            _Loop(run, plan, mesh, folder, steps, snapshots, states, console).run_from(state)
    finally:
        snapshots.finish()
        states.finish()


def make_plan(study: Study, run: Run) -> BatchPlan:
    """Rows of the run's source, tokenised and laid out into the batches of every step."""
    tokenizer = load_tokenizer(run.tokens)
    template = load_template(run.tokens, tokenizer)
    rows = load_rows(run.data, run.seed, study.data_root)
    tokenised = tokenise(rows, tokenizer, template, run.tokens.end, run.data.row_length, run.data.too_long)
    return BatchPlan(tokenised, run.data, run.seed, run.epochs)


def resume(run: Run, mesh: Mesh, states: Store, console: Console) -> TrainState | None:
    """The last sound state, or None at the very start; unsound ones are named and passed over."""
    for step in reversed(states.steps()):
        fault = states.fault(step)
        if fault:
            console.print(f"[yellow]{states.folder / str(step)}: {fault}; passed over")
            states.drop(step)
            continue
        console.print(f"{run.name}: going on from step {step}")
        return states.load(step, abstract_state(run, mesh))
    return None


class _Loop:
    """The step loop and what it writes; holds no numbers that training depends on."""

    def __init__(
        self,
        run: Run,
        plan: BatchPlan,
        mesh: Mesh,
        folder: epath.Path,
        steps: list[int],
        snapshots: Store,
        states: Store,
        console: Console,
    ) -> None:
        self.run, self.plan, self.mesh, self.console = run, plan, mesh, console
        self.folder, self.steps = folder, set(steps)
        self.snapshots, self.states = snapshots, states
        self.skips_in_a_row = self.skipped = 0

    def run_from(self, state: TrainState) -> None:
        """Take every remaining step, saving as scheduled; metrics are read one step late."""
        start, total = int(state.step), self.plan.total_steps
        self.skipped = int(state.skipped)
        step_function = compile_step(self.run, self.mesh, total)
        log = MetricsLog(self.folder, start)
        batches = iterate(self.plan, start, jax.process_index(), jax.process_count())
        try:
            with TrainProgress(self.run.name, total, start, self.console) as progress:
                self._save(start, state, log)
                pending: tuple[Batch, Metrics] | None = None
                clock = time.perf_counter()
                for batch in batches:
                    state, metrics = step_function(state, self._to_devices(batch))
                    if pending:
                        clock = self._report(pending, clock, log, progress)
                    pending = (batch, metrics)
                    if self._due(batch.step + 1):
                        clock = self._report(pending, clock, log, progress)
                        pending = None
                        self._save(batch.step + 1, state, log)
                    self.snapshots.check()
                    self.states.check()
        finally:
            log.close()

    def _to_devices(self, batch: Batch) -> DeviceBatch:
        shardings = batch_shardings(self.mesh)
        local = DeviceBatch(
            batch.tokens_MRT,
            batch.targets_MRT,
            batch.positions_MRT,
            batch.segments_MRT,
            batch.weights_MRT,
            np.int32(batch.micro_batches),
        )
        return jax.tree.map(
            lambda array, sharding: jax.make_array_from_process_local_data(sharding, array), local, shardings
        )

    def _due(self, step: int) -> bool:
        return step in self.steps or step == self.plan.total_steps or self._state_due(step)

    def _state_due(self, step: int) -> bool:
        return step > 0 and (step % self.run.snapshots.state_every == 0 or step == self.plan.total_steps)

    def _save(self, step: int, state: TrainState, log: MetricsLog) -> None:
        """Save what is due at `step`; what an interrupted run saved already is left as it is."""
        if step in self.steps and step not in self.snapshots.steps():
            self.snapshots.save(step, to_snapshot(state.params))
        if self._state_due(step) and step not in self.states.steps():
            self.snapshots.wait()
            log.flush()
            self.states.save(step, state)

    def _report(
        self, pending: tuple[Batch, Metrics], clock: float, log: MetricsLog, progress: TrainProgress
    ) -> float:
        """Write the numbers of a finished step (waits for it) and return the time it ended."""
        batch, metrics = pending
        values = {name: value.item() for name, value in jax.device_get(metrics).items()}
        now = time.perf_counter()
        seconds = now - clock
        line: dict[str, Any] = {
            "step": batch.step + 1,
            "loss": values["loss"],
            "learning_rate": values["learning_rate"],
            "gradient_norm": values["gradient_norm"],
            "tokens": batch.tokens,
            "target_tokens": batch.target_tokens,
            "packed_rows": batch.packed_rows,
            "tokens_per_second": round(batch.tokens / seconds, 1),
            "seconds": round(seconds, 4),
            "skipped": int(values["skipped"]),
        }
        log.write(line)
        progress.update(line)
        self._watch_skips(line)
        return now

    def _watch_skips(self, line: dict[str, Any]) -> None:
        if line["skipped"] == self.skipped:
            self.skips_in_a_row = 0
            return
        self.skipped = line["skipped"]
        self.skips_in_a_row += 1
        self.console.print(f"[yellow]{self.run.name}: step {line['step']} skipped: its gradient is not finite")
        if self.skips_in_a_row >= SKIPS_IN_A_ROW:
            raise JaxSftError(
                f"{self.run.name}: {SKIPS_IN_A_ROW} steps in a row had no finite gradient, the last is step "
                f"{line['step']}; lower optimizer.learning_rate or look at the rows of these steps"
            )
