"""Grade many submissions at once: a few workers, a report that grows as they go, and none of them able to end the others.

A worker that is lost is replaced and its submission repeated once; one that loses its worker twice gets a verdict that says
so. An answer that ran out of time beside others is graded once more with the machine to itself, so that a busy machine
costs nobody points. Knows nothing of formats.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from course_lib.commands.grade_submissions import Submission
from course_lib.grading.verdict import Diagnosis, Verdict
from course_lib.paths import ROOT

START, SILENCE = 180.0, 240.0  # seconds until a worker is ready; between two of its lines (a check ends after 50 s, a judge starts within 90)
_LOST = "Grading this submission ended the grader's own process, twice. Nothing else was affected. Grade it by itself to see why."


class WorkerLost(Exception):
    """The worker process ended, or said nothing for too long. `at`: the exercise it was at."""

    def __init__(self, at: str | None):
        super().__init__(at)
        self.at = at


@dataclass
class Graded:
    """One submission with its verdicts; answers: the texts of those that need a person."""

    submission: Submission
    verdicts: list[Verdict]
    answers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Worker:
    """A worker process, started when first needed and again whenever it is gone."""

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._lines: queue.Queue = queue.Queue()

    def grade(self, submission: Submission, exercises: list[str], seed: int) -> tuple[list[Verdict], dict[str, str]]:
        """The verdicts. WorkerLost where the process is lost."""
        if self._process is None:
            self._start()
        wanted, at = request(submission, exercises, seed), None
        try:
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()
            while "results" not in (said := self._line(SILENCE)):
                at = said.get("at", at)
        except (OSError, queue.Empty, EOFError, ValueError):
            self.kill()
            raise WorkerLost(at) from None
        return [Verdict.from_json(one) for one in said["results"]], said["answers"]

    def _start(self) -> None:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "course_lib.commands.grade_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            text=True,
            encoding="utf-8",
        )
        self._lines = queue.Queue()
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        try:
            self._line(START)
        except (queue.Empty, EOFError, ValueError):
            self.kill()
            raise WorkerLost(None) from None

    def _line(self, seconds: float) -> dict:
        line = self._lines.get(timeout=seconds)
        if line is None:
            raise EOFError
        return json.loads(line)

    def kill(self) -> None:
        """End the process now; its judge and the answers end with it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError, ValueError):
                    pipe.close()

    def close(self) -> None:
        """Let the process end by itself."""
        if self._process is not None:
            with suppress(OSError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        self.kill()


def request(submission: Submission, exercises: list[str], seed: int) -> dict:
    """What a worker is asked."""
    wanted = {"files": [os.fspath(path) for path in submission.files], "root": os.fspath(submission.root)}
    return {**wanted, "exercises": exercises, "seed": seed, "trouble": submission.trouble}


def _read(pipe, lines: queue.Queue) -> None:
    with suppress(ValueError, OSError):
        for line in pipe:
            lines.put(line)
    lines.put(None)


def grade_all(
    submissions: Iterable[Submission],
    exercises: list[str],
    seed: int,
    jobs: int,
    done: Callable[[Graded], None],
    worker: Callable[[], Worker] | None = None,
) -> None:
    """Grade each submission, `jobs` at a time; `done` is called in this thread with each, as soon as it is final."""
    waiting: queue.Queue = queue.Queue()
    for submission in submissions:
        waiting.put(submission)
    finished: queue.Queue = queue.Queue()
    workers = [(worker or Worker)() for _ in range(max(1, min(jobs, waiting.qsize())))]
    threads = [threading.Thread(target=_work, args=(one, waiting, finished, exercises, seed), daemon=True) for one in workers]
    left, late = waiting.qsize(), []
    try:
        for thread in threads:
            thread.start()
        while left:
            graded = _next(finished)
            left -= 1
            if len(workers) > 1 and _timed_out(graded):
                late.append(graded)
            else:
                done(graded)
        for one in workers[1:]:
            one.close()
        for graded in late:
            done(_once_more(workers[0], graded, seed))
    except BaseException:
        for one in workers:
            one.kill()
        raise
    for one in workers:
        one.close()


def _next(finished: queue.Queue) -> Graded:
    while True:  # short waits: Ctrl-C comes through
        with suppress(queue.Empty):
            found = finished.get(timeout=0.2)
            if isinstance(found, BaseException):
                raise found
            return found


def _work(worker: Worker, waiting: queue.Queue, finished: queue.Queue, exercises: list[str], seed: int) -> None:
    while True:
        try:
            submission = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            finished.put(_one(worker, submission, exercises, seed))
        except BaseException as error:  # a mistake of the course's own: it ends the run, with its traceback
            finished.put(error)
            return


def _one(worker: Worker, submission: Submission, exercises: list[str], seed: int) -> Graded:
    began = time.monotonic()
    lost: list[str | None] = []
    while len(lost) < 2:
        try:
            verdicts, answers = worker.grade(submission, exercises, seed)
            break
        except WorkerLost as error:
            lost.append(error.at)
    else:
        verdicts, answers = _without(worker, submission, exercises, seed, lost[-1]), {}
    for verdict in verdicts:
        verdict.details = {"seed": verdict.details.get("seed", seed)}
    return Graded(submission, verdicts, answers, time.monotonic() - began)


def _without(worker: Worker, submission: Submission, exercises: list[str], seed: int, at: str | None) -> list[Verdict]:
    """What can still be said of a submission that takes its worker along: the exercises apart from the one that does it."""
    others = [name for name in exercises if name != at]
    found: dict[str, Verdict] = {}
    if at is not None and others:
        with suppress(WorkerLost):
            found = {verdict.exercise: verdict for verdict in worker.grade(submission, others, seed)[0]}
    return [found.get(name) or _lost(name) for name in exercises]


def _lost(name: str) -> Verdict:
    from course_lib.grading import catalogue

    exercise = catalogue.find(name)
    return Verdict(name, exercise.chapter, "error", 0, exercise.points, Diagnosis("grader", _LOST))


def _timed_out(graded: Graded) -> bool:
    return any(verdict.status == "timeout" for verdict in graded.verdicts)


def _once_more(worker: Worker, graded: Graded, seed: int) -> Graded:
    """The same submission with its timeouts graded again, alone."""
    again = _one(worker, graded.submission, [v.exercise for v in graded.verdicts if v.status == "timeout"], seed)
    newer = {verdict.exercise: verdict for verdict in again.verdicts}
    verdicts = [newer.get(verdict.exercise, verdict) for verdict in graded.verdicts]
    return Graded(graded.submission, verdicts, {**graded.answers, **again.answers}, graded.seconds + again.seconds)


def as_line(graded: Graded) -> dict:
    """The line of the report."""
    results = [{**verdict.contract(), "seed": verdict.details.get("seed")} for verdict in graded.verdicts]
    one = graded.submission
    line = {"student": one.student, "source": one.source, "fingerprint": one.fingerprint, "seconds": round(graded.seconds, 3)}
    return {**line, "notes": one.notes, "results": results, "answers": graded.answers}


def verdicts_of(line: dict) -> list[Verdict]:
    """The verdicts in a line of the report."""
    found = []
    for result in line["results"]:
        result = dict(result)
        seed = result.pop("seed", None)
        found.append(Verdict.from_json({**result, "details": {} if seed is None else {"seed": seed}}))
    return found
