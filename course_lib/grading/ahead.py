"""After an answer has passed in the interpreter: would its kernels compile for a GPU? Asks a child of the other flavour; needs no GPU.

The interpreter runs what the compiler refuses: torch inside a kernel, a loop over a list, a `tl.dot` that no tensor core has.
"""

import re
import time
from collections.abc import Iterator

from course_lib.grading.load import busy
from course_lib.grading.mutants import by_rule
from course_lib.grading.probing import AnswerProcess, Ended
from course_lib.grading.sentences import at_line, upper
from course_lib.grading.trial import Findings, Trial
from course_lib.grading.verdict import Case, Diagnosis

_MOST, _SECONDS = 6, 10.0
ROUNDED = "on a GPU a product of float32 tiles is rounded to TF32, 10 bits of 23"
EXACT = '`input_precision="ieee"` in that `tl.dot` keeps it exact.'
_ELEMENT = r"(?:i1|i8|i16|i32|i64|u8|fp16|bf16|fp32|fp64)"
_HALF = re.compile(r"fp16|bf16")
_KIND = re.compile(rf"constexpr|i1|i8|i16|i32|i64|u8|fp32|\*{_ELEMENT}|tensordesc<{_ELEMENT}\[\d+(?:, \d+){{0,4}}\]>")


def compile_all(trial: Trial, found: Findings) -> tuple[Case | None, Diagnosis | None]:
    """(the case, the diagnosis where a kernel is refused); (None, None) where nothing was launched.

    Where the compiler cannot be told of a launch, the case is blocked and says so.
    """
    launches, untold = _launches(found)
    if not launches and not untold:
        return None, None
    target = _target(trial.text, launches)
    name = f"compiles for a GPU (sm_{target})"
    untried = f"Whether `{untold[0]}` compiles could not be tried: the compiler cannot be told here of one of its arguments." if untold else ""
    if not launches:
        return Case(name, "blocked", untried), None
    began = time.monotonic()
    limit = _SECONDS * busy()
    deadline = began + limit
    failures: list[dict | None] = []
    try:
        with AnswerProcess(trial.servers, trial.exercise.name, limit + 15, "compiled") as process:
            failures.append(process.load("answer", trial.text, trial.exercise.name, deadline))
            for launch in launches:
                if failures[0] or (failures[-1] and failures[-1]["kind"] != "untried"):  # one is enough, and the time is short
                    break
                exact = trial.material.exact_float32 and not _HALF.search(str(launch["signature"]))
                failures.append(process.compile("answer", {**launch, "target": target, "exact": exact}, deadline))
    except Ended as ended:
        failures.append({"kind": "untried", "message": ended.kind})
    seconds = time.monotonic() - began
    failures = [failure for failure in failures if failure]
    failure = next((failure for failure in failures if failure["kind"] != "untried"), None)
    if failure is None:  # what could not be tried is the compiler's trouble, not the answer's
        untried = f"This could not be tried here ({failures[0]['message'][:200]})." if failures else untried
        return Case(name, "blocked" if untried else "passed", untried, seconds), None
    line = f" ({at_line(failure)})" if failure["frames"] else ""
    if failure["kind"] == "tf32":
        mutant = by_rule(trial.material, "tf32")
        said = f"Right in the interpreter, which rounds nothing; {ROUNDED}{line}."
        return Case(name, "failed", upper(f"{ROUNDED}{line}."), seconds), Diagnosis("tf32", f"{said} {mutant.message if mutant else EXACT}")
    said = f"{failure['message'].rstrip('.')}{line}."
    diagnosis = Diagnosis("will-not-compile", f"Right in the interpreter, will not compile: {said}")
    return Case(name, "failed", upper(said), seconds), diagnosis


def _launches(found: Findings) -> tuple[list[dict], list[str]]:
    """(the different ways in which kernels were launched, as far as the compiler can be told of them; the kernels it cannot be told of)."""
    seen: list[dict] = []
    untold: list[str] = []
    for outcome in found.outcomes:
        for launch in outcome.reply.evidence.launches if outcome.reply else ():
            told = {name: launch.get(name) for name in ("kernel", "signature", "constants", "options")}
            if not _sound(told):
                untold.append(str(told["kernel"])[:80])
            elif told not in seen:
                seen.append(told)
    return seen[:_MOST], untold


def _target(text: str, launches: list[dict]) -> int:
    """sm_90 where tensor descriptors are used: only from there on do they become TMA, with its own limits."""
    by_host = any(kind.startswith("tensordesc") for launch in launches for kind in _flat(launch["signature"].values()))
    return 90 if by_host or "make_tensor_descriptor" in text else 80


def _sound(launch: dict) -> bool:
    """Whether it is what the child should have sent."""
    parts = [launch[name] for name in ("signature", "constants", "options")]
    if not isinstance(launch["kernel"], str) or not all(isinstance(part, dict) and all(isinstance(n, str) for n in part) for part in parts):
        return False
    kinds = list(_flat(launch["signature"].values()))
    return bool(kinds) and all(isinstance(kind, str) and _KIND.fullmatch(kind) for kind in kinds)


def _flat(kinds) -> Iterator:
    """The kinds of all arguments, those within tuples one by one."""
    for kind in kinds:
        if isinstance(kind, tuple):
            yield from _flat(kind)
        else:
            yield kind
