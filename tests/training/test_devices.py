"""Twenty steps on one device and on many, weighted as the original does: the same losses."""

import jax
import numpy as np
import pytest

from jax_sft.config import ParallelismConfig, replace
from jax_sft.data.batches import Batches
from jax_sft.sharding import make_mesh
from tests.training.batches import DATA, RUN, random_rows, train_steps

STEPS = 20
WEIGHTED = replace(RUN, data=replace(DATA, weighting="original", original_ranks=4, original_micro_batch=2))
BATCHES = Batches(random_rows(), WEIGHTED.data, seed=0, epochs=STEPS / 8)


def losses(devices: int) -> np.ndarray:
    mesh = make_mesh(ParallelismConfig(fsdp=devices), jax.devices()[:devices])
    return np.asarray(train_steps(WEIGHTED, BATCHES, mesh)[1])


@pytest.fixture(scope="module")
def alone() -> np.ndarray:
    return losses(1)


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_any_number_of_devices_gives_the_same_losses(devices: int, alone: np.ndarray) -> None:
    assert len(alone) == STEPS
    assert alone[-1] < alone[0]
    found = losses(devices)
    np.testing.assert_allclose(found, alone, rtol=1e-6)
