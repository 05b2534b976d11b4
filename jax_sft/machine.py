"""The machine a command runs on: the processes of one job joined, and how memory is handed out."""

import ctypes
import importlib.util
import os
from glob import glob

from jax_sft.errors import UsageError

HEARTBEAT_SECONDS = 30
"""A process that has not been heard of for so long is taken for dead, and the others end."""
_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_TPU_DEVICES = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
_GPU_DEVICES = ("/dev/nvidia[0-9]*", "/dev/kfd")


def use_cpu_without_accelerators() -> None:
    """Where there is no accelerator, say so to JAX: libtpu, installed for `plan`, looks for a TPU noisily."""
    if not any(glob(pattern) for pattern in (*_TPU_DEVICES, *_GPU_DEVICES)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def join_processes() -> None:
    """Make this process part of the job that its environment describes, before anything uses a device.

    - `JAX_COORDINATOR_ADDRESS` (host:port), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` describe a job on any
      hosts; some of them without the others are a UsageError.
    - On a host with TPUs, JAX asks the platform (Cloud TPU metadata, GKE variables) for the other workers.
    - Otherwise the process is alone, and nothing happens. Joining twice does nothing either.
    """
    import jax  # late, so that the command line can show its help without it

    if jax.distributed.is_initialized():
        return
    given = {name: os.environ[name] for name in _EXPLICIT if os.environ.get(name)}
    if given:
        jax.distributed.initialize(*_described(given), heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    elif _has_tpu():
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)


def _described(given: dict[str, str]) -> tuple[str, int, int]:
    """Coordinator, number of processes, and which of them this is."""
    missing = [name for name in _EXPLICIT if name not in given]
    if missing:
        raise UsageError(f"{', '.join(given)} is set, but {', '.join(missing)} is not: set all three or none")
    address, count, index = (given[name] for name in _EXPLICIT)
    if not (count.isdecimal() and index.isdigit() and int(index) < int(count)):
        raise UsageError(f"JAX_PROCESS_ID {index!r} must be a number below JAX_NUM_PROCESSES {count!r}")
    if not address.rpartition(":")[2].isdecimal():
        raise UsageError(f"JAX_COORDINATOR_ADDRESS {address!r} must be host:port")
    return address, int(count), int(index)


def _has_tpu() -> bool:
    """Whether JAX would run on TPUs of this host; asks no device, so that joining is still possible after."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    wanted = not platforms or "tpu" in platforms.split(",")
    present = any(glob(pattern) for pattern in _TPU_DEVICES)
    return wanted and present and importlib.util.find_spec("libtpu") is not None


M_ARENA_MAX = -8
"""mallopt's number for the most heaps."""


def limit_arenas() -> None:
    """Have glibc take memory for all threads from a few heaps; to be called before threads are started.

    It keeps a heap for nearly every thread, and each save starts some threads that leave theirs full of
    holes: a run with many snapshots would grow by a third. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, max(2, (os.cpu_count() or 1) // 4))
