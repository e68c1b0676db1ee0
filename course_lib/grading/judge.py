"""The judge: draws inputs, holds references and mutants, compares raw results, decides. The answer runs elsewhere.

A process of its own (`python -m course_lib.grading.judge`): one JSON line in, {"id", "exercise", "text", "seed"}, one JSON
line out, {"id", "verdict"}. It ends with its client, or after ten idle minutes. Nothing an answer does can reach it: what
comes back is raw bytes, and everything that goes wrong becomes a verdict.
"""

import ast
import json
import os
import queue
import random
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict

import torch

from course_lib import hardware
from course_lib.grading import ahead, catalogue, diagnose, excerpt, lines
from course_lib.grading.servers import FORKS, Servers
from course_lib.grading.trial import Findings, Trial
from course_lib.grading.verdict import Diagnosis, Verdict
from course_lib.source import Exercise, fingerprint

IDLE = 600.0
RACES = "The interpreter runs the programs of a kernel one after another: a race between two of them does not show here."
NOT_COMPILED = "Whether the kernel compiles for a GPU could not be tried here."
_MOST_SHARING = 4
_TRITON = hardware.has_triton()


class Judge:
    """Checks one answer at a time; keeps the fork servers warm."""

    def __init__(self):
        self.servers = Servers()
        self.servers.start("interpret")
        self.memo: dict = {}

    def check(self, name: str, text: str, seed: int | None = None) -> Verdict:
        """The verdict on `text` as the answer to exercise `name`. Never raises on an answer."""
        started = time.monotonic()
        seed = random.SystemRandom().randrange(10_000) if seed is None else int(seed)
        try:
            exercise = catalogue.find(name)
        except catalogue.UnknownExercise as error:
            return Verdict(name, 0, "error", 0, 0, Diagnosis("unknown-exercise", str(error)))
        verdict = Verdict(name, exercise.chapter, "error", 0, exercise.points, tier="interpreter", details={"seed": seed})
        try:
            verdict.tier = hardware.tier()
            if len(self.memo) > 3000:
                self.memo.clear()
            _decide(verdict, exercise, text, seed, self)
        except Exception as error:
            verdict.status, verdict.points = "error", 0
            verdict.diagnosis = Diagnosis(
                "internal",
                f"The grader itself failed ({type(error).__name__}: {str(error)[:200]}). This is the course's fault, not yours. "
                f"Please report it with the exercise ({name}), the seed ({seed}) and the details below.",
            )
            verdict.details["traceback"] = traceback.format_exc()[-4000:]
        verdict.seconds = time.monotonic() - started
        return verdict

    def close(self) -> None:
        self.servers.close()


# ---------------------------------------------------------------- before anything runs


def _decide(verdict: Verdict, exercise: Exercise, text: str, seed: int, judge: Judge) -> None:
    material = catalogue.checks(exercise.chapter).get(exercise.name)
    if material is None:
        raise LookupError(f"{exercise.name} has no grading material")
    problem = _unreadable(text, exercise.name)
    if problem is None and _is_stub(text, exercise):
        verdict.status = "not_attempted"
        verdict.diagnosis = Diagnosis(
            "not-attempted", f"{exercise.name} is still the stub. Write it, then check again; hint({exercise.name!r}) gives the first hint."
        )
        return
    if problem:
        verdict.status, verdict.diagnosis = "error", problem
        return
    if exercise.kind == "triton" and not _TRITON:
        verdict.status, verdict.diagnosis = "blocked", Diagnosis("needs-triton", hardware.blocked("triton") or "")
        return
    with Trial(exercise, material, text, seed, judge.servers) as trial:
        if exercise.kind == "triton":
            judge.servers.start("compiled")  # it imports while the interpreter works
        found = trial.run()
        if not _conclude(verdict, trial, found, judge.memo) or exercise.kind != "triton":
            return
        if verdict.tier == "interpreter":
            _compile(verdict, trial, found)
            return
        _run_compiled(verdict, trial, found, judge)


def _conclude(verdict: Verdict, trial: Trial, found: Findings, memo: dict) -> bool:
    """Fill in the verdict from what the trial found; whether it passed. Points are all or nothing."""
    verdict.cases, verdict.points, verdict.diagnosis = found.cases, 0, None
    if trial.load_failure:
        verdict.status, verdict.diagnosis = "error", diagnose.not_loaded(trial.load_failure)
        verdict.details["traceback"] = excerpt.traceback(trial.load_failure)
    elif found.failing or found.late or found.properties or any(not rule.review for rule, _ in found.rules):
        verdict.status = "timeout" if any(case.status == "timeout" for case in found.cases) else "failed"
        verdict.diagnosis = diagnose.diagnosed(trial, found, memo)
        told = any(item.speaks for item, _ in found.properties)  # a history in words: the call of a harness beside it would only confuse
        shown = None if told else diagnose.speaking(found)
        verdict.details.update(excerpt.of(shown, trial.exercise, trial.seed, trial.material.harness) if shown is not None else {})
    elif found.rules:
        rule, said = found.rules[0]
        verdict.status, verdict.diagnosis = "needs_review", Diagnosis(rule.id, f"{said} The values are right; a person needs to look at it.")
    else:
        verdict.status, verdict.points = "passed", verdict.max_points
    trial.close()
    verdict.details["printed"] = trial.printed
    return verdict.status == "passed"


