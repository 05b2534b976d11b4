"""Training one run from start (or where it stopped) to its last step."""

import jax
from jax.sharding import Mesh
from rich.console import Console

from jax_sft.checkpoints.export import Exports
from jax_sft.checkpoints.store import snapshot_store, state_store
from jax_sft.config import Run, Study
from jax_sft.data.batches import Batches, iterate
from jax_sft.data.prepared import run_rows
from jax_sft.errors import UsageError
from jax_sft.sharding import make_mesh
from jax_sft.study.schedule import snapshot_steps
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import ChatTemplate, load_template
from jax_sft.training.metrics import GradientsNotFinite, Reporter
from jax_sft.training.placement import check_batch, held_rows, place_batch
from jax_sft.training.preemption import Preemption
from jax_sft.training.saves import Saves, last_sound_state
from jax_sft.training.sizes import check_room
from jax_sft.training.start import start_state, write_record
from jax_sft.training.step import (
    TrainState,
    abstract_state,
    compile_plain,
    compile_step,
)
from jax_sft.training.trace import Trace, check_trace


def train(study: Study, run: Run) -> None:
    """Train `run` to its end, going on from its last state; everything is written under its folder.

    UsageError when the configuration does not fit the data, the devices or what the folder holds already;
    JaxSftError when saving fails or gradients stay infinite. Both leave earlier saves as they are. On SIGTERM
    the state is saved and the process exits with 0.
    """
    quiet = jax.process_index() > 0
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False, quiet=quiet)
    template, batches = prepare(study, run)
    mesh = make_mesh(run.parallelism)
    check_batch(run.data, mesh)
    steps = snapshot_steps(run.snapshots.schedule, batches.total_steps, batches.steps_per_epoch)
    exported = export_steps(run, batches, steps)
    check_trace(run)
    check_room(study, run, steps, exported)
    folder = write_record(study, run, batches, template, steps)
    console.print(f"{run.name}: {batches.packing}")
    with (
        Preemption() as preemption,
        snapshot_store(folder) as snapshots,
        state_store(folder) as states,
        Exports(folder, exported, console) as exports,
        Trace(run.trace, folder) as trace,
        jax.set_mesh(mesh),
    ):
        saves = Saves(snapshots, states, steps, run.snapshots, batches.total_steps, compile_plain(run, mesh))
        state = begin(study, run, mesh, saves, console)
        start, skipped = int(state.step), int(state.skipped)
        with Reporter(run, folder, start, batches.total_steps, skipped, console) as reporter:
            stopped = take_steps(run, batches, mesh, state, saves, reporter, exports, preemption, trace)
        if stopped is None:
            snapshots.wait()
            exports.finish(batches.total_steps)
    if stopped is not None:
        console.print(
            f"{run.name}: told to end; state saved at step {stopped}, the same command goes on from it"
        )
        raise SystemExit(0)
    if preemption.noticed:
        console.print(f"{run.name}: told to end; the run is done, nothing more is started")
        raise SystemExit(0)


def prepare(study: Study, run: Run) -> tuple[ChatTemplate, Batches]:
    """The chat template, and the run's rows tokenised and laid out into the batches of every step."""
    tokenizer = load_tokenizer(run.tokens)
    template = load_template(run.tokens, tokenizer)
    if tokenizer.vocab_size > run.model.vocab_size:
        raise UsageError(
            f"run {run.name}: model.vocab_size {run.model.vocab_size} is too small for the "
            f"{tokenizer.vocab_size} tokens of tokenizer {tokenizer.name}"
        )
    rows = run_rows(study, run, tokenizer, template)
    return template, Batches(rows, run.data, run.seed, run.epochs)


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


def begin(study: Study, run: Run, mesh: Mesh, saves: Saves, console: Console) -> TrainState:
    """The last sound state of an interrupted run, or the state before the first update."""
    step = last_sound_state(saves.states, console)
    if step is None:
        return start_state(study, run, mesh)
    console.print(f"{run.name}: going on from step {step}")
    if missed := saves.missed(step):
        told = f"{run.name}: training is past the snapshots at {missed}; they are not made"
        console.print(told, style="yellow")
    return saves.states.load(step, abstract_state(run, mesh), checked=True)


def take_steps(
    run: Run,
    batches: Batches,
    mesh: Mesh,
    state: TrainState,
    saves: Saves,
    reporter: Reporter,
    exports: Exports,
    preemption: Preemption,
    trace: Trace,
) -> int | None:
    """Take every step after `state.step`, saving as due; the step at which it was told to end, if any."""
    start = int(state.step)
    step_function = compile_step(run, mesh, batches.total_steps)
    saves.begin(start)
    saves.save(start, state)
    for batch in iterate(batches, start, held_rows(run.data.rows_per_micro_batch, mesh)):
        trace.before(batch.step)
        state, metrics = step_function(state, place_batch(batch, mesh))
        trace.after(batch.step, metrics)
        done = batch.step
        due = saves.due(done)
        try:
            reporter.started(batch, metrics)
            if due:
                reporter.flush()
        except GradientsNotFinite:
            reporter.flush()
            saves.save_state(done, state)
            raise
        if due:
            saves.save(done, state)
            exports.start(before=done)
        saves.check()
        if preemption.stop_now():
            try:
                reporter.flush()
            finally:
                saves.save_state(done, state)
            return done
    return None
