"""The sandbox: what gets through, what does not, and that nothing of a program is left."""

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jax_sft.errors import JaxSftError
from jax_sft.responses import sandbox as boxes
from jax_sft.responses.sandbox import ProgramLimits, Ran, run
from jax_sft.responses.seccomp import filter_program
from tests.responses.hostile import HOSTILE

TIGHT = ProgramLimits(seconds=1, wall_seconds=5, memory=0.5, output_bytes=1 << 20)
QUICK = ("fork bomb", "memory bomb", "endless output", "kills everything", "thread bomb", "many files")
"""Those beside which honest programs run in the short test."""
SPARE = 5.0
"""Seconds that a busy machine may take to start a program and to clear up after it."""


class Outside:
    """What a program must not reach: a file, a port, a process and a secret."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "diary"
        self.file.write_text("dear diary")
        self.secret = uuid.uuid4().hex
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(0)
        self.process = subprocess.Popen(["sleep", "600"], env={**os.environ, "SECRET": self.secret})

    def program(self, name: str) -> str:
        """A hostile program that knows what there is outside."""
        text = HOSTILE[name]
        places = {
            "HOME": repr(str(self.file)),
            "PORT": str(self.server.getsockname()[1]),
            "PID": str(self.process.pid),
            "SECRET": repr(self.secret),
        }
        for word, value in places.items():
            text = text.replace(word, value)
        return text

    def check(self) -> None:
        """All is as it was, and nobody has called."""
        assert self.file.read_text() == "dear diary"
        assert [path.name for path in self.file.parent.iterdir()] == ["diary"]
        assert self.process.poll() is None
        with pytest.raises(BlockingIOError):
            self.server.accept()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.server.close()


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    there = Outside(tmp_path)
    monkeypatch.setenv("SECRET", there.secret)
    yield there
    there.close()


def processes(name: str) -> list[str]:
    """The processes that have this word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if name.encode() in words:
            found.append(path.parent.name)
    return found


def attack(name: str, outside: Outside) -> Ran:
    """Run a hostile program; it keeps to its time, and leaves nothing behind."""
    unique, start = f"n{uuid.uuid4().hex}", time.monotonic()
    ran = run([outside.program(name)], limits=TIGHT, name=unique)
    assert time.monotonic() - start < TIGHT.wall_seconds + SPARE, name
    end = time.monotonic() + SPARE
    while processes(unique) and time.monotonic() < end:
        time.sleep(0.02)
    assert not processes(unique), name
    assert b"ESCAPED" not in ran.output, (name, ran)
    assert len(ran.output) <= TIGHT.output_bytes
    return ran


def test_there_are_forty_hostile_programs() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_neither_escapes_nor_stays(name: str, sandbox: None, outside: Outside) -> None:
    attack(name, outside)
    outside.check()


def beside(count: int, hostile: Sequence[str], outside: Outside) -> None:
    """Run so many honest programs or more, until all hostile ones have run beside them; all are right."""
    program = "import sys\nfor line in sys.stdin: print(sum(range(int(line))))"
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(2) as honest_pool:
        attacks = [pool.submit(attack, name, outside) for name in hostile]
        done = 0
        while done < count or not all(running.done() for running in attacks):
            numbers = range(done, done + 4)
            answers = honest_pool.map(lambda n: run([program], f"{n}\n{n + 1}\n"), numbers)
            for n, ran in zip(numbers, answers, strict=True):
                sums = f"{n * (n - 1) // 2}\n{n * (n + 1) // 2}\n".encode()
                assert (ran.output, ran.finished) == (sums, True), (n, ran)
            done += 4
        for running in attacks:
            running.result()
    outside.check()


def test_honest_programs_lose_nothing_beside_hostile_ones(sandbox: None, outside: Outside) -> None:
    beside(16, QUICK, outside)


@pytest.mark.slow
def test_two_hundred_honest_programs_beside_all_hostile_ones(sandbox: None, outside: Outside) -> None:
    beside(200, list(HOSTILE), outside)


def test_what_a_program_may_do(sandbox: None) -> None:
    ran = run(["import sys\nx = input()", "print(x.upper(), sys.argv, sys.stdin.read())"], "né\nrest")
    assert (ran.output.decode(), ran.finished, ran.code) == ("NÉ ['__main__.py'] rest\n", True, 0)
    threads = (
        "import atexit, threading, time\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "atexit.register(print, 'last')\nThreadPoolExecutor(1).submit(print, 'first')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('then'))).start()"
    )
    ran = run([threads])
    assert (ran.output, ran.finished) == (b"first\nthen\nlast\n", True)
    files = "open('/tmp/a', 'w').write('x')\nprint(open('/tmp/a').read(), open('/dev/zero').read(1) == '\\0')"
    assert run([files]).output == b"x True\n"
    assert run(["print({'a', 'b', 'c'})"]).output == run(["print({'a', 'b', 'c'})"]).output
    assert run(["if __name__ == '__main__': print(1)"], name="solution").output == b""


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("x = 1 +", 65, "SyntaxError"),
        ("'\\udcff'.encode()", 1, "UnicodeEncodeError"),
        ("a = 1\nb = 1 / 0", 1, "ZeroDivisionError: division by zero (line 2)"),
        ("exit(3)", 3, ""),
        ("import os; os._exit(0)", 0, ""),
        ("import numpy", 1, "No module named 'numpy'"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 128 + signal.SIGTERM, ""),
    ],
)
def test_how_a_program_ends(source: str, code: int, message: str, sandbox: None) -> None:
    ran = run([source])
    assert (ran.code, ran.finished, ran.readable) == (code, False, code != 65)
    assert message in ran.message


