"""The system calls that a program in the sandbox may not make, as a filter for the kernel (seccomp BPF).

What is refused: new processes (threads are allowed), all that reaches other processes, the kernel's own
interfaces, mounts and namespaces, sockets other than local ones, and memory that no limit counts.
"""

import errno
import platform
import struct

from jax_sft.errors import JaxSftError

# Numbers of the refused calls on x86-64 and aarch64; None where it has no such call. The kernel's
# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h list them.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # new processes, and other ones
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    # keys are kept by user, not by namespace
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # mounts, namespaces, other roots
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # interfaces of the kernel that have been ways out before, and what only an administrator needs
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "io_setup": (206, 0),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "iopl": (172, None),
    "ioperm": (173, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    # memory that RLIMIT_AS does not count
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # what neighbours would feel
    "sync": (162, 81),
    "syncfs": (306, 267),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
# From here on all architectures share the numbers. Most are new doors (io_uring, the new mount calls, clone3,
# whose flags a filter cannot see): absent, as on an older kernel, but for a few harmless ones.
_SHARED = 424
_HARMLESS = {"close_range": 436, "openat2": 437, "faccessat2": 439, "epoll_pwait2": 441, "futex_waitv": 449}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _IOCTL, _SOCKET = (56, 220), (16, 29), (41, 198)
_CLONE_THREAD, _AF_UNIX, _TIOCSTI, _TIOCLINUX = 0x10000, 1, 0x5412, 0x541C

Step = tuple[int, int, int, int]
"""An instruction: what it does, how many are passed over when its test holds and when not, and a number."""
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_AT, _SECOND_AT = 0, 4, 16, 24  # in struct seccomp_data; low halves
_ERROR, _KILL = 0x00050000, 0x80000000
_FINE: Step = (_RETURN, 0, 0, 0x7FFF0000)
_NOT_PERMITTED: Step = (_RETURN, 0, 0, _ERROR | errno.EPERM)
_ABSENT: Step = (_RETURN, 0, 0, _ERROR | errno.ENOSYS)


def filter_program(machine: str = "") -> bytes:
    """The filter for a machine (by default this one), as bubblewrap's `--seccomp` reads it.

    JaxSftError for a machine whose numbers are not known here.
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise JaxSftError(
            f"its filter of system calls is for {' and '.join(_MACHINES)}, not {machine}; score on such a one"
        )
    column, architecture = _MACHINES[machine]
    refused = [numbers[column] for numbers in _REFUSED.values()]
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *(step for number in refused if number is not None for step in _if(number, _NOT_PERMITTED)),
        *(step for number in _HARMLESS.values() for step in _if(number, _FINE)),
        # All other numbers of later kernels, and those of the x32 calls, which begin at 2^30.
        (_AT_LEAST, 0, 1, _SHARED),
        _ABSENT,
        *_if(_CLONE[column], (_LOAD, 0, 0, _FIRST_AT), (_BITS, 1, 0, _CLONE_THREAD), _NOT_PERMITTED, _FINE),
        *_if(_SOCKET[column], (_LOAD, 0, 0, _FIRST_AT), (_EQUAL, 1, 0, _AF_UNIX), _NOT_PERMITTED, _FINE),
        *_if(
            _IOCTL[column],
            (_LOAD, 0, 0, _SECOND_AT),
            (_EQUAL, 1, 0, _TIOCSTI),
            (_EQUAL, 0, 1, _TIOCLINUX),
            _NOT_PERMITTED,
            _FINE,
        ),
        _FINE,
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _if(number: int, *then: Step) -> list[Step]:
    """Steps that are taken for one call only."""
    return [(_EQUAL, 0, len(then), number), *then]
