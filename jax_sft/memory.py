"""How the host's memory is handed out."""

import ctypes
import os

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
