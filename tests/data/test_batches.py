"""Batches: every example whole and where it belongs, a pure function of the step, resumable anywhere."""

import dataclasses
import os
from typing import Any

import numpy as np
import pytest

from jax_sft.config import DataConfig, replace
from jax_sft.data.batches import Batch, Batches, iterate
from jax_sft.data.rows import TokenisedRows
from jax_sft.errors import UsageError
from jax_sft.packed import Rows

CONFIG = DataConfig(batch_size=8, row_length=64, rows_per_micro_batch=4)


def make_rows(count: int = 83, longest: int = 64, seed: int = 0) -> TokenisedRows:
    """Rows whose tokens are all different from each other, so that each can be found again."""
    rng = np.random.default_rng(seed)
    lengths_E = np.minimum(rng.lognormal(2.7, 0.8, count).astype(int) + 2, longest)
    is_target = [np.arange(length) >= rng.integers(1, length) for length in lengths_E]
    return TokenisedRows(
        tokens_N=np.arange(1, lengths_E.sum() + 1, dtype=np.int32),
        is_target_N=np.concatenate(is_target),
        offsets=np.concatenate([[0], np.cumsum(lengths_E)]),
        advantage_E=rng.normal(size=count).astype(np.float32),
    )


def examples(batch: Batch) -> list[Rows]:
    """The examples of a batch, read back one by one from its packed rows."""
    found = []
    for m, r in np.ndindex(batch.rows.tokens.shape[:2]):
        for segment in range(1, batch.rows.segments[m, r].max() + 1):
            where = batch.rows.segments[m, r] == segment
            assert np.diff(np.flatnonzero(where)).tolist() == [1] * (where.sum() - 1), "an example was split"
            found.append(Rows(*(x_MRT[m, r][where] for x_MRT in batch.rows)))
    return found


def assert_same(one: Batch, other: Batch) -> None:
    for name in Rows._fields:
        assert np.array_equal(getattr(one.rows, name), getattr(other.rows, name)), name
    counts = [field.name for field in dataclasses.fields(Batch) if field.name != "rows"]
    assert [getattr(one, name) for name in counts] == [getattr(other, name) for name in counts]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighting", ["token_mean", "sequence_mean", "original"])
def test_examples_survive_packing(seed: int, weighting: str) -> None:
    rows = make_rows(seed=seed)
    config = replace(CONFIG, weighting=weighting, batch_size=16, rows_per_micro_batch=seed + 1)
    batches = Batches(rows, config, seed=0, epochs=1)
    for step in range(1, batches.total_steps + 1):
        batch = batches.batch(step)
        by_first_token = {int(example.tokens[0]): example for example in examples(batch)}
        assert len(by_first_token) == 16
        for row in batches.rows_of_step(step):
            start, stop = rows.offsets[row], rows.offsets[row + 1]
            tokens, mask = rows.tokens_N[start:stop], rows.is_target_N[start:stop]
            example = by_first_token[int(tokens[0])]
            assert np.array_equal(example.tokens, tokens)
            assert np.array_equal(example.positions, np.arange(len(tokens)))
            assert np.array_equal(example.targets, [*tokens[1:], 0])
            weights = example.weights
            assert np.array_equal(weights != 0, [*mask[1:], False])
            assert len(set(weights[weights != 0].tolist())) <= 1
        padding = batch.rows.segments == 0
        assert not any(x_MRT[padding].any() for x_MRT in batch.rows)
        assert not batch.rows.segments[batch.micro_batches :].any()
        assert batch.rows.segments[: batch.micro_batches].any(axis=(1, 2)).all()
        assert batch.token_count == (~padding).sum()
        assert batch.target_count == (batch.rows.weights != 0).sum()
        assert batch.packed_row_count == batch.rows.segments.any(axis=2).sum()


