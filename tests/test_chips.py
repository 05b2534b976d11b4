"""Peaks by what JAX calls a device."""

import pytest

from jax_sft.chips import CHIPS, device_peak

pytestmark = pytest.mark.short


@pytest.mark.parametrize(
    ("kind", "peak"),
    [("TPU v4", 275e12), ("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("TPU v6 lite", 918e12), ("cpu", None)],
)
def test_peak_of_a_device(kind: str, peak: float | None) -> None:
    assert device_peak(kind) == peak


def test_a_chip_may_be_two_devices() -> None:
    assert device_peak("TPU7x") == CHIPS["tpu7x"].peak_flops / 2


def test_no_two_chips_are_called_the_same() -> None:
    assert len({chip.device_kind for chip in CHIPS.values()}) == len(CHIPS)