def test_the_limits(sandbox: None) -> None:
    limits = ProgramLimits(seconds=1, wall_seconds=20, memory=0.5, output_bytes=1000)
    assert "1 s of processor time" in run(["while True: pass"], limits=limits).message
    short = ProgramLimits(wall_seconds=0.5)
    assert run(["import time; time.sleep(60)"], limits=short).message == "no end within 0.5 s"
    assert "more than 1000 bytes of output" in run(["print('x' * 1001)"], limits=limits).message
    assert "MemoryError" in run(["x = bytearray(600_000_000)"], limits=limits).message
    assert not run(["import os; os.close(1); os.close(2)\nwhile True: pass"], limits=limits).finished


def test_a_program_dies_with_the_process_that_ran_it(sandbox: None) -> None:
    name = f"n{uuid.uuid4().hex}"
    source = (
        "from jax_sft.responses.sandbox import run, ProgramLimits\n"
        f"run(['import time; time.sleep(60)'], name={name!r}, limits=ProgramLimits(wall_seconds=60))"
    )
    runner = subprocess.Popen([sys.executable, "-c", source])
    end = time.monotonic() + 30
    while len(processes(name)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(processes(name)) >= 3  # bubblewrap, its first process and the program
    runner.kill()
    runner.wait()
    end = time.monotonic() + SPARE
    while processes(name) and time.monotonic() < end:
        time.sleep(0.02)
    assert not processes(name)


def test_without_a_sandbox_nothing_runs_unless_the_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "diary").write_text("dear diary")
    program = HOSTILE["reads the home folder"].replace("HOME", repr(str(tmp_path / "diary")))
    monkeypatch.setattr(boxes, "_sandbox", lambda: (None, "no bubblewrap"))
    monkeypatch.setattr(boxes, "_allowed_without", False)
    for refused in (boxes.require, lambda: run([program])):
        with pytest.raises(JaxSftError, match=r"no bubblewrap; or pass --evaluation\.allow-unsandboxed-code"):
            refused()
    boxes.allow_unsandboxed()
    ran = run([program])
    assert (ran.output, ran.finished) == (b"ESCAPED dear diary\n", True)
    name = uuid.uuid4().hex
    command = f"[sys.executable, '-c', 'import time; time.sleep(60)', {name!r}]"
    daemon = f"import subprocess, sys\nsubprocess.Popen({command}, stdout=-1, stderr=-1)"
    assert run([daemon]).finished
    end = time.monotonic() + SPARE
    while processes(name) and time.monotonic() < end:
        time.sleep(0.02)
    assert not processes(name)


def answer(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel would do with a call: the instructions of the filter, carried out."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    steps, place, value = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        code, yes, no, operand = steps[place]
        if code == 0x06:
            return operand
        if code == 0x20:
            value = struct.unpack_from("<I", data, operand)[0]
            place += 1
        else:
            held = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            place += 1 + (yes if held else no)


@pytest.mark.parametrize(
    ("machine", "architecture", "read", "clone", "socket_", "ioctl", "ptrace"),
    [("x86_64", 0xC000003E, 0, 56, 41, 16, 101), ("aarch64", 0xC00000B7, 63, 220, 198, 29, 117)],
)
def test_the_filter_of_system_calls(
    machine: str, architecture: int, read: int, clone: int, socket_: int, ioctl: int, ptrace: int
) -> None:
    program = filter_program(machine)
    allowed, refused = 0x7FFF0000, 0x00050000 | errno.EPERM
    absent, killed = 0x00050000 | errno.ENOSYS, 0x80000000

    def ask(number: int, *arguments: int) -> int:
        return answer(program, architecture, number, *arguments)

    assert ask(read) == allowed
    assert ask(ptrace) == refused
    assert ask(clone, 0x10F00) == allowed  # a thread
    assert ask(clone, 17) == ask(clone, 0x10000011 & ~0x10000) == refused  # a process, a user namespace
    assert ask(socket_, socket.AF_UNIX, 1) == allowed
    assert ask(socket_, socket.AF_INET, 1) == ask(socket_, 16, 3) == ask(socket_, 40, 1) == refused
    assert ask(ioctl, 0, 0x5401) == allowed
    assert ask(ioctl, 0, 0x5412) == ask(ioctl, 0, 0x541C) == ask(ioctl, 0, (1 << 32) | 0x5412) == refused
    assert [ask(number) for number in (425, 428, 435, 999, 0x40000000)] == [absent] * 5
    assert ask(436) == ask(449) == allowed
    assert answer(program, 0x40000003, read) == killed
    with pytest.raises(JaxSftError, match="x86_64 and aarch64, not riscv64"):
        filter_program("riscv64")
