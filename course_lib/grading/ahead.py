"""After an answer has passed in the interpreter: would its kernels compile for a GPU? Asks a child of the other flavour; needs no GPU.

The interpreter runs what the compiler refuses: torch inside a kernel, a loop over a list, a `tl.dot` that no tensor core has.
"""

import re
import time

from course_lib.grading.probing import AnswerProcess, Ended
from course_lib.grading.sentences import at_line, upper
from course_lib.grading.trial import Findings, Trial
from course_lib.grading.verdict import Case, Diagnosis

NAME = "compiles for a GPU (sm_80)"
_MOST, _SECONDS = 6, 10.0
_KIND = re.compile(r"constexpr|i1|i8|i16|i32|i64|u8|fp32|\*(?:i1|i8|i16|i32|i64|u8|fp16|bf16|fp32|fp64)")


def compile_all(trial: Trial, found: Findings) -> tuple[Case | None, Diagnosis | None]:
    """(the case, the diagnosis where a kernel is refused); (None, None) where nothing was launched that could be compiled."""
    launches = _launches(found)
    if not launches:
        return None, None
    began = time.monotonic()
    deadline = began + _SECONDS
    try:
        with AnswerProcess(trial.servers, trial.exercise.name, _SECONDS + 15, "compiled") as process:
            failure = process.load("answer", trial.text, trial.exercise.name, deadline)
            for launch in launches:
                failure = failure or process.compile("answer", launch, deadline)
    except Ended as ended:
        failure = {"kind": "untried", "message": ended.kind}
    seconds = time.monotonic() - began
    if failure is None:
        return Case(NAME, "passed", "", seconds), None
    if failure["kind"] == "untried":  # the compiler's trouble, not the answer's
        return Case(NAME, "blocked", f"This could not be tried here ({failure['message'][:200]}).", seconds), None
    line = f" ({at_line(failure)})" if failure["frames"] else ""
    said = f"{failure['message'].rstrip('.')}{line}."
    diagnosis = Diagnosis("will-not-compile", f"Right in the interpreter, will not compile: {said}")
    return Case(NAME, "failed", upper(said), seconds), diagnosis


def _launches(found: Findings) -> list[dict]:
    """The different ways in which kernels were launched, as far as the compiler can be told of them."""
    seen: list[dict] = []
    for outcome in found.outcomes:
        for launch in outcome.reply.evidence.launches if outcome.reply else ():
            told = {name: launch.get(name) for name in ("kernel", "signature", "constants", "options")}
            if told not in seen and _sound(told):
                seen.append(told)
    return seen[:_MOST]


def _sound(launch: dict) -> bool:
    """Whether it is what the child should have sent."""
    parts = [launch[name] for name in ("signature", "constants", "options")]
    if not isinstance(launch["kernel"], str) or not all(isinstance(part, dict) and all(isinstance(n, str) for n in part) for part in parts):
        return False
    kinds = launch["signature"].values()
    return bool(kinds) and all(isinstance(kind, str) and _KIND.fullmatch(kind) for kind in kinds)