def test_weights_of_a_batch_sum_to_one() -> None:
    rows = replace(make_rows(), advantage_E=np.ones(83, np.float32))
    for weighting in ("token_mean", "sequence_mean"):
        batches = Batches(rows, replace(CONFIG, weighting=weighting), seed=0, epochs=1)
        for step in range(1, batches.total_steps + 1):
            assert batches.batch(step).rows.weights.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shuffle", [False, True])
def test_every_epoch_holds_every_row_once(shuffle: bool) -> None:
    batches = Batches(make_rows(80), replace(CONFIG, shuffle=shuffle), seed=3, epochs=3)
    assert batches.total_steps == 30
    orders = []
    for epoch in range(3):
        steps = range(epoch * 10 + 1, epoch * 10 + 11)
        orders.append(np.concatenate([batches.rows_of_step(step) for step in steps]))
        assert np.array_equal(orders[-1], batches.epoch_order(epoch))
        assert sorted(orders[-1]) == list(range(80))
        if not shuffle:
            assert np.array_equal(orders[-1], np.arange(80))
    assert np.array_equal(orders[0], orders[1]) is not shuffle
    other_seed = Batches(make_rows(80), batches.config, seed=4, epochs=1)
    assert np.array_equal(orders[0], other_seed.epoch_order(0)) is not shuffle


def test_the_incomplete_last_batch_is_dropped() -> None:
    batches = Batches(make_rows(83), CONFIG, seed=0, epochs=2)
    assert batches.steps_per_epoch == 10
    assert batches.rows_of_step(11).tolist() == list(range(8))


@pytest.mark.parametrize(("epochs", "steps"), [(1, 10), (0.5, 5), (0.51, 6), (0.01, 1), (2.05, 21)])
def test_fractional_epochs_round_up(epochs: float, steps: int) -> None:
    assert Batches(make_rows(83), CONFIG, seed=0, epochs=epochs).total_steps == steps


def test_a_batch_is_a_pure_function_of_the_step() -> None:
    config = replace(CONFIG, shuffle=True)
    one, other = (Batches(make_rows(), config, seed=1, epochs=2) for _ in range(2))
    for step in (14, 3, 14, 20, 1):
        assert_same(one.batch(step), other.batch(step))
    for step in (0, 21):
        with pytest.raises(IndexError, match=f"step {step} is not one of the 20 steps"):
            one.batch(step)


