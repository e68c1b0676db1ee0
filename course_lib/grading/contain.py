"""The warden: the process that stands between the fork server and an answer, and leaves nothing behind.

Knows nothing of exercises or torch. `keep(...)` runs in a freshly forked process: it moves into namespaces of its own
where the system allows it, forks the answer, and ends all of it when the answer ends, when the judge closes the lifeline,
when the time is over, or when the answer has made more than `MAX_PROCESSES` processes.

With a PID namespace, ending its first process ends every other in it, escaped from the process group or not. Without one
the warden is the subreaper of whatever the answer leaves and sweeps it. Where mount and network namespaces come for free,
the answer also sees files that it can only read, an empty folder to write in, and no network.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress

try:
    import resource
except ImportError:  # Windows: this file is imported there to say that nothing of it works
    resource = None

METHODS = ("pid-namespace", "user-and-pid-namespace", "subreaper")
MAX_PROCESSES = 64
_FILE_SIZE, _FILES = 64 << 20, 256  # bytes a file, open files
_POLL = 0.02  # seconds between two counts of the answer's processes
_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_SUBREAPER, _PDEATHSIG = 36, 1
_REC, _PRIVATE = 16384, 1 << 18
_SYS_MOUNT_SETATTR, _AT_RECURSIVE, _ATTR_RDONLY = 442, 0x8000, 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def containment() -> dict:
    """What works on this machine: {"method": ..., "network": bool, "read_only": bool, "sentence": ...}. For `course doctor`."""
    with tempfile.TemporaryDirectory(prefix="course-") as scratch:
        return _described(_tried(working_method(scratch), scratch) or {"method": "none", "network": False, "read_only": False})


def working_method(scratch: str) -> str:
    """The first of METHODS that works here, tried in processes of their own."""
    if _libc is None:
        return "none"
    return next((method for method in METHODS if _tried(method, scratch)), "subreaper")


def _tried(method: str, scratch: str) -> dict | None:
    """What a process gets that moves into namespaces in this way; None where it then cannot fork or write to its scratch folder."""
    if _libc is None:
        return None
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            found = _isolate(method, scratch)
            os.mkdir(os.path.join(scratch, "tried"))
            if os.fork() == 0:
                os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as report:
        said = report.read()
    os.waitpid(pid, 0)
    with suppress(OSError):
        os.rmdir(os.path.join(scratch, "tried"))
    return json.loads(said) if said else None


def _described(found: dict) -> dict:
    how = {
        "pid-namespace": "answers run in a PID namespace: nothing they start outlives the check",
        "user-and-pid-namespace": "answers run in a user and PID namespace: nothing they start outlives the check",
        "subreaper": "answers run under a subreaper that sweeps what they leave (PID namespaces are not allowed here)",
        "none": "answers run as ordinary child processes (this system has no PID namespaces)",
    }[found["method"]]
    extras = [text for key, text in (("read_only", "files are read-only"), ("network", "no network")) if found[key]]
    return {**found, "sentence": how + (f"; {', '.join(extras)}." if extras else ".")}


# ---------------------------------------------------------------- moving into namespaces


def _isolate(method: str, scratch: str) -> dict:
    """Move this process into namespaces. Children forked afterwards live in them. OSError where the method is not to be had."""
    if method == "subreaper":
        _libc.prctl(_SUBREAPER, 1, 0, 0, 0)
        return {"method": method, "network": False, "read_only": False}
    if method == "user-and-pid-namespace":
        uid, gid = os.getuid(), os.getgid()
        if _libc.unshare(_NEWUSER):
            raise OSError("no user namespace")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    flags = _unshared()
    if not flags:
        raise OSError("no PID namespace")
    return {"method": method, "network": bool(flags & _NEWNET), "read_only": bool(flags & _NEWNS) and _read_only(scratch)}


def _unshared() -> int:
    for flags in (_NEWPID | _NEWNS | _NEWNET | _NEWIPC, _NEWPID | _NEWNS, _NEWPID):
        if _libc.unshare(flags) == 0:
            return flags
    return 0


def _read_only(scratch: str) -> bool:
    """Every mount read-only, except an empty folder of this process's own at `scratch` and at /dev/shm."""
    if _libc.mount(None, b"/", None, _REC | _PRIVATE, None):
        return False
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", _ATTR_RDONLY, 0, 0, 0))
    if _libc.syscall(_SYS_MOUNT_SETATTR, -100, b"/", _AT_RECURSIVE, attributes, 32):
        return False
    for folder in (scratch, "/dev/shm"):
        _libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=128m")
    return True


# ---------------------------------------------------------------- the warden


