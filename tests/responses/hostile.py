"""Programs that try to get out, to harm what runs beside them, or to stay. One that gets through says so.

Each prints ESCAPED where it has reached something that it must not. HOME, PORT, PID and SECRET stand for a
file of the user's, a port that listens, a process and the value of an environment variable, all outside.
"""

HOSTILE = {
    "fork bomb": "import os\nwhile True: os.fork()",
    "fork bomb that ignores errors": """
import os
while True:
    try:
        if os.fork() == 0: print('ESCAPED')
    except OSError: pass""",
    "thread bomb": """
import threading, time
while True:
    try: threading.Thread(target=time.sleep, args=(99,)).start()
    except RuntimeError: pass""",
    "memory bomb": "x = []\nwhile True: x.append(bytearray(1 << 26))",
    "memory in one piece": "x = bytearray(1 << 40); print('ESCAPED')",
    "memory that no limit counts": """
import os
fds = []
while True:
    fds.append(os.memfd_create('x')); os.ftruncate(fds[-1], 1 << 24); print('ESCAPED')""",
    "endless output": "while True: print('x' * 100_000)",
    "endless errors": "import sys\nwhile True: sys.stderr.write('x' * 100_000)",
    "reads the home folder": "print('ESCAPED', open(HOME).read())",
    "reads the users": """
import os
for path in ('/etc/passwd', '/etc/shadow', '/home', '/var', '/proc', '/sys', '/run'):
    if os.path.exists(path): print('ESCAPED', path)""",
    "reads the environment": """
import os
if SECRET in str(dict(os.environ)): print('ESCAPED')""",
    "reads another's environment": "print('ESCAPED', open(f'/proc/{PID}/environ').read())",
    "connects to this machine": """
import socket
socket.create_connection(('127.0.0.1', PORT), timeout=1); print('ESCAPED')""",
    "connects by number": """
import ctypes, os
if ctypes.CDLL(None).socket(2, 1, 0) >= 0: print('ESCAPED')""",
    "raw sockets to the kernel": """
import socket
for family in (16, 17, 38, 40):
    try: socket.socket(family, socket.SOCK_DGRAM); print('ESCAPED', family)
    except OSError: pass""",
    "looks up a name": "import socket\nprint('ESCAPED', socket.gethostbyname('localhost.localdomain.'))",
    "writes beside the library": """
import os
for folder in ('/', '/usr/lib', os.path.dirname(os.__file__), '/dev', '/home', '/etc'):
    try: open(os.path.join(folder, 'x'), 'w'); print('ESCAPED', folder)
    except OSError: pass""",
    "writes over what it was given": "import os\nos.write(0, b'x'); print('ESCAPED')",
    "makes the system writable": """
import ctypes
if ctypes.CDLL(None).mount(b'none', b'/', None, 32 | 4096, None) == 0: print('ESCAPED')""",
    "mounts": """
import ctypes
libc = ctypes.CDLL(None)
for kind in (b'proc', b'tmpfs', b'sysfs'):
    if libc.mount(kind, b'/tmp', kind, 0, None) == 0: print('ESCAPED', kind)
if libc.umount2(b'/tmp', 2) == 0: print('ESCAPED')""",
    "kills its parent": """
import os, signal
for pid in (os.getppid(), 1, PID):
    try: os.kill(pid, signal.SIGKILL)
    except OSError: pass""",
    "kills everything": "import os, signal\nos.kill(-1, signal.SIGKILL)",
    "kills its group": "import os, signal\nos.killpg(0, signal.SIGKILL)",
    "link to the home folder": """
import os
os.symlink(HOME, '/tmp/link'); print('ESCAPED', open('/tmp/link').read())""",
    "links out of the root": """
import os
os.symlink('/proc/1/root', '/tmp/root')
for path in ('/tmp/root' + HOME, '../../../../..' + HOME, '/dev/fd/../../' + HOME):
    if os.path.exists(path): print('ESCAPED', path)""",
    "loops of links": """
import os
os.symlink('/tmp/a', '/tmp/b'); os.symlink('/tmp/b', '/tmp/a'); open('/tmp/a')""",
    "ignores signals": """
import signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: time.sleep(9)""",
    "works for ever and ignores signals": """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass""",
    "zombies": """
import subprocess
while True:
    try: subprocess.Popen(['/usr/bin/true'])
    except OSError: pass""",
    "daemon": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print('ESCAPED'); time.sleep(99)""",
    "tampers with proc": """
for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/self/oom_score_adj'):
    try: open(path, 'w').write('x'); print('ESCAPED', path)
    except OSError: pass""",
    "tampers with sys": """
for path in ('/sys/power/state', '/sys/fs/cgroup/cgroup.procs', '/sys/kernel/mm/ksm/run'):
    try: open(path, 'w').write('0'); print('ESCAPED', path)
    except OSError: pass""",
    "ptrace": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for request, pid in ((16, 1), (16, PID), (0, 0)):
    if libc.ptrace(request, pid, None, None) == 0: print('ESCAPED', request)""",
    "keys of the user": """
import ctypes, platform
libc = ctypes.CDLL(None)
add, ctl = (248, 250) if platform.machine() == 'x86_64' else (217, 219)
if libc.syscall(add, b'user', b'x', b'y', 1, -4) >= 0: print('ESCAPED')
if libc.syscall(ctl, 0, -4, 0) >= 0: print('ESCAPED')""",
    "namespaces in namespaces": """
import ctypes
libc = ctypes.CDLL(None)
for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000, 0x4000000):
    if libc.unshare(flag) == 0: print('ESCAPED', hex(flag))
clone3 = (ctypes.c_uint64 * 11)(0x10000000)
if libc.syscall(435, ctypes.byref(clone3), 88) > 0: print('ESCAPED')""",
    "becomes another user": """
import os
for number in (0, 1000):
    try: os.setuid(number); print('ESCAPED', number)
    except OSError: pass
try: os.chroot('/tmp'); print('ESCAPED')
except OSError: pass""",
    "types into the terminal": """
import fcntl, os
try: fd = os.open('/dev/tty', os.O_RDWR); print('ESCAPED')
except OSError: fd = 0
for fd in (0, 1, 2):
    try: fcntl.ioctl(fd, 0x5412, b'x'); print('ESCAPED')
    except OSError: pass""",
    "huge file": """
import os
with open('/tmp/x', 'wb') as file:
    os.truncate('/tmp/x', 1 << 40); print('ESCAPED')""",
    "many files": """
number = 0
while True:
    with open(f'/tmp/{number}', 'wb') as file: file.write(b'x' * 1_000_000)
    number += 1
    if number > 100: print('ESCAPED')""",
    "deep recursion": """
import sys
sys.setrecursionlimit(1 << 30)
def f(x): return f([x])
f(0)""",
    "dies with its core": """
import os, resource, signal
try: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)); print('ESCAPED')
except (OSError, ValueError): pass
os.abort()""",
    "raises its limits": """
import resource
for name in ('RLIMIT_CPU', 'RLIMIT_AS', 'RLIMIT_NPROC', 'RLIMIT_FSIZE'):
    try: resource.setrlimit(getattr(resource, name), (-1, -1)); print('ESCAPED', name)
    except (OSError, ValueError): pass""",
}
