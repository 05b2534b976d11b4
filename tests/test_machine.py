"""How the host's memory is handed out, and how processes are started apart from this one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jax_sft.machine import Apart, run_apart, use_cpu_without_accelerators

HOLES = """
import threading
from jax_sft.machine import limit_arenas
{call}
kept = []
together = threading.Barrier(40)

def leave_holes() -> None:
    together.wait()
    blocks = [bytes(100_000) for _ in range(300)]
    kept.extend(blocks[::100])
    together.wait()

threads = [threading.Thread(target=leave_holes) for _ in range(40)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(line.startswith("7") and " rw-p 00000000 00:00 0" in line for line in open("/proc/self/maps")))
"""


def heaps(call: str) -> int:
    """Writable areas of memory of a process whose threads all hold memory at once."""
    done = subprocess.run(
        [sys.executable, "-c", HOLES.format(call=call)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_threads_share_few_heaps() -> None:
    assert heaps("limit_arenas()") < heaps("")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module that a process apart finds as `apart`, by this one's path alone."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "apart.py"


def test_a_process_apart_takes_no_part_in_the_job(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module.write_text(
        "import json, os, sys\n"
        "print(json.dumps([sys.argv[1:], sys.stdin.read(), dict(os.environ), os.getsid(0)]))\n"
    )
    for name in ("XLA_FLAGS", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "KEPT"):
        monkeypatch.setenv(name, "1")
    ended = run_apart("apart", ["a", "b c"], {"JAX_PLATFORMS": "tpu"}, given="text")
    assert (ended.code, ended.errors) == (0, "")
    arguments, given, environment, session = json.loads(ended.output)
    assert (arguments, given) == (["a", "b c"], "text")
    assert (environment["KEPT"], environment["JAX_PLATFORMS"]) == ("1", "tpu")
    assert "XLA_FLAGS" not in environment
    assert environment.keys().isdisjoint({"JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"})
    assert session != os.getsid(0)


def test_a_process_apart_is_ended_with_all_that_it_started(module: Path) -> None:
    module.write_text("import subprocess\nsubprocess.run(['sleep', '60'])\n")
    started = time.monotonic()
    # It is over only once nobody holds its pipes any more.
    with pytest.raises(TimeoutError, match=r"took more than 1\.5 seconds"):
        run_apart("apart", timeout=1.5)
    assert time.monotonic() - started < 10


def test_a_process_apart_is_told_by_its_last_words(module: Path) -> None:
    module.write_text("raise ValueError('the reason')\n")
    running = Apart("apart")
    ended = running.wait()
    assert (ended.code, ended.last_words, running.running) == (1, "ValueError: the reason", False)
    module.write_text("raise SystemExit(3)\n")
    assert run_apart("apart").last_words == "it said nothing"


@pytest.mark.parametrize(("found", "platforms"), [([], "cpu"), (["/dev/accel0"], None)])
def test_without_an_accelerator_jax_is_told_so(
    found: list[str], platforms: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jax_sft.machine.glob", lambda pattern: [path for path in found if path[:-1] in pattern]
    )
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    use_cpu_without_accelerators()
    assert os.environ.get("JAX_PLATFORMS") == platforms
