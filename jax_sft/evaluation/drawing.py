"""Drawing what a run's units miss: snapshot after snapshot, all its benchmarks in one stream."""

from collections.abc import Callable, Sequence

import jax
from rich.console import Console

from jax_sft.config import Study, replace
from jax_sft.evaluation.comparing import Compared
from jax_sft.evaluation.likelihood import score_missing
from jax_sft.evaluation.outputs import Clock
from jax_sft.evaluation.snapshots import Snapshots
from jax_sft.evaluation.units import UnitToDraw, Work
from jax_sft.generation.backend import Completion
from jax_sft.models import Params
from jax_sft.sharding import shardings_of
from jax_sft.study.records import CompletionLine
from jax_sft.terminal import progress_of_completions
from jax_sft.tokens.tokenizer import Tokenizer


def draw_run(study: Study, work: Work, console: Console, give_up: Callable[[str], None]) -> None:
    """Draw every missing completion of a run that can be had; `give_up` is told of the others."""
    wanted = work.engine.abstract_params()
    if not wanted:  # a server that has its weights
        for step, units in work.todo.items():
            _draw_units(work, step, units, study.evaluation.seed, console)
        return
    snapshots = Snapshots(study, work.run.name, wanted, give_up)
    compared = Compared(work.comparer, [unit for units in work.todo.values() for unit in units])
    steps = [*compared.bases, *(step for step in work.todo if step not in compared.bases)]
    try:
        for step, params in snapshots.read(steps):
            units = work.todo.get(step, [])
            drawn = [unit for unit in units if not unit.questions]
            read = [unit for unit in units if unit.questions]
            kept = params if read or step in compared.bases else None
            if drawn:
                work.engine.load(params)
            del params  # while completions are drawn, the host holds the next snapshot alone
            _draw_units(work, step, drawn, study.evaluation.seed, console)
            if kept is not None:
                work.engine.unload()
                _read_units(work, step, read, kept, compared, console, give_up)
    finally:
        work.engine.unload()
    snapshots.examine(work.complete)


def _read_units(
    work: Work,
    step: int,
    units: Sequence[UnitToDraw],
    params: Params,
    compared: Compared,
    console: Console,
    give_up: Callable[[str], None],
) -> None:
    """What is read and not drawn, the snapshot on the devices: likelihoods, and how far it is from a base."""
    placed = jax.device_put(params, shardings_of(work.scorer.abstract_params()))
    compared.remember(step, placed)
    scored = [unit for unit in units if unit.base is None]
    if scored:
        work.scorer.load(placed)
        _score_units(work, step, scored, console)
        work.scorer.unload()
    compared.compare(placed, [unit for unit in units if unit.base is not None], give_up)


def _draw_units(work: Work, step: int, units: Sequence[UnitToDraw], seed: int, console: Console) -> None:
    """Draw with the weights that are loaded; however it ends, what was drawn is on disk."""
    if not units:
        return
    asked = [
        (unit, request, item) for unit in units for request, item in unit.requests(work.tokenizer.decode)
    ]
    owners = {(request.id, request.sample): (unit.file, item) for unit, request, item in asked}
    # Who took long at the snapshot before is likely to take long again.
    before = dict(work.lengths)
    answers = work.engine.generate(
        (replace(r, expected_tokens=before.get((r.id, r.sample), 0)) for _, r, _ in asked), seed
    )
    clock = Clock()
    try:
        with (
            progress_of_completions(console, f"{work.run.name} @ {step}", len(asked)) as advance,
            jax.transfer_guard("disallow"),
        ):
            for request, completion in answers:
                file, item = owners[request.id, request.sample]
                work.lengths[request.id, request.sample] = completion.token_count
                file.add(_line(item, request.sample, completion, work.tokenizer))
                clock.count(file.path.parent, completion.token_count)
                advance(completion.token_count)
    finally:
        for unit in units:
            unit.file.flush()
        clock.write()


def _score_units(work: Work, step: int, units: Sequence[UnitToDraw], console: Console) -> None:
    """Ask for the likelihoods that units miss, with the weights that are loaded."""
    missing = sum(len(unit.file.missing()) for unit in units)
    title = f"{work.run.name} @ {step}, likelihoods"
    with (
        progress_of_completions(console, title, missing) as advance,
        jax.transfer_guard("disallow"),
    ):
        asked = [(unit.benchmark.name, unit.file, unit.questions) for unit in units]
        score_missing(work.scorer, asked, advance)


def _line(item: str, sample: int, completion: Completion, tokenizer: Tokenizer) -> CompletionLine:
    text = tokenizer.decode(list(completion.tokens)) if completion.text is None else completion.text
    logprobs = tuple(round(logprob, 5) for logprob in completion.logprobs)
    return CompletionLine(item, sample, text, completion.token_count, completion.finish, logprobs=logprobs)
