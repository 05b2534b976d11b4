"""What `jax-sft data` does, a function for each of its words."""

from collections.abc import Sequence

from etils import epath
from rich.console import Console

from jax_sft.config import Run, Study
from jax_sft.data.batches import Batches
from jax_sft.data.prepared import prepared_rows
from jax_sft.data.rows import RowSource
from jax_sft.data.sources import source_files
from jax_sft.files import refuse_overwriting
from jax_sft.sets.describe import SetDescription, describe_set, table
from jax_sft.sets.page import write_page
from jax_sft.study.folder import prepared_folder
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template

_SUGGESTED = 4
_CANDIDATES = 64


def prepare(study: Study, runs: Sequence[Run], console: Console, rebuild: bool = False) -> None:
    """Prepare the rows of each run under <root>/prepared and print how they pack.

    Where another choice of `data.row_lengths` would compute fewer positions, it is named.
    """
    for run in runs:
        tokenizer = load_tokenizer(run.tokens)
        template = load_template(run.tokens, tokenizer)
        source = RowSource.of(study, run)
        rows = prepared_rows(source, tokenizer, template, prepared_folder(study), rebuild)
        batches = Batches(rows, run.data, run.seed, run.epochs)
        report = batches.packing
        console.print(f"{run.name}: {report}")
        lengths, efficiency = suggestion(batches)
        if efficiency > report.efficiency + 0.01:
            shown = " ".join(str(length) for length in lengths)
            console.print(f"{run.name}: --data.row-lengths {shown} would be {efficiency:.1%} full")


def suggestion(batches: Batches) -> tuple[tuple[int, ...], float]:
    """Up to four row lengths, from the longest row to twice the run's, and how full they would be."""
    config = batches.config
    # A multiple of 128 keeps tiles of the accelerator whole; short rows do with less.
    unit = max(1, min(128, config.row_length // _CANDIDATES))
    shortest = -(-int(batches.rows.lengths_E.max()) // unit) * unit
    candidates = range(shortest, max(2 * config.row_length, shortest) + 1, unit)
    step = max(1, len(candidates) // _CANDIDATES)
    return batches.fitted_row_lengths(_SUGGESTED, candidates[::step])


def describe(
    study: Study,
    runs: Sequence[Run],
    page: epath.PathLike,
    console: Console,
) -> list[SetDescription]:
    """Print a table of the sets of these runs (knobs applied, one column for each set) and write the page."""
    sources = [path for run in runs for path in source_files(run.data, study.data_root)]
    refuse_overwriting([page], sources)
    described: dict[str, SetDescription] = {}
    for run in runs:
        key = repr((run.data.source, run.data.options, run.data.knobs, run.data.rows, run.seed, run.tokens))
        if key in described:
            continue
        tokenizer = load_tokenizer(run.tokens)
        template = load_template(run.tokens, tokenizer)
        rows = RowSource.of(study, run).rows()
        described[key] = describe_set(run.name, rows, tokenizer, template, run.tokens.end)
    console.print(table(list(described.values())))
    write_page(list(described.values()), page)
    return list(described.values())