@pytest.mark.parametrize("row_lengths", [(), (64, 80, 100)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_resume_at_every_step_gives_the_same_rest(shuffle: bool, row_lengths: tuple[int, ...]) -> None:
    config = replace(CONFIG, shuffle=shuffle, row_lengths=row_lengths)
    batches = Batches(make_rows(30), config, seed=0, epochs=3)
    whole = list(iterate(batches))
    assert [batch.step for batch in whole] == list(range(1, 10))
    for start in range(10):
        rest = list(iterate(batches, start, prefetch=start % 3))
        assert len(rest) == 9 - start
        for one, other in zip(rest, whole[start:], strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("row_lengths", [(), (64, 80, 100)])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_together_feed_the_whole_batch(processes: int, row_lengths: tuple[int, ...]) -> None:
    batches = Batches(make_rows(), replace(CONFIG, row_lengths=row_lengths), seed=0, epochs=1)
    size = CONFIG.rows_per_micro_batch
    pieces = [list(iterate(batches, 0, range(index, size, processes))) for index in range(processes)]
    for whole, *parts in zip(iterate(batches), *pieces, strict=True):
        for name in Rows._fields:
            filled = [getattr(part.rows, name) for part in parts]
            assert all(
                not x_MRT[:, other::processes].any()
                for i, x_MRT in enumerate(filled)
                for other in range(processes)
                if other != i
            )
            assert np.array_equal(sum(filled), getattr(whole.rows, name)), name
        assert {(part.micro_batches, part.token_count, part.packed_row_count) for part in parts} == {
            (whole.micro_batches, whole.token_count, whole.packed_row_count)
        }


def test_one_shape_for_the_whole_run() -> None:
    batches = Batches(make_rows(), replace(CONFIG, rows_per_micro_batch=2), seed=0, epochs=1)
    every = list(iterate(batches))
    assert {batch.rows.tokens.shape for batch in every} == {(batches.max_micro_batches, 2, 64)}
    assert max(batch.micro_batches for batch in every) == batches.max_micro_batches
    assert min(batch.micro_batches for batch in every) < batches.max_micro_batches


def test_a_few_shapes_with_row_lengths() -> None:
    config = replace(CONFIG, row_lengths=(64, 80, 100), rows_per_micro_batch=2, shuffle=True)
    batches = Batches(make_rows(), config, seed=0, epochs=3)
    every = list(iterate(batches))
    assert {batch.rows.tokens.shape for batch in every} == {(m, 2, t) for t, m in batches.shapes.items()}
    assert 1 < len(batches.shapes) <= 3
    report = batches.packing
    assert report.row_lengths == {
        t: sum(batch.rows.tokens.shape[2] == t for batch in every) for t in sorted(batches.shapes)
    }
    positions = sum(batch.micro_batches * 2 * batch.rows.tokens.shape[2] for batch in every)
    assert report.efficiency == pytest.approx(sum(batch.token_count for batch in every) / positions)
    one = Batches(make_rows(), replace(config, row_lengths=()), seed=0, epochs=3)
    assert report.efficiency > one.packing.efficiency
    for step, batch in enumerate(every, start=1):
        firsts = sorted(int(example.tokens[0]) for example in examples(batch))
        assert firsts == sorted(int(example.tokens[0]) for example in examples(one.batch(step)))


def test_report_counts_what_batches_hold() -> None:
    rows = replace(make_rows(), dropped=3)
    batches = Batches(rows, replace(CONFIG, shuffle=True), seed=0, epochs=1.5)
    every, report = list(iterate(batches)), batches.packing
    positions = sum(batch.micro_batches for batch in every) * 4 * 64
    assert report.efficiency == pytest.approx(sum(batch.token_count for batch in every) / positions)
    assert report.mean_micro_batches == pytest.approx(np.mean([batch.micro_batches for batch in every]))
    assert report.saved_against_row_length == pytest.approx(15 * 8 * 64 / positions)
    assert report.saved_against_longest == pytest.approx(15 * 8 * rows.lengths_E.max() / positions)
    assert (report.rows, report.dropped, report.total_steps) == (83, 3, 15)
    assert "83 rows (3 dropped as too long)" in str(report)


@pytest.mark.parametrize(
    ("change", "epochs", "message"),
    [
        ({"batch_size": 84}, 1, "83 rows .* do not fill one batch: data.batch_size is 84"),
        ({"batch_size": 0}, 1, "data.batch_size must be at least 1, found 0"),
        ({"row_length": 40}, 1, "a row of 64 tokens does not fit data.row_length 40"),
        ({"row_lengths": (32, 48)}, 1, r"a row of 64 tokens does not fit data.row_lengths \(32, 48\)"),
        ({}, 0, "epochs must be above 0"),
        ({}, float("nan"), "epochs must be above 0"),
    ],
)
def test_bad_settings(change: dict[str, Any], epochs: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Batches(make_rows(), replace(CONFIG, **change), seed=0, epochs=epochs)


def test_bad_starts() -> None:
    batches = Batches(make_rows(), CONFIG, seed=0, epochs=1)
    with pytest.raises(UsageError, match="cannot go on from step 11: the run has 10 steps"):
        iterate(batches, 11)


def test_memory_does_not_grow() -> None:
    batches = Batches(make_rows(), CONFIG, seed=0, epochs=200)

    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    sizes = [resident() for batch in iterate(batches) if batch.step % 500 == 0]
    assert len(sizes) == 4
    assert sizes[-1] - sizes[0] < 20e6
