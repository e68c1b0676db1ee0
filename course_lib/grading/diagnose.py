"""From what went wrong to what a good teacher would say. Runs mutants (in children), never the learner's answer.

Knows nothing of the order in which a check runs: it gets outcomes, and gives a `Diagnosis`.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from course_lib.grading import compare
from course_lib.grading.probing import AnswerProcess, Ended, Reply
from course_lib.grading.spec import Check, Mutant, Probe
from course_lib.grading.verdict import Diagnosis
from course_lib.source import Exercise

MUTANT_PROBES, MUTANT_SECONDS, EXPLAINED = 6, 3.0, 0.9
CONTRACT = {
    "aliased": "Your function returned (part of) an argument itself, not a new tensor: whoever changes the result changes the input. Return new tensors.",
    "mutated-input": "Your function changed its argument: after the call the input holds other numbers. Look for in-place operations (`+=`, `x[...] =`, methods that end in `_`).",
    "canary": "Your function wrote outside the tensors it was given: the memory beside an argument has changed. Look at the bounds of what you store.",
}
_SIGNALS = {
    11: "A memory fault (segmentation fault)",
    7: "A memory fault (bus error)",
    6: "A failed assertion in compiled code (abort)",
    8: "An arithmetic fault in compiled code",
    9: "The system, most likely because memory ran out,",
}


@dataclass
class Outcome:
    """What one probe (or the second call) came to."""

    name: str
    probe: Probe
    reference: Any = None
    targets: list[compare.Target] = field(default_factory=list)
    reply: Reply | None = None
    ended: Ended | None = None
    findings: list[compare.Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.reply is not None and not self.findings and not self.reply.failure and not self.reply.problems

    @property
    def right(self) -> bool:
        """The values are right, whatever else is wrong."""
        return self.reply is not None and not self.findings and not self.reply.failure

    @property
    def wrong_values(self) -> bool:
        return bool(self.findings) and self.findings[0].kind == "values"

    @property
    def id(self) -> str:
        """The kind of failure, as a diagnosis id; "values" where only numbers are wrong."""
        if self.ended:
            return {"processes": "too-many-processes"}.get(self.ended.kind, self.ended.kind)
        if self.reply.failure:
            return self.reply.failure["kind"]
        devices = [problem for problem in self.reply.problems if problem.startswith("device:")]
        if devices:
            return "device"
        return self.findings[0].kind if self.findings else self.reply.problems[0]


# ---------------------------------------------------------------- sentences


def sentence(outcome: Outcome, limit: float, returns: str) -> str:
    """What was observed on this probe, in words."""
    if outcome.ended:
        return _ended(outcome.ended, limit)
    failure = outcome.reply.failure
    if failure:
        return _failed(failure, returns)
    devices = [problem[7:] for problem in outcome.reply.problems if problem.startswith("device:")]
    if devices:
        holds = " (a tensor on meta has a shape and no numbers)" if devices == ["meta"] else ""
        return f"The result is on the device {devices[0]}{holds}; return it on the device of the inputs."
    if outcome.findings:
        return values(outcome) if outcome.wrong_values else _upper(outcome.findings[0].sentence)
    return contract(outcome.reply.problems)


def contract(problems: list[str]) -> str:
    """The sentence for the first of these broken promises."""
    return CONTRACT.get(problems[0], problems[0])


def _ended(ended: Ended, limit: float) -> str:
    if ended.kind == "timeout":
        return f"No result after {limit:.0f} s; the process was ended. Does every loop reach its end: does its step advance?"
    if ended.kind == "exited":
        return f"Your function ended its own process (exit code {ended.code}) before it returned. Ending without an error is no result: return the values."
    if ended.kind == "crashed":
        hint = "Something read or wrote memory that is not there; in a kernel, look for a load or store without a mask." if ended.code in (7, 11) else "No result came back."
        return f"{_SIGNALS.get(ended.code, f'Signal {ended.code}')} ended the process. {hint}"
    if ended.kind == "processes":
        return "Your function started more than 64 processes. All of them were ended; an answer needs none."
    if ended.kind == "garbled":
        return "What came back could not be read: something else was written to the grader's own connection. Leave file descriptors alone that you did not open."
    return "The connection to the grader was closed before a result came. Leave file descriptors alone that you did not open."


def _failed(failure: dict, returns: str) -> str:
    kind, message, line = failure["kind"], failure["message"], ""
    if failure.get("frames"):
        number, _, source = failure["frames"][-1]
        line = f" (line {number}: `{source}`)"
    if kind == "type":
        return f"Expected {returns}, got {message}."
    if kind == "exit":
        return f"Your function called for the end of the program: {failure['type']}{line}. A function gives its result back with `return`."
    if kind == "interrupt":
        return f"Your function raised KeyboardInterrupt{line}, as if someone had pressed Ctrl-C. Return the values instead."
    if kind == "memory":
        return f"{_memory(message)}{line}."
    if kind == "out-of-range":
        return _upper(message)
    if failure["type"] == "NotImplementedError" and "is not written yet" in message:
        return f"The stub's first line is still there{line}. Delete it: it raises NotImplementedError before your code runs."
    return f"Your function raised {failure['type']}: {message[:300].strip() or '(no message)'}{line}."


def _memory(message: str) -> str:
    asked = re.search(r"tried to allocate ([\d.]+)\s*(bytes|[KMGT]iB)?|allocate ([\d.]+) ([KMGT]iB)", message)
    if not asked:
        return "Your function ran out of memory (4 GB are allowed)"
    amount, unit = float(asked[1] or asked[3]), asked[2] or asked[4]
    size = amount * 1024 ** {"K": 1, "M": 2, "G": 3, "T": 4}.get((unit or "b")[0], 0)
    said = f"{size / 1e9:,.0f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
    return f"Your function asked for {said} of memory in one piece (4 GB are allowed in all)"


def values(outcome: Outcome, whole: bool = True) -> str:
    """Where the numbers of this outcome are wrong. The first wrong leaf speaks; `whole` also says which leaves are right."""
    finding, target = outcome.findings[0], outcome.targets[outcome.findings[0].leaf]
    got = compare.leaves(outcome.reply.result)[finding.leaf]
    if finding.wrong is None:
        return _upper(finding.sentence)
    text = compare.describe(got, target.reference, outcome.probe.axes, outcome.probe.tile, finding.wrong)
    if not target.name:
        return text
    others = [t.name for i, t in enumerate(outcome.targets) if i not in {f.leaf for f in outcome.findings}]
    right = f"{' and '.join(f'`{name}`' for name in others)} {'are' if len(others) > 1 else 'is'} right. " if others and whole else ""
    return f"{right}`{target.name}`: {text[0].lower() if not text.startswith('NaN') else 'N'}{text[1:]}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


# ---------------------------------------------------------------- mutants


@dataclass
class Mutants:
    """The named wrong solutions of one exercise, run against what an answer did."""

    exercise: Exercise
    material: Check
    start: Callable[[], AnswerProcess]
    memo: dict
    seed: int
    sizes: dict = field(default_factory=dict)  # tile sizes of the answer's own launch

    def __post_init__(self):
        self._process: AnswerProcess | None = None
        self._loaded: set[str] = set()
        self.deadline = time.monotonic() + MUTANT_SECONDS

    def explaining(self, outcomes: list[Outcome]) -> Mutant | None:
        """The first mutant that gives the answer's own wrong results on the failing probes, and right ones elsewhere."""
        chosen = _chosen(outcomes)
        failing, passing = [o for o in chosen if not o.right], [o for o in chosen if o.right]
        return self._first(lambda mutant: self._explains(mutant, failing) and all(self._is_right(mutant, o) for o in passing))

    def breaking(self, outcomes: list[Outcome], breaks: Callable[[Callable], bool]) -> Mutant | None:
        """The first mutant that is right on the probes and breaks the same property."""
        chosen = _chosen(outcomes)
        return self._first(lambda mutant: all(self._is_right(mutant, o) for o in chosen) and breaks(lambda *a, **k: self.call(mutant, *a, **k)))

    def _first(self, fits: Callable[[Mutant], bool]) -> Mutant | None:
        try:
            for mutant in self.material.mutants:
                if time.monotonic() > self.deadline:
                    return None
                if mutant.rule is None and fits(mutant):
                    return mutant
            return None
        finally:
            self.close()

    def _explains(self, mutant: Mutant, failing: list[Outcome]) -> bool:
        misses = 0
        for outcome in failing:
            misses += not self._same_mistake(mutant, outcome)
            if misses > (1 - EXPLAINED) * len(failing):
                return False
        return bool(failing)

    def _same_mistake(self, mutant: Mutant, outcome: Outcome) -> bool:
        reply = self._reply(mutant, outcome)
        if reply is None or outcome.reply is None:
            return False
        if reply.failure or outcome.reply.failure:
            return bool(reply.failure and outcome.reply.failure and reply.failure["type"] == outcome.reply.failure["type"])
        if not compare.judge(reply.result, outcome.reference, outcome.targets):
            return False
        return compare.close(outcome.reply.result, reply.result, outcome.targets)

    def _is_right(self, mutant: Mutant, outcome: Outcome) -> bool:
        reply = self._reply(mutant, outcome)
        return reply is not None and not reply.failure and not compare.judge(reply.result, outcome.reference, outcome.targets)

    def _reply(self, mutant: Mutant, outcome: Outcome) -> Reply | None:
        key = (self.exercise.name, self.seed, mutant.id, outcome.name, tuple(sorted(self.sizes.items())))
        if key not in self.memo:
            probe = outcome.probe
            try:
                self.memo[key] = self._call(mutant, probe.args, probe.kwargs, probe.layout)
            except Ended:
                self.close()
                self.memo[key] = None
        return self.memo[key]

    def call(self, mutant: Mutant, *args: Any, layout: str = "contiguous", **kwargs: Any) -> Any:
        reply = self._call(mutant, args, kwargs, layout)
        if reply.failure:
            raise ValueError(reply.failure["message"])
        return reply.result

    def _call(self, mutant: Mutant, args: tuple, kwargs: dict, layout: str) -> Reply:
        if self._process is None:
            self._process, self._loaded = self.start(), set()
        if mutant.id not in self._loaded:
            failure = self._process.load(mutant.id, self._text(mutant), self.exercise.name, self.deadline + 1)
            if failure:
                return Reply(failure=failure)
            self._loaded.add(mutant.id)
        return self._process.call(mutant.id, args, kwargs, layout, self.deadline + 1)

    def _text(self, mutant: Mutant) -> str:
        text = f"{self.exercise.preamble}\n\n{mutant.text(self.exercise.solution)}"
        for name, value in self.sizes.items():
            text = re.sub(rf"\b{re.escape(name)}(\s*=\s*)\d+", rf"{name}\g<1>{value}", text)
        return text

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def _chosen(outcomes: list[Outcome]) -> list[Outcome]:
    """At most six probes: those meant for it; where none of these fails, the failing ones too."""
    usable = [o for o in outcomes if o.reply is not None]
    chosen = [o for o in usable if o.probe.diagnose][:MUTANT_PROBES]
    if all(o.right for o in chosen):
        chosen = [o for o in usable if not o.right][:2] + chosen[: MUTANT_PROBES - 2]
    return chosen


