"""Rooflines, model FLOPs, storage and prices, by numbers worked out by hand."""

from pathlib import Path

import pytest

from jax_sft.chips import CHIPS
from jax_sft.config import DataConfig, ModelConfig, Run, SnapshotConfig
from jax_sft.errors import UsageError
from jax_sft.models.families import PRESETS
from jax_sft.models.size import model_flops, model_size
from jax_sft.planning.costing import load_prices
from jax_sft.planning.hlo import Cost, Traffic
from jax_sft.planning.roofline import (
    attention_flops,
    received_bytes,
    roofline,
)
from jax_sft.planning.topologies import parse_topology
from jax_sft.planning.workload import Workload, workload

V5P = parse_topology("v5p:64")


def test_each_part_of_the_machine_is_timed_alone() -> None:
    cost = Cost(
        flops=459e12,
        hbm_bytes=2 * 2765e9,
        collectives={
            Traffic("all-gather", 64, False): (3.0, 64 * 600e9 / 63),
            Traffic("all-reduce", 2, True): (1.0, 6.25e9),
        },
        kernels={"splash_mha_fwd_segmented": 10.0, "splash_mha_dq_no_residuals": 1.0, "other": 5.0},
    )
    made = roofline(cost, V5P, {"dq": 45.9e12, "fwd": 4.59e12})
    assert made.kernel_flops == pytest.approx(91.8e12)
    assert made.compute_seconds == pytest.approx(1.2)
    assert made.hbm_seconds == pytest.approx(2.0)
    assert made.ici_seconds == pytest.approx(1.0)
    assert made.dcn_seconds == pytest.approx(1.0)
    assert (made.bound, made.limit) == (pytest.approx(2.0), "HBM")
    assert made.serial == pytest.approx(5.2)


def test_a_chip_of_two_devices_gives_each_half() -> None:
    made = roofline(Cost(flops=2307e12, hbm_bytes=7380e9), parse_topology("tpu7x:4"), {})
    assert (made.compute_seconds, made.hbm_seconds) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("kind", "received"),
    [
        ("all-gather", 75.0),
        ("reduce-scatter", 75.0),
        ("all-reduce", 150.0),
        ("all-to-all", 75.0),
        ("collective-permute", 100.0),
    ],
)
def test_what_a_device_receives(kind: str, received: float) -> None:
    assert received_bytes(Traffic(kind, 4, False), 100.0) == received


def test_in_an_exchange_a_byte_takes_several_links() -> None:
    cost = Cost(collectives={Traffic("all-to-all", 64, False): (1.0, 64 * 600e9 / 63)})
    assert roofline(cost, V5P, {}).ici_seconds == pytest.approx(3.0), "a quarter of each of three rings of 4"
    assert roofline(cost, V5P, {}).ici_bytes == pytest.approx(600e9)


def work(**changes: float) -> Workload:
    numbers = {"tokens": 1000.0, "targets": 100.0, "pairs": 5000.0} | changes
    return Workload(10, 3, {128: (2.0, 2)}, {128: 1.0}, **numbers)


def test_model_flops_are_those_of_the_formula() -> None:
    model = ModelConfig(num_layers=3, num_heads=2, num_kv_heads=2, head_dim=8)
    size = model_size(model)
    flops = 6 * size.body * 100 + 6 * size.head * 10 + 12 * 3 * 2 * 8 * 1000
    assert model_flops(model, tokens=100, targets=10, pairs=1000) == flops
    less = 2 * (size.body * 100 + size.head * 10)
    assert model_flops(model, tokens=100, targets=10, pairs=1000, frozen=True) == flops - less


def test_kernels_make_the_products_of_attention() -> None:
    model = ModelConfig(num_heads=4, head_dim=8)
    pairs, row, block = 1000.0, 512, 128
    found = attention_flops(model, pairs, row, block, ways=2)
    product = 2 * 4 * 8 * (pairs + row * block / 2) / 2
    assert found == {"dkv": 4 * product, "dq": 3 * product, "fwd": 2 * product}


def test_parameters_are_counted_by_what_they_cost() -> None:
    size = model_size(PRESETS["qwen3-14b"])
    assert size.total == 14_768_307_200
    assert size.total - size.body == 2 * size.head == 2 * 151_936 * 5120
    tied = model_size(PRESETS["qwen3-1.7b"])
    assert tied.total - tied.body == tied.head


def test_rows_that_are_not_at_hand_are_assumed_to_be_of_one_length() -> None:
    data = DataConfig(source="nowhere.jsonl", batch_size=256, row_length=20_480, rows_per_micro_batch=64)
    run = Run(epochs=8, data=data, snapshots=SnapshotConfig("0, 10, last"))
    made = workload(run, None, 20_480, 10_000, 0.5)
    assert (made.total_steps, made.snapshots, made.assumed) == (640, 3, True)
    assert made.micro_batches == {20_480: (2.0, 2)}
    assert (made.tokens, made.targets) == (2_560_000, 1_280_000)
    assert made.pairs == 256 * 10_000 * 10_001 / 2
    assert made.efficiency == 2_560_000 / (128 * 20_480)
    with pytest.raises(UsageError, match="--rows and --row-tokens"):
        workload(run, None)
    with pytest.raises(UsageError, match="do not fill one batch"):
        workload(run, None, 100)


def test_every_chip_has_a_price_and_another_table_can_be_given(tmp_path: Path) -> None:
    assert set(load_prices().chip_hour) == set(CHIPS)
    mine = tmp_path / "mine.toml"
    mine.write_text('source = "our contract"\ndate = "2026-01-01"\n[chip_hour]\nv5p = 1.5\n')
    prices = load_prices(str(mine))
    assert (prices.chip_hour, prices.source, prices.date) == ({"v5p": 1.5}, "our contract", "2026-01-01")


@pytest.mark.parametrize(
    ("text", "said"),
    [("= nothing", "not TOML"), ("a = 1", "chip_hour"), ('[chip_hour]\nv5p = "x"', "number")],
)
def test_a_bad_price_table_is_refused(text: str, said: str, tmp_path: Path) -> None:
    place = tmp_path / "prices.toml"
    place.write_text(text)
    with pytest.raises(UsageError, match=said):
        load_prices(str(place))
    with pytest.raises(UsageError, match="no such file"):
        load_prices(str(tmp_path / "absent.toml"))
