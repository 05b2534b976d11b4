"""What a run's training has to compute: its batches as they will be packed, and its snapshots."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jax_sft.config import DataConfig, Run, Study
from jax_sft.data.batches import Batches
from jax_sft.data.prepared import run_rows
from jax_sft.data.rows import RowSet
from jax_sft.errors import JaxSftError, UsageError
from jax_sft.study.schedule import snapshot_steps
from jax_sft.tokens.loading import load_tokenizer
from jax_sft.tokens.templates import load_template


@dataclass(frozen=True)
class Workload:
    """A run's training, in numbers of a mean step; `tokens` and `pairs` are of examples, without padding."""

    total_steps: int
    snapshots: int
    micro_batches: Mapping[int, tuple[float, int]]
    """By row length: (mean, most) micro-batches of a step."""
    steps: Mapping[int, float]
    """By row length: share of the steps."""
    tokens: float
    targets: float
    """Tokens that carry loss."""
    pairs: float
    """(query, key) pairs of causal attention within examples."""
    longest_targets: float = 0.0
    """Targets of the fullest packed row."""
    assumed: bool = False
    """Whether the data set was not at hand."""
    efficiency: float = 1.0
    """Tokens / positions computed."""


def load_rows(study: Study, run: Run) -> RowSet | None:
    """The run's rows, tokenised; None when data or tokenizer are not at hand."""
    try:
        tokenizer = load_tokenizer(run.tokens)
        template = load_template(run.tokens, tokenizer)
        return run_rows(study, run, tokenizer, template)
    except (JaxSftError, OSError):
        return None


def workload(
    run: Run, rows: RowSet | None, count: int = 0, row_tokens: int = 0, target_share: float = 1.0
) -> Workload:
    """The work of a run's training, from its rows; without them from how many there may be, and how long.

    `row_tokens` 0 stands for rows as long as a packed row. UsageError when neither is known, or the rows do
    not make a batch.
    """
    if rows is None:
        return _assumed(run, run.data.rows or count, row_tokens, target_share)
    batches = Batches(rows, run.data, run.seed, run.epochs)
    report = batches.packing
    tokens, targets, pairs, longest = [], [], [], 0.0
    for step in range(1, min(batches.total_steps, batches.steps_per_epoch) + 1):
        lengths_B = rows.lengths_E[batches.rows_of_step(step)].astype(np.float64)
        targets_B = rows.targets_E[batches.rows_of_step(step)]
        tokens.append(lengths_B.sum())
        targets.append(targets_B.sum())
        pairs.append((lengths_B * (lengths_B + 1) / 2).sum())
        longest = max(longest, float(targets_B.max()))
    share = float(np.sum(targets) / max(np.sum(tokens), 1))
    steps = {length: count / batches.total_steps for length, count in report.row_lengths.items()}
    # Of several row lengths only the mean count over all steps is known; it stands for each.
    mean = {length: (min(report.mean_micro_batches, most), most) for length, most in batches.shapes.items()}
    return Workload(
        total_steps=batches.total_steps,
        snapshots=len(snapshot_steps(run.snapshots.schedule, batches.total_steps, batches.steps_per_epoch)),
        micro_batches=mean,
        steps=steps,
        tokens=float(np.mean(tokens)),
        targets=float(np.mean(targets)),
        pairs=float(np.mean(pairs)),
        longest_targets=max(longest, share * max(batches.shapes)),
        efficiency=report.efficiency,
    )


def _assumed(run: Run, count: int, row_tokens: int, target_share: float) -> Workload:
    """Rows of one length, packed as many to a packed row as fit whole."""
    data: DataConfig = run.data
    if not count:
        raise UsageError(
            f"run {run.name}: its data ({data.source}) or tokenizer is not at hand; name its folder with "
            "--data-root, or say what to assume with --rows and --row-tokens"
        )
    length = max(data.row_lengths or (data.row_length,))
    tokens = min(row_tokens or length, length)
    steps_per_epoch = count // data.batch_size
    if not steps_per_epoch:
        raise UsageError(f"run {run.name}: {count} rows do not fill one batch of {data.batch_size}")
    total = max(1, math.ceil(round(steps_per_epoch * run.epochs, 6)))
    packed = math.ceil(data.batch_size / (length // tokens))
    micro_batches = math.ceil(packed / data.rows_per_micro_batch)
    positions = micro_batches * data.rows_per_micro_batch * length
    return Workload(
        total_steps=total,
        snapshots=len(snapshot_steps(run.snapshots.schedule, total, steps_per_epoch)),
        micro_batches={length: (float(micro_batches), micro_batches)},
        steps={length: 1.0},
        tokens=float(tokens * data.batch_size),
        targets=tokens * data.batch_size * target_share,
        pairs=tokens * (tokens + 1) / 2 * data.batch_size,
        longest_targets=(length // tokens) * tokens * target_share,
        assumed=True,
        efficiency=tokens * data.batch_size / positions,
    )
