"""How the host's memory is handed out."""

import subprocess
import sys

HOLES = """
import threading
from jax_sft.machine import limit_arenas
{call}
kept = []

def leave_holes() -> None:
    blocks = [bytes(100_000) for _ in range(300)]
    kept.extend(blocks[::100])

threads = [threading.Thread(target=leave_holes) for _ in range(40)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(line.startswith("7") and " rw-p 00000000 00:00 0" in line for line in open("/proc/self/maps")))
"""


def heaps(call: str) -> int:
    """Writable areas of memory of a process whose threads took memory at once."""
    done = subprocess.run(
        [sys.executable, "-c", HOLES.format(call=call)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_threads_share_few_heaps() -> None:
    assert heaps("limit_arenas()") < heaps("")
