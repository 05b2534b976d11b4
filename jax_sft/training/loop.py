"""Training one run from start (or where it stopped) to its last step."""

from collections.abc import Iterator
from typing import NoReturn

import jax
from rich.console import Console

from jax_sft.checkpoints.export import Exports
from jax_sft.checkpoints.store import snapshot_store, state_store
from jax_sft.config import Run, Study
from jax_sft.data.batches import Batch, Batches, iterate
from jax_sft.data.prepared import run_rows
from jax_sft.data.preview import LEARNT, cautions, first_row
from jax_sft.errors import UsageError
from jax_sft.sharding import make_mesh
from jax_sft.study.schedule import snapshot_steps
from jax_sft.terminal import messages
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template
from jax_sft.training.metrics import GradientsNotFinite, Reporter
from jax_sft.training.optimizer import idle_steps
from jax_sft.training.placement import check_batch, held_rows, place_batch
from jax_sft.training.preemption import Preemption
from jax_sft.training.saves import Saves, load_last_state
from jax_sft.training.sizes import check_room
from jax_sft.training.start import RunData, start_state, write_record
from jax_sft.training.step import TrainState, abstract_state, compile_plain, compile_step, mesh_of
from jax_sft.training.trace import Step, Trace, check_trace


def train(study: Study, run: Run) -> None:
    """Train `run` to its end, going on from its last state; everything is written under its folder.

    UsageError when the configuration does not fit the data, the devices or what the folder holds already;
    JaxSftError when saving fails or gradients stay infinite. Both leave earlier saves as they are. On SIGTERM
    the state is saved and the process exits with 0.
    """
    console = messages(quiet=jax.process_index() > 0)
    data = prepare(study, run)
    batches = data.batches
    mesh = make_mesh(run.parallelism)
    check_batch(run.data, mesh)
    wanted = abstract_state(run, mesh)
    steps = snapshot_steps(run.snapshots.schedule, batches.total_steps, batches.steps_per_epoch)
    exported = export_steps(run, batches, steps)
    check_trace(run)
    check_room(study, run, steps, exported)
    folder = write_record(study, run, data, steps)
    introduce(run, data, console)
    with (
        Preemption() as preemption,
        snapshot_store(folder) as snapshots,
        state_store(folder) as states,
        Exports(folder, exported, console) as exports,
        Trace(run.trace, folder) as trace,
        jax.set_mesh(mesh),
    ):
        plain = compile_plain(run, wanted)
        saves = Saves(snapshots, states, steps, run.snapshots, batches.total_steps, plain)
        state = resume_or_start(study, run, wanted, saves, console)
        start, skipped = (int(count) for count in jax.device_get((state.step, state.skipped)))
        loaded = iterate(batches, start, held_rows(run.data.rows_per_micro_batch, mesh))
        step = trace.around(make_step(run, wanted, batches.total_steps))
        with Reporter(run, folder, start, batches.total_steps, skipped, console) as reporter:
            take_steps(state, step, preemption.until_told(loaded), saves, exports, reporter)
        if preemption.stopped_at is None:
            snapshots.wait()
            exports.finish(batches.total_steps)
    if preemption.stopped_at is not None or preemption.noticed:
        _end_early(run, preemption.stopped_at, console)


def _end_early(run: Run, step: int | None, console: Console) -> NoReturn:
    """End the process, which was told to, with the state saved at `step`; None when the run was done."""
    state = "the run is done, nothing more is started"
    if step is not None:
        state = f"state saved at step {step}, the same command goes on from it"
    console.print(f"{run.name}: told to end; {state}")
    raise SystemExit(0)


def introduce(run: Run, data: RunData, console: Console) -> None:
    """Say how the rows pack, what is probably not meant, and what the model sees first."""
    console.print(f"{run.name}: {data.batches.packing}")
    found = cautions(run, data.batches, data.tokenizer, data.template)
    idle, steps = idle_steps(run.optimizer, data.batches.total_steps), data.batches.total_steps
    if idle > steps / 10:
        found = [*found, f"at {idle} of {steps} steps the learning rate is 0: they change nothing"]
    for caution in found:
        console.print(f"{run.name}: {caution}", style="yellow")
    if run.show_first_row:
        console.print(f"{run.name}: the first row, its learnt part between {' and '.join(LEARNT)}:")
        console.print(first_row(data.batches, data.tokenizer))


def prepare(study: Study, run: Run) -> RunData:
    """The run's rows tokenised and laid out into the batches of every step."""
    tokenizer = load_tokenizer(run.tokens)
    template = load_template(run.tokens, tokenizer)
    tokenizer.check_fits(run.model.vocab_size, f"run {run.name}")
    rows = run_rows(study, run, tokenizer, template)
    return RunData(tokenizer, template, Batches(rows, run.data, run.seed, run.epochs))


def export_steps(run: Run, batches: Batches, snapshots: list[int]) -> list[int]:
    """Steps to export; UsageError when one of them has no snapshot."""
    if not run.snapshots.export.strip():
        return []
    steps = snapshot_steps(run.snapshots.export, batches.total_steps, batches.steps_per_epoch, "export")
    if missing := sorted(set(steps) - set(snapshots)):
        raise UsageError(
            f"run {run.name}: snapshots.export names {missing}, which snapshots.schedule does not; it has "
            f"{snapshots}"
        )
    return steps


def resume_or_start(study: Study, run: Run, wanted: TrainState, saves: Saves, console: Console) -> TrainState:
    """The last sound state of an interrupted run, or the state before the first update; as `wanted` says."""
    state = load_last_state(saves.states, wanted, console)
    if state is None:
        return start_state(study, run, wanted)
    step = int(jax.device_get(state.step))
    console.print(f"{run.name}: going on from step {step}")
    if missed := saves.missed(step):
        console.print(
            f"{run.name}: training is past the snapshots at {missed}; they are not made", style="yellow"
        )
    return state


def make_step(run: Run, wanted: TrainState, total_steps: int) -> Step:
    """The compiled update, given batches as the loader makes them."""
    compiled, mesh = compile_step(run, wanted, total_steps), mesh_of(wanted)
    return lambda state, batch: compiled(state, place_batch(batch, mesh))


def take_steps(
    state: TrainState,
    step: Step,
    batches: Iterator[Batch],
    saves: Saves,
    exports: Exports,
    reporter: Reporter,
) -> None:
    """Take a step with each of the batches, saving as due, and at last save the state.

    Nothing moves between host and devices but what is moved on purpose. GradientsNotFinite when too many
    steps in a row were skipped; the state is saved before.
    """
    done = int(jax.device_get(state.step))
    saves.resume_at(done)
    saves.save(done, state)
    try:
        for batch in batches:
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, batch)
                done = batch.step
                reporter.started(batch, metrics)  # reports the step before, while the devices do this one
            if saves.due(done):
                reporter.flush()
                saves.save(done, state)
                exports.next(before=done)
            saves.check()
        reporter.flush()
    except GradientsNotFinite:
        reporter.flush()
        saves.save_state(done, state)
        raise
    saves.save_state(done, state)
