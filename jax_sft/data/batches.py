"""The batches of a run as a pure function of the step, and their loading through Grain.

`Batches` decides everything before training: which rows each step holds, how they are packed, and which of
a few row lengths suits each step and how many micro-batches it takes at most (the shapes of the compiled
programs: one for each row length). Steps are counted from 1, as everywhere: `batch(s)` is what the s-th
update trains on, so the state after s updates goes on with `batch(s + 1)`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import grain
import numpy as np

from jax_sft.config import DataConfig
from jax_sft.data.balance import balance, imbalance
from jax_sft.data.packing import fit_row_lengths, pack, positions
from jax_sft.data.rows import RowSet
from jax_sft.data.weights import row_weights
from jax_sft.errors import UsageError
from jax_sft.packed import Rows, empty_rows

_STEPS_FITTED = 256
_STEPS_MEASURED = 8


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows of one step, packed: M micro-batches of R packed rows of T tokens.

    T is one of the run's row lengths, and M the most micro-batches that a step of that row length takes; only
    the first `micro_batches` of them hold anything. The counts below are of the whole batch, also where a
    process has filled in only its own rows.
    """

    step: int
    """The update that is made of it, from 1."""
    rows: Rows
    """Arrays [M, R, T]."""
    micro_batches: int
    row_count: int
    packed_row_count: int
    token_count: int
    target_count: int
    pairs: float
    """(query, key) pairs of causal attention within examples."""


@dataclass(frozen=True)
class PackingReport:
    """What packing does to a whole run; positions are counted as computed, fill rows included."""

    rows: int
    dropped: int
    truncated: int
    without_target: int
    """Rows with nothing to learn: their response lies wholly beyond the cut."""
    longest_row: int
    mean_row: float
    steps_per_epoch: int
    total_steps: int
    row_lengths: dict[int, int]
    """Steps of each row length that is used."""
    mean_micro_batches: float
    max_micro_batches: int
    efficiency: float
    """Real tokens / positions computed."""
    saved_against_row_length: float
    """Positions if every row were padded to row_length / positions computed."""
    saved_against_longest: float
    """Positions if every row were padded to the longest row / positions computed."""
    imbalance: float
    """Attention work of the costliest packed row of a micro-batch over that of the mean one, less 1."""

    def __str__(self) -> str:
        left_out = ", ".join(
            f"{count} {word}"
            for count, word in (
                (self.dropped, "dropped as too long"),
                (self.truncated, "truncated"),
                (self.without_target, "without a target"),
            )
            if count
        )
        lengths = " or ".join(map(str, self.row_lengths))
        return (
            f"{self.rows} rows{f' ({left_out})' if left_out else ''} of {self.mean_row:.0f} tokens on "
            f"average, at most {self.longest_row}; {self.total_steps} steps, {self.steps_per_epoch} an "
            f"epoch; packed rows of {lengths} tokens {self.efficiency:.1%} full, "
            f"{self.saved_against_row_length:.1f} times fewer positions than padding"
        )