def _compile(verdict: Verdict, trial: Trial, found: Findings) -> None:
    """Without a GPU: what passed in the interpreter must compile as well. What could not be seen here is said."""
    case, refused = ahead.compile_all(trial, found)
    verdict.cases = [*verdict.cases, *([case] if case else [])]
    verdict.details["notes"] = [RACES] if case is not None and case.status != "blocked" else [RACES, NOT_COMPILED]
    if refused:
        verdict.status, verdict.points, verdict.diagnosis = "failed", 0, refused


def _run_compiled(verdict: Verdict, trial: Trial, found: Findings, judge: Judge) -> None:
    """With a GPU: what passed in the interpreter must pass there as well. Compiling is most of the wait, so several processes share the probes."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        # the same verdict on every GPU, also where TF32 happens to be close enough, or is not to be had
        asked = pool.submit(ahead.compile_all, trial, found) if trial.material.exact_float32 else None
        copies = [Trial(trial.exercise, trial.material, trial.text, trial.seed, judge.servers, "compiled") for _ in range(_sharing())]
        on_gpu, *others = map(stack.enter_context, copies)
        seen, cases = on_gpu.run_probes(others), verdict.cases
        case, refused = asked.result() if asked else (None, None)
        if refused and refused.id == "tf32":
            verdict.status, verdict.points, verdict.diagnosis, verdict.cases = "failed", 0, refused, [*cases, case]
            return
        passed = _conclude(verdict, on_gpu, seen, judge.memo)
    verdict.cases = cases + seen.cases
    if not passed:
        said = verdict.diagnosis
        verdict.diagnosis = Diagnosis(said.id, f"Right in the interpreter, wrong when compiled for the GPU. {said.message}")


def _sharing() -> int:
    """Processes that share the probes on a GPU: each compiles on one core, and has a CUDA context of its own."""
    return min(_MOST_SHARING, len(os.sched_getaffinity(0))) if FORKS else 1


def _unreadable(text: str, name: str) -> Diagnosis | None:
    """A diagnosis where the text is not Python, or does not define the exercise."""
    try:
        compile(text, "answer", "exec", dont_inherit=True)
        tree = ast.parse(text)
    except SyntaxError as error:
        where, line = lines.place(text, error.lineno or 0), (error.text or "").strip()
        shown = ": ".join(part for part in (where, f"`{line[:120]}`" if line else "") if part)
        return Diagnosis("syntax", f"Your answer is not Python yet: {error.msg}{', ' if shown else ''}{shown}.")
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return Diagnosis("syntax", f"Your answer cannot be read as Python ({type(error).__name__}: {error}).")
    bound = {getattr(node, "name", None) for node in tree.body}
    bound |= {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)}
    bound |= {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    if name not in bound:
        return Diagnosis("missing", f"Your answer defines no function {name}. Keep the name that the stub gave it.")
    return None


def _is_stub(text: str, exercise: Exercise) -> bool:
    own, given = _definition(text, exercise.name), _definition(exercise.stub, exercise.name)
    return own is not None and given is not None and fingerprint(own) == fingerprint(given)


def _definition(text: str, name: str) -> str | None:
    """The source of the last top-level definition of that name, without decorators."""
    found = [node for node in ast.parse(text).body if getattr(node, "name", None) == name]
    return "\n".join(text.splitlines()[found[-1].lineno - 1 : found[-1].end_lineno]) if found else None


# ---------------------------------------------------------------- the process


def main() -> None:
    """Serve the client that started this process."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever prints here must not end up among the verdicts
    requests: queue.Queue = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    torch.set_num_threads(1)
    judge = Judge()
    out.write(json.dumps({"ready": True}) + "\n")
    while True:
        try:
            request = requests.get(timeout=IDLE)
        except queue.Empty:
            break
        verdict = judge.check(str(request.get("exercise")), str(request.get("text")), request.get("seed"))
        out.write(json.dumps({"id": request.get("id"), "verdict": asdict(verdict)}) + "\n")
    judge.close()


def _listen(requests: queue.Queue) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)  # the client is gone; the fork server and every answer end with this process


if __name__ == "__main__":
    main()
