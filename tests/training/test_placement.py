"""Batches and meshes that fit one another, and those that do not."""

from types import SimpleNamespace
from typing import ClassVar, cast

import numpy as np
import pytest
from jax.sharding import Mesh

from jax_sft.config import DataConfig, ParallelismConfig
from jax_sft.errors import UsageError
from jax_sft.sharding import make_mesh
from jax_sft.training.placement import check_batch


@pytest.mark.parametrize(
    ("axes", "data", "message"),
    [
        ({}, DataConfig(rows_per_micro_batch=12), "data.rows_per_micro_batch 12 does not divide by 8"),
        (
            {"replica": 2, "tensor": 2},
            DataConfig(rows_per_micro_batch=6),
            "data.rows_per_micro_batch 6 does not divide by 4",
        ),
        (
            {"fsdp": 2, "sequence": 4},
            DataConfig(row_length=130),
            "data.row_length 130 does not divide by 4, as parallelism "
            "replica=1 x fsdp=2 x sequence=4 x tensor=1 asks",
        ),
        (
            {"fsdp": 2, "sequence": 4},
            DataConfig(row_lengths=(64, 130)),
            "data.row_lengths 130 does not divide by 4",
        ),
    ],
)
def test_batches_that_do_not_divide(axes: dict[str, int], data: DataConfig, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_batch(data, make_mesh(ParallelismConfig(**axes)))
    assert message in str(caught.value)


def test_batches_that_divide() -> None:
    check_batch(DataConfig(), make_mesh(ParallelismConfig()))
    check_batch(DataConfig(rows_per_micro_batch=2), make_mesh(ParallelismConfig(fsdp=2, tensor=4)))


def test_long_rows_on_tpu_divide_into_blocks_of_the_attention_kernel() -> None:
    class Chips:
        shape: ClassVar = {"replica": 1, "fsdp": 2, "sequence": 2, "tensor": 1}
        devices = np.array([SimpleNamespace(platform="tpu")])

    mesh = cast(Mesh, Chips())
    check_batch(DataConfig(row_length=20_480), mesh)
    check_batch(DataConfig(row_length=300), mesh)
    with pytest.raises(UsageError, match=r"row_length 20000 puts 10000 tokens .* make it a multiple of 256"):
        check_batch(DataConfig(row_length=20_000), mesh)