class Batches:
    """Every batch of a run, decided in advance; holds no state that changes.

    Without shuffling every epoch is the source order; with it, a permutation drawn from seed and epoch.
    The incomplete last batch of an epoch is dropped. Raises UsageError when there is no full batch.
    """

    def __init__(self, rows: RowSet, config: DataConfig, seed: int, epochs: float) -> None:
        _check(rows, config, epochs)
        self.rows, self.config, self.seed = rows, config, seed
        self.steps_per_epoch = len(rows) // config.batch_size
        # Rounded first: 0.1 * 30 is a little more than 3.
        self.total_steps = max(1, math.ceil(round(self.steps_per_epoch * epochs, 6)))
        self._lengths_E, self._targets_E = rows.lengths_E, rows.targets_E
        # Unshuffled epochs repeat, so one epoch's steps stand for all; `_distinct` maps a step to them.
        distinct = self.total_steps if config.shuffle else min(self.steps_per_epoch, self.total_steps)
        self._rows_SB = self._draw(distinct)
        lengths_SB = self._lengths_E[self._rows_SB]
        self._row_length_S, self._packed_row_SB = pack(
            lengths_SB, config.row_lengths or (config.row_length,), config.rows_per_micro_batch
        )
        self._micro_batches_S = self._packed_row_SB.max(axis=1) // config.rows_per_micro_batch + 1
        self.max_micro_batches = int(self._micro_batches_S.max())
        self.shapes = {
            int(length): int(self._micro_batches_S[self._row_length_S == length].max())
            for length in np.unique(self._row_length_S)
        }
        """The row lengths in use, each with the most micro-batches a step of it takes."""

    def epoch_order(self, epoch: int) -> np.ndarray:
        """Row numbers in the order of that epoch (from 0), int32 [E], the dropped rest included."""
        if not self.config.shuffle:
            return np.arange(len(self.rows), dtype=np.int32)
        # Raw bits of Philox are the same in every numpy version; `permutation` does not promise that.
        bits = np.random.Philox(key=[self.seed % 2**64, epoch]).random_raw(len(self.rows))
        return np.argsort(bits, kind="stable").astype(np.int32)

    def rows_of_step(self, step: int) -> np.ndarray:
        """Row numbers of one step (from 1), in the order of the epoch, int32 [batch_size]."""
        return self._rows_SB[self._distinct(step)]

    def batch(self, step: int, held: Sequence[int] | None = None) -> Batch:
        """The batch of one step (from 1).

        With `held`, only those packed rows of every micro-batch (below `rows_per_micro_batch`) are read
        and filled in; the others are left as padding.
        """
        index, config = self._distinct(step), self.config
        rows_B = self._rows_SB[index]
        lengths_B, row_length = self._lengths_E[rows_B], int(self._row_length_S[index])
        weights_B = row_weights(config, self._targets_E[rows_B], self.rows.advantage_E[rows_B])
        packed_row_B = self._balanced(index)
        packed_row_count = len(np.unique(packed_row_B))
        if held is not None:
            packed_row_B = np.where(
                np.isin(packed_row_B % config.rows_per_micro_batch, held), packed_row_B, -1
            )
        shape = (self.shapes[row_length], config.rows_per_micro_batch, row_length)
        return Batch(
            step,
            self._lay_out(rows_B, packed_row_B, weights_B, shape),
            micro_batches=int(self._micro_batches_S[index]),
            row_count=len(rows_B),
            packed_row_count=packed_row_count,
            token_count=int(lengths_B.sum()),
            target_count=int(self._targets_E[rows_B].sum()),
            pairs=float((lengths_B * (lengths_B + 1) / 2).sum()),
        )

    @cached_property
    def packing(self) -> PackingReport:
        """How full the packed rows of the whole run are, and what that saves."""
        config = self.config
        index_S = np.arange(self.total_steps) % len(self._rows_SB)
        tokens = int(self._lengths_E[self._rows_SB].sum(axis=1)[index_S].sum())
        micro_batches_S = self._micro_batches_S[index_S]
        row_length_S = self._row_length_S[index_S]
        computed = int((micro_batches_S * row_length_S).sum()) * config.rows_per_micro_batch
        lengths, steps = np.unique(row_length_S, return_counts=True)
        rows_trained, longest = self.total_steps * config.batch_size, int(self._lengths_E.max())
        return PackingReport(
            rows=len(self.rows),
            dropped=self.rows.dropped,
            truncated=self.rows.truncated,
            without_target=int((self._targets_E == 0).sum()),
            longest_row=longest,
            mean_row=float(self._lengths_E.mean()),
            steps_per_epoch=self.steps_per_epoch,
            total_steps=self.total_steps,
            mean_micro_batches=float(micro_batches_S.mean()),
            max_micro_batches=self.max_micro_batches,
            row_lengths=dict(zip(lengths.tolist(), steps.tolist(), strict=True)),
            efficiency=tokens / computed,
            saved_against_row_length=rows_trained * config.row_length / computed,
            saved_against_longest=rows_trained * longest / computed,
            imbalance=self._imbalance(),
        )

    def fitted_row_lengths(self, count: int, candidates: Sequence[int]) -> tuple[tuple[int, ...], float]:
        """Good `data.row_lengths` for this run, at most `count` of the candidates, and how full they are."""
        lengths_SB = self._lengths_E[self._rows_SB[:_STEPS_FITTED]]
        size = self.config.rows_per_micro_batch
        chosen = fit_row_lengths(lengths_SB, size, count, candidates)
        row_length_S, packed_row_SB = pack(lengths_SB, chosen, size)
        computed = positions(packed_row_SB.max(axis=1) + 1, row_length_S, size).sum()
        return chosen, float(lengths_SB.sum() / computed)

    def _balanced(self, index: int) -> np.ndarray:
        """The packed row of each row of one distinct step; found when asked for, as it takes some time."""
        lengths_B, packed_row_B = self._lengths_E[self._rows_SB[index]], self._packed_row_SB[index]
        row_length = int(self._row_length_S[index])
        return balance(lengths_B, packed_row_B, row_length, self.config.rows_per_micro_batch)

    def _imbalance(self) -> float:
        """Imbalance of attention work over some steps spread evenly over the run."""
        steps = np.unique(np.linspace(0, len(self._rows_SB) - 1, _STEPS_MEASURED).astype(int))
        size = self.config.rows_per_micro_batch
        costs = [imbalance(self._lengths_E[self._rows_SB[i]], self._balanced(i), size) for i in steps]
        waited, done = np.sum(costs, axis=0)
        return float(waited / done - 1)

    def _draw(self, steps: int) -> np.ndarray:
        """Row numbers of the first steps, int32 [steps, batch_size]."""
        size, per_epoch = self.config.batch_size, self.steps_per_epoch
        epochs = range(math.ceil(steps / per_epoch))
        orders = [self.epoch_order(epoch)[: per_epoch * size].reshape(per_epoch, size) for epoch in epochs]
        return np.concatenate(orders)[:steps]

    def _distinct(self, step: int) -> int:
        """Which of the distinct batches the step holds."""
        if not 1 <= step <= self.total_steps:
            raise IndexError(f"step {step} is not one of the {self.total_steps} steps of the run")
        return (step - 1) % len(self._rows_SB)

    def _lay_out(
        self, rows_B: np.ndarray, packed_row_B: np.ndarray, weights_B: np.ndarray, shape: tuple[int, int, int]
    ) -> Rows:
        """The rows where packing puts them, arrays [M, R, T]; those with packed row -1 are elsewhere."""
        order_B = np.argsort(packed_row_B, kind="stable")
        order_B = order_B[packed_row_B[order_B] >= 0]
        rows_B, packed_row_B, weights_B = rows_B[order_B], packed_row_B[order_B], weights_B[order_B]
        lengths_B = self._lengths_E[rows_B]
        before_B = np.cumsum(lengths_B) - lengths_B
        # The first of the rows that share a packed row: its place in the order counts as 0.
        first_B = np.searchsorted(packed_row_B, packed_row_B)
        start_B = packed_row_B * shape[2] + before_B - before_B[first_B]
        position_N = np.arange(lengths_B.sum()) - np.repeat(before_B, lengths_B)
        place_N = position_N + np.repeat(start_B, lengths_B)
        has_next_N = position_N + 1 < np.repeat(lengths_B, lengths_B)
        next_N = np.flatnonzero(has_next_N) + 1
        tokens_N, is_target_N = self.rows.take(rows_B)
        rows = empty_rows(shape)
        flat = Rows(*(x_MRT.reshape(-1) for x_MRT in rows))
        flat.tokens[place_N] = tokens_N
        flat.targets[place_N[has_next_N]] = tokens_N[next_N]
        flat.positions[place_N] = position_N
        flat.segments[place_N] = np.repeat(np.arange(len(rows_B)) - first_B + 1, lengths_B)
        flat.weights[place_N[has_next_N]] = np.repeat(weights_B, lengths_B)[has_next_N] * is_target_N[next_N]
        return rows


