"""Runs one program, inside the sandbox: the only lines of ours there. Imports next to nothing, to start fast.

Called as `python -c THIS NAME MARK SIZES LIMIT=VALUE …`: standard input begins with the program's parts, of
so many bytes each (SIZES, by commas), and goes on with what the program reads itself. The parts are run one
after another in one namespace whose `__name__` is NAME. MARK is written when the last has come to its end.
"""

import builtins
import os
import resource
import sys
from types import TracebackType

UNREADABLE = 65
"""Exit code where a part is not Python."""


def main(name: str, mark: str, sizes: str, limits: list[str]) -> None:
    """Set the limits for good, then read, compile and run the parts."""
    for limit in limits:
        number, _, value = limit.partition("=")
        resource.setrlimit(int(number), (int(value), int(value)))
    sources = [_read(int(size)) for size in sizes.split(",")]
    sys.argv = sys.orig_argv = [f"{name}.py"]
    sys.excepthook = _complain
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # which the site module, left out here, would give
    try:
        parts = [compile(source, f"{name}.py", "exec", dont_inherit=True) for source in sources]
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        _complain(type(error), error, None)
        os._exit(UNREADABLE)
    module = type(sys)(name)
    sys.modules[name] = module
    for part in parts:
        exec(part, vars(module))
    _end()
    os.write(1, mark.encode())
    os._exit(0)


def _end() -> None:
    """What the interpreter does at its end: wait for threads, call what is registered, write what is left."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()
    sys.stdout.flush()


def _read(size: int) -> bytes:
    """Exactly so many bytes, and none of what follows: that is the program's."""
    read = b""
    while len(read) < size and (more := os.read(0, size - len(read))):
        read += more
    return read


def _complain(kind: type, error: BaseException, trace: TracebackType | None) -> None:
    """One line, and no import of what formats tracebacks."""
    lines = []
    while trace is not None:
        lines.append(trace.tb_lineno)
        trace = trace.tb_next
    where = f" (line {lines[-1]})" if lines else ""
    os.write(2, f"{kind.__name__}: {str(error)[:500]}{where}\n".encode("utf-8", "replace"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
