"""The fork servers of one judge, and what their children print. Knows nothing of calls or verdicts."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress

from course_lib.paths import ROOT

FORKS = sys.platform == "linux" and hasattr(os, "fork")
_KEEP_FIRST, _KEEP_LAST = 8192, 2048


class Servers:
    """The fork servers of one judge, started when first needed, one a flavour."""

    def __init__(self):
        self._running: dict[str, tuple[subprocess.Popen, socket.socket, str]] = {}
        self._one_at_a_time = threading.Lock()  # trials on a GPU ask from several threads

    def start(self, flavour: str = "interpret") -> None:
        """Start the server of this flavour, if it is not running. It imports torch while the caller goes on."""
        if not FORKS or (flavour in self._running and self._running[flavour][0].poll() is None):
            return
        self._drop(flavour)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        scratch = tempfile.mkdtemp(prefix="course-")
        command = [sys.executable, "-m", "course_lib.grading.forkserver", flavour, str(theirs.fileno()), scratch]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment(flavour), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        theirs.close()
        self._running[flavour] = (process, ours, scratch)

    def fork(self, flavour: str, wanted: dict, fds: list[int]) -> None:
        """Ask for one child that gets these descriptors."""
        with self._one_at_a_time:
            for last_try in (False, True):
                self.start(flavour)
                try:
                    socket.send_fds(self._running[flavour][1], [json.dumps(wanted).encode()], fds)
                    return
                except OSError:
                    self._running[flavour][0].kill()
                    self._running[flavour][0].wait()
                    if last_try:
                        raise

    def _drop(self, flavour: str) -> None:
        if flavour in self._running:
            process, control, scratch = self._running.pop(flavour)
            control.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
            process.kill()
            process.wait()
            shutil.rmtree(scratch, ignore_errors=True)

    def close(self) -> None:
        for flavour in list(self._running):
            self._drop(flavour)


def environment(flavour: str) -> dict[str, str]:
    """The environment of answers: one thread a library, the course importable, nothing of the learner's shell removed."""
    more = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "agg", "PYTHONDONTWRITEBYTECODE": "1"}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    interpret = {"TRITON_INTERPRET": "1"} if flavour == "interpret" else {}
    return {**{k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}, **more, **interpret, "PYTHONPATH": path}


class Output:
    """What a process printed: the first 8 KB and the last 2 KB, read as fast as it comes, however much there is."""

    def __init__(self, fd: int):
        self.head, self.tail, self.total = b"", b"", 0
        self._thread = threading.Thread(target=self._drain, args=(fd,), daemon=True)
        self._thread.start()

    def _drain(self, fd: int) -> None:
        with os.fdopen(fd, "rb", buffering=0) as pipe:
            while part := pipe.read(1 << 16):
                self.total += len(part)
                room = _KEEP_FIRST - len(self.head)
                self.head += part[:room]
                self.tail = (self.tail + part[max(room, 0) :])[-_KEEP_LAST:]

    def text(self) -> str:
        left_out = self.total - len(self.head) - len(self.tail)
        middle = f"\n... {left_out:,} characters left out ...\n".encode() if left_out > 0 else b""
        return (self.head + middle + self.tail).decode("utf-8", "replace")

    def join(self) -> None:
        self._thread.join(1.0)
