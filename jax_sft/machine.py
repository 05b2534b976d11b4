"""The machine a command runs on: processes joined to a job or started apart, memory handed out."""

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from itertools import count

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


def from_first(text: str) -> str:
    """What process 0 gives, on every process; all call it at the same point of their main thread."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return text
    raw = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(raw.size)))
    padded = np.zeros(max(1, length), np.uint8)
    if jax.process_index() == 0:
        padded[:length] = raw
    return multihost_utils.broadcast_one_to_all(padded)[:length].tobytes().decode()


LONGEST_WAIT = 7 * 24 * 3600
"""Seconds that a process waits for the others of its job to finish what they do by themselves."""
_meetings = count()
"""Numbers them: a barrier is met at once."""


def wait_for_all(where: str) -> None:
    """Wait until all processes of the job are at the point named `where`; by messages, not by collectives."""
    import jax

    if jax.process_count() > 1:
        from orbax.checkpoint import multihost

        everyone = set(range(jax.process_count()))
        name = f"{where} {next(_meetings)}"
        multihost.sync_global_processes(name, timeout=LONGEST_WAIT, processes=everyone)


def most_of_all(here: int) -> int:
    """The greatest number that any process gives; all call it at the same point of their main thread."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    return here if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.int32(here)).max())


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


_NOT_PASSED = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", *_EXPLICIT)
"""What is meant for this process alone: flags for its backend, and its place in a job."""


@dataclass(frozen=True)
class Ended:
    """What became of a process: its exit code and what it wrote."""

    code: int
    output: str
    errors: str

    @property
    def last_words(self) -> str:
        """The last line that it wrote to standard error, where Python and libraries say why they end."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"


class Apart:
    """`python -m MODULE ARGUMENTS` as a process of its own, no part of this one's job or terminal."""

    def __init__(
        self, module: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` is added to what is passed on of this process's own."""
        passed = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
        passed["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**passed, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait(self, given: str = "", timeout: float | None = None) -> Ended:
        """Hand it `given` on standard input and wait for its end; TimeoutError after so many seconds.

        However the wait ends, the process has ended with it.
        """
        try:
            output, errors = self._process.communicate(given, timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"took more than {timeout:g} seconds") from None
        finally:
            self.stop()
        return Ended(self._process.returncode, output, errors)

    def stop(self) -> None:
        """End it, and all that it started, if it has not ended yet."""
        if self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


def run_apart(
    module: str,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    given: str = "",
    timeout: float | None = None,
) -> Ended:
    """Run `python -m MODULE ARGUMENTS` apart, to its end; TimeoutError, after `timeout` seconds."""
    return Apart(module, arguments, environment).wait(given, timeout)