def iterate(
    batches: Batches, after: int = 0, held: Sequence[int] | None = None, prefetch: int = 2
) -> Iterator[Batch]:
    """The batches of the steps after step `after`, in order, `prefetch` of them made ahead in a thread.

    `held` is as in `Batches.batch`. `prefetch` 0 makes each batch when asked for. The data position to save
    is the step alone.
    """
    if not 0 <= after <= batches.total_steps:
        raise UsageError(f"cannot go on from step {after}: the run has {batches.total_steps} steps")
    steps = grain.MapDataset.range(after + 1, batches.total_steps + 1)
    options = grain.ReadOptions(num_threads=min(prefetch, 1), prefetch_buffer_size=prefetch)
    return iter(steps.map(lambda step: batches.batch(step, held)).to_iter_dataset(options))


def _check(rows: RowSet, config: DataConfig, epochs: float) -> None:
    sizes = ("batch_size", "row_length", "rows_per_micro_batch", "original_ranks", "original_micro_batch")
    for name in sizes:
        if getattr(config, name) < 1:
            raise UsageError(f"data.{name} must be at least 1, found {getattr(config, name)}")
    if not (math.isfinite(epochs) and epochs > 0):
        raise UsageError(f"epochs must be above 0, found {epochs}")
    if len(rows) < config.batch_size:
        raise UsageError(
            f"{len(rows)} rows ({rows.dropped} dropped as too long) do not fill one batch: "
            f"data.batch_size is {config.batch_size}"
        )
    longest = int(rows.lengths_E.max())
    if longest > max(config.row_lengths or (config.row_length,)):
        name = "row_lengths" if config.row_lengths else "row_length"
        raise UsageError(f"a row of {longest} tokens does not fit data.{name} {getattr(config, name)}")