def by_rule(material: Check, id: str) -> Mutant | None:
    """The mutant that stands for this rule or contract diagnosis, if the exercise has one."""
    return next((mutant for mutant in material.mutants if mutant.rule == id), None)


def not_finite(outcome: Outcome) -> Diagnosis | None:
    """NaN everywhere, or NaN and infinities where numbers belong."""
    got = [leaf for leaf in compare.leaves(outcome.reply.result) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.numel()]
    if got and all(bool(leaf.isnan().all()) for leaf in got):
        return Diagnosis("nan-everywhere", "Every number of the result is NaN. Memory from `torch.empty` that nobody wrote is NaN here; so are inf - inf and 0 / 0. Which line makes the first one?")
    finding = outcome.findings[0]
    leaf, target = compare.leaves(outcome.reply.result)[finding.leaf], outcome.targets[finding.leaf]
    if finding.wrong is None or not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
        return None
    if bool((~leaf.isfinite() & target.reference.isfinite())[finding.wrong].all()):
        kinds = {True: "NaN", False: "inf"}[bool(leaf[finding.wrong].isnan().any())]
        return Diagnosis("not-finite", f"{values(outcome)} Everything else is right. Which line makes {'the first NaN: inf - inf, 0 / 0, or memory never written' if kinds == 'NaN' else 'an infinity: an exp that overflows, or a division by 0'}?")
    return None
