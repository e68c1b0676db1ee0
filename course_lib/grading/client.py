"""The notebook's or shell's side of the judge: start it when first needed, ask it, replace it when it is gone.

Knows nothing of how answers are graded. One judge process a client process; it ends with its client. A check has an
overall deadline after which the judge is killed (everything it started ends with it) and the verdict is a timeout.
"""

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress

from course_lib.grading.verdict import Diagnosis, Verdict
from course_lib.paths import ROOT

DEADLINE, START = 50.0, 90.0  # a GPU machine compiles as well: the trial in the interpreter, then up to 30 s
_LOST = "The grader's own process ended twice without a verdict. This is the course's fault: please report it, with what `course doctor` says."


class JudgeLost(Exception):
    """The judge process ended before it gave a verdict."""


class Judge:
    """A judge process, started at the first check. Safe to use from several threads; checks queue up."""

    def __init__(self, deadline: float = DEADLINE, environment: dict[str, str] | None = None):
        self.deadline, self.environment = deadline, environment or {}
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._process: subprocess.Popen | None = None
        self._lines: queue.Queue = queue.Queue()
        self._ready = False
        self._asked = 0

    def start(self) -> None:
        """Start the process without waiting for it: the first check finds it warm."""
        with self._starting:  # the first check may come while another thread is at it
            if self._process is None or self._process.poll() is not None:
                self._start()

    def _start(self) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "course_lib.grading.judge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, **self.environment},
            start_new_session=True,  # Ctrl-C in the client's terminal is the client's to handle
            text=True,
            encoding="utf-8",
        )
        self._lines, self._ready = queue.Queue(), False
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()

    def check(self, exercise: str, text: str, seed: int | None = None) -> Verdict:
        """The verdict on `text` as the answer to `exercise`. KeyboardInterrupt ends the check and everything it started."""
        with self._lock:
            try:
                for last_try in (False, True):
                    try:
                        return self._ask(exercise, text, seed)
                    except JudgeLost:
                        self.kill()
                        if last_try:
                            return _made_up(exercise, "error", "internal", _LOST, 0.0)
            except BaseException:  # Ctrl-C, or the client is going down
                self.kill()
                raise
        raise AssertionError("unreachable")

    def _ask(self, exercise: str, text: str, seed: int | None) -> Verdict:
        self.start()
        if not self._ready:
            if not self._line(time.monotonic() + START).get("ready"):
                raise JudgeLost
            self._ready = True
        self._asked += 1
        started = time.monotonic()
        try:
            self._process.stdin.write(json.dumps({"id": self._asked, "exercise": exercise, "text": text, "seed": seed}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise JudgeLost from error
        try:
            reply = self._line(started + self.deadline)
        except queue.Empty:
            self.kill()
            message = f"No verdict after {self.deadline:.0f} s, so the check was ended, and everything your answer had started. Does every loop reach its end?"
            return _made_up(exercise, "timeout", "timeout", message, self.deadline)
        if reply.get("id") != self._asked:
            raise JudgeLost
        return Verdict.from_json(reply["verdict"])

    def _line(self, deadline: float) -> dict:
        """The next line of the judge; queue.Empty at the deadline. Waits in short steps, so that Ctrl-C comes through."""
        while True:
            try:
                line = self._lines.get(timeout=min(0.2, max(deadline - time.monotonic(), 0.001)))
            except queue.Empty:
                if time.monotonic() >= deadline:
                    raise
                continue
            if line is None:
                raise JudgeLost
            with suppress(ValueError):
                return json.loads(line)

    def kill(self) -> None:
        """End the judge now. Its fork servers and answers end with it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError, ValueError):
                    pipe.close()

    def close(self) -> None:
        """Let the judge end by itself, and wait for it."""
        if self._process is not None:
            with suppress(OSError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(3)
        self.kill()


def _read(pipe, lines: queue.Queue) -> None:
    with suppress(ValueError, OSError):
        for line in pipe:
            lines.put(line)
    lines.put(None)


def _made_up(exercise: str, status: str, id: str, message: str, seconds: float) -> Verdict:
    """A verdict that no judge gave."""
    from course_lib.grading import catalogue

    try:
        found = catalogue.find(exercise)
        chapter, points = found.chapter, found.points
    except ValueError:
        chapter, points = 0, 0
    return Verdict(exercise, chapter, status, 0, points, Diagnosis(id, message), seconds=seconds)


_judges: dict[int, Judge] = {}
_making = threading.Lock()


def get_judge() -> Judge:
    """This process's judge."""
    with _making:
        if os.getpid() not in _judges:
            _judges.clear()  # a forked process has its parent's: not its own
            _judges[os.getpid()] = Judge()
            atexit.register(_judges[os.getpid()].close)
        return _judges[os.getpid()]