def keep(
    answer: Callable[[], None], theirs: tuple[int, ...], lifeline: int, status: int, scratch: str, method: str, seconds: float, memory: int | None
) -> None:
    """Run `answer` in a contained process until one of the ends named above, say on `status` how it ended, and exit.

    theirs: the descriptors that only the answer may hold, so that their peers see its end.
    seconds: wall clock, for everything; memory: address space on top of what the fork server has (None where there is CUDA, which reserves its own).
    """
    end = {"exit": None, "signal": None, "killed": None}
    folder = os.path.join(scratch, str(os.getpid()))
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        proc = os.open("/proc", os.O_RDONLY) if os.path.isdir("/proc") else -1
        namespace = _isolate(method, scratch)
        os.mkdir(folder)
        report_read, report_write = os.pipe()
        # Without a namespace the answer is the warden's own child; with one, a child of the namespace's first process.
        first = os.fork()
        if first == 0:
            with suppress(BaseException):
                _close(lifeline, status, report_read, proc)
                _libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if namespace["read_only"]:
                    _libc.mount(b"proc", b"/proc", b"proc", 0, None)
                _first_process(answer, theirs, report_write, folder, seconds, memory)
            os._exit(70)
        _close(report_write, *theirs)
        end["killed"] = _watch(report_read, lifeline, proc, seconds)
        wait_status = os.read(report_read, 16) if end["killed"] is None else b""
        _sweep(first, proc)
        if wait_status:
            code = int(wait_status)
            end["exit"], end["signal"] = (os.WEXITSTATUS(code), None) if os.WIFEXITED(code) else (None, os.WTERMSIG(code))
    except BaseException as error:
        end["killed"] = f"warden: {type(error).__name__}: {error}"[:200]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            os.write(status, json.dumps(end).encode())
        os._exit(0)


def _close(*fds: int) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def _first_process(answer: Callable[[], None], theirs: tuple[int, ...], report: int, folder: str, seconds: float, memory: int | None) -> None:
    """PID 1 of the namespace: fork the answer, adopt and reap what it leaves, end when it ends."""
    pid = os.fork()
    if pid == 0:
        _close(report)
        _libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _limit(seconds, memory)
        os.chdir(folder)
        _lend_fonts(folder)
        tempfile.tempdir = None  # asked for before the fork, perhaps
        os.environ.update({name: folder for name in ("TMPDIR", "TEMP", "TMP", "TRITON_CACHE_DIR", "XDG_CACHE_HOME")})
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        answer()
        os._exit(0)
    _close(*theirs)
    while True:
        ended, code = os.wait()
        if ended == pid:
            os.write(report, str(code).encode())
            os._exit(0)


def _lend_fonts(folder: str) -> None:
    """matplotlib's list of fonts where the answer's own cache will be: finding them anew takes seconds."""
    with suppress(OSError):
        kept = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "matplotlib")
        os.mkdir(os.path.join(folder, "matplotlib"))
        for name in os.listdir(kept):
            os.symlink(os.path.join(kept, name), os.path.join(folder, "matplotlib", name))


def _limit(seconds: float, memory: int | None) -> None:
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: _FILE_SIZE,
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_CPU: int(seconds) + 2,
    }
    if memory is not None:
        wanted[resource.RLIMIT_AS] = used + memory
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))


def _watch(report: int, lifeline: int, proc: int, seconds: float) -> str | None:
    """Wait for the answer's end (None), or for a reason to end it ("lifeline", "deadline", "processes")."""
    poll = select.poll()
    poll.register(report, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    deadline = time.monotonic() + seconds
    while True:
        events = dict(poll.poll(_POLL * 1000))
        if lifeline in events:
            return "lifeline"
        if report in events:
            return None
        if time.monotonic() > deadline:
            return "deadline"
        if len(_family(os.getpid(), proc)) > MAX_PROCESSES + 2:  # the first process and the answer itself are no offspring
            return "processes"


def _family(root: int, proc: int) -> list[int]:
    """The descendants of `root`, by what the /proc of this process's own namespace says."""
    found, waiting = [], [root]
    while waiting and len(found) <= 4 * MAX_PROCESSES:
        pid = waiting.pop()
        with suppress(OSError):
            for task in _listed(f"{pid}/task", proc):
                with open(f"{pid}/task/{task}/children", opener=lambda path, flags: os.open(path, flags, dir_fd=proc)) as file:
                    children = [int(child) for child in file.read().split()]
                found += children
                waiting += children
    return found


def _listed(path: str, proc: int) -> list[str]:
    fd = os.open(path, os.O_RDONLY, dir_fd=proc)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def _sweep(first: int, proc: int) -> None:
    """Kill the first process and everything that is left. In a PID namespace the first kill is enough."""
    deadline = time.monotonic() + 5
    targets = [first]
    while time.monotonic() < deadline:
        for pid in targets:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        targets = _family(os.getpid(), proc)
        if not targets:
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)
            return
        time.sleep(0.002)
