"""The fork server: imports torch and triton once, then forks a contained answer child in a few milliseconds.

It executes no torch operation and asks CUDA nothing: one parallel operation here and every child's hangs, one question to
CUDA and every child fails with "Cannot re-initialize CUDA". Two flavours, because interpreted and compiled kernels cannot
share a process: `interpret` (TRITON_INTERPRET=1, set before triton is imported) and `compiled`.

Started by the judge as `python -m course_lib.grading.forkserver FLAVOUR CONTROL_FD SCRATCH`. Each message on the control
socket asks for one child and carries four descriptors: its channel, its lifeline, its output pipe, its status pipe. It ends
with the control socket. Linux only: elsewhere the judge starts a cold process a check (`python -m course_lib.grading.child`).
"""

import json
import os
import shutil
import signal
import socket
import sys
from functools import partial


def main(flavour: str, control_fd: int, scratch: str) -> None:
    if flavour == "interpret":
        os.environ["TRITON_INTERPRET"] = "1"
    else:
        os.environ.pop("TRITON_INTERPRET", None)
    from course_lib.grading import contain

    method = contain.working_method(scratch)  # forks, so before torch makes this process a large one
    import torch

    from course_lib.grading import child  # imports triton where there is one

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens are not waited for
    control = socket.socket(fileno=control_fd)
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 16, 4)
        if not message:
            break
        if os.fork() == 0:
            _become_warden(control, json.loads(message), fds, child.run, partial(contain.keep, scratch=scratch, method=method))
        for fd in fds:
            os.close(fd)
    shutil.rmtree(scratch, ignore_errors=True)


def _become_warden(control: socket.socket, wanted: dict, fds: list[int], run, keep) -> None:
    try:
        os.setsid()
        control.close()
        channel, lifeline, output, status = fds
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        answer = partial(run, channel, output, wanted["exercise"])
        keep(answer, (channel, output), lifeline, status, seconds=wanted["seconds"], memory=wanted["memory"])
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
