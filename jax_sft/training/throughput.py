"""How much of the chips and of the hours a run makes use of: MFU and goodput."""

import time

import jax
from etils import epath

from jax_sft.config import Run
from jax_sft.data.loader import Batch
from jax_sft.files import read_json, write_json
from jax_sft.models.flops import model_flops

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 2307e12 / 2,
}
"""bf16 operations a second of one device, by what JAX calls it; one of TPU7x is half a chip."""


class Throughput:
    """Numbers for a step's line of metrics.

    - `tflops_per_second`: model FLOPs (models/flops.py) per second and device.
    - `mfu`: that over the device's peak; only where the peak is known.
    - `productive_seconds`: the step's seconds; 0 for the first step of a process and of a row length, whose
      time is mostly that of compiling.
    - `goodput`: productive seconds of all steps so far over seconds since the run was first started.
      Compilation, what is redone after an interruption, and the time from an end to the next start are what
      it lacks.
    """

    def __init__(self, run: Run, folder: epath.Path, spent: float) -> None:
        """`spent` are the productive seconds of the steps before those that this process makes."""
        self._run, self._spent = run, spent
        self._devices, self._peak = jax.device_count(), PEAK_FLOPS.get(jax.devices()[0].device_kind)
        path = folder / "started.json"
        if not path.exists():
            write_json(path, {"time": time.time()})
        self._started = read_json(path)["time"]
        self._lengths: set[int] = set()

    def of(self, batch: Batch, seconds: float) -> dict[str, float]:
        """The numbers of a step that took so long."""
        length = batch.tokens_MRT.shape[-1]
        productive = seconds if length in self._lengths else 0.0
        self._lengths.add(length)
        self._spent += productive
        frozen = self._run.lora.rank > 0
        flops = model_flops(self._run.model, batch.tokens, batch.target_tokens, batch.pairs, frozen)
        rate = flops / seconds / self._devices
        line = {"productive_seconds": round(productive, 4), "tflops_per_second": round(rate / 1e12, 4)}
        if self._peak:
            line["mfu"] = round(rate / self._peak, 4)
        return line | {"goodput": round(self._spent / max(time.time() - self._started, 1e-9), 4)}
