"""What one call of an answer came to, and the sentence that says what was observed. Knows no mutants and no verdicts."""

import re
from dataclasses import dataclass, field
from typing import Any

import torch

from course_lib.grading import compare
from course_lib.grading.load import overbooked
from course_lib.grading.probing import Ended, Reply
from course_lib.grading.spec import Probe

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


_DOT = (
    "It says no more, and asks for two things: both factors are two-dimensional tiles, and an accumulator that it is handed has the product's shape and "
    "is float32, for float16 inputs too."
)


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
    stale: bool = False  # the very result of an earlier call on other data
    kernel: bool = False  # the exercise is a Triton kernel

    @property
    def ok(self) -> bool:
        return self.reply is not None and not self.findings and not self.reply.failure and not self.reply.problems

    @property
    def right(self) -> bool:
        """The values are right, whatever else is wrong."""
        return self.reply is not None and not self.findings and not self.reply.failure

    @property
    def timed_out(self) -> bool:
        return self.ended is not None and self.ended.kind == "timeout"

    @property
    def devices(self) -> list[str]:
        """Where results were that should have been on the inputs' device."""
        return [problem[7:] for problem in self.reply.problems if problem.startswith("device:")] if self.reply else []

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
        if self.devices:
            return "device"
        return self.findings[0].kind if self.findings else self.reply.problems[0]


def sentence(outcome: Outcome, limit: float, returns: str) -> str:
    """What was observed on this probe, in words."""
    if outcome.ended:
        return _ended(outcome.ended, limit) + (_slow(outcome.kernel) if outcome.timed_out else "")
    failure = outcome.reply.failure
    if failure:
        return _failed(failure, returns)
    if outcome.devices:
        holds = " (a tensor on meta has a shape and no numbers)" if outcome.devices == ["meta"] else ""
        return f"The result is on the device {outcome.devices[0]}{holds}; return it on the device of the inputs."
    if outcome.findings:
        return values(outcome) if outcome.wrong_values else upper(outcome.findings[0].sentence)
    return contract(outcome.reply.problems)


def contract(problems: list[str]) -> str:
    """The sentence for the first of these broken promises."""
    return CONTRACT.get(problems[0], problems[0])


def _slow(kernel: bool) -> str:
    """What besides an endless loop may be the reason."""
    said = " It may also be right and slow: the interpreter runs one program after the other, so larger tiles end sooner." if kernel else ""
    wanted = overbooked()
    return said + (f" This machine is busy: {wanted:.0f} processes wait for each of its cores. Check again when it is quiet." if wanted >= 2 else "")


def _ended(ended: Ended, limit: float) -> str:
    if ended.kind == "timeout":
        return f"No result after {limit:.0f} s; the process was ended. Does every loop reach its end: does its step advance?"
    if ended.kind == "exited":
        return f"Your function ended its own process (exit code {ended.code}) before it returned. Ending without an error is no result: return the values."
    if ended.kind == "crashed":
        hint = (
            "Something read or wrote memory that is not there; in a kernel, look for a load or store without a mask."
            if ended.code in (7, 11)
            else "No result came back."
        )
        return f"{_SIGNALS.get(ended.code, f'Signal {ended.code}')} ended the process. {hint}"
    if ended.kind == "processes":
        return "Your function started more than 64 processes. All of them were ended; an answer needs none."
    if ended.kind == "garbled":
        return "What came back could not be read: something else was written to the grader's own connection. Leave file descriptors alone that you did not open."
    return "The connection to the grader was closed before a result came. Leave file descriptors alone that you did not open."


def _failed(failure: dict, returns: str) -> str:
    kind, message, line = failure["kind"], failure["message"], ""
    if failure.get("frames"):
        line = f" ({at_line(failure)})"
    if kind == "type":
        return f"Expected {returns}, got {message}."
    if kind == "exit":
        return f"Your function called for the end of the program: {failure['type']}{line}. A function gives its result back with `return`."
    if kind == "interrupt":
        return f"Your function raised KeyboardInterrupt{line}, as if someone had pressed Ctrl-C. Return the values instead."
    if kind == "memory":
        return f"{_memory(message)}{line}."
    if kind == "out-of-range":
        return upper(message)
    if failure["type"] == "NotImplementedError" and "is not written yet" in message:
        return f"The stub's first line is still there{line}. Delete it: it raises NotImplementedError before your code runs."
    if failure["type"] == "AssertionError" and not message.strip() and ".dot(" in (failure.get("frames") or [[""]])[-1][-1]:
        return f"Triton refuses the operands of this `tl.dot`{line}. {_DOT}"
    return f"Your function raised {failure['type']}: {message[:300].strip() or '(no message)'}{line}."


def at_line(failure: dict) -> str:
    """The innermost line of the answer's own: "line 3 of merge_states: `...`", without a number outside every definition."""
    where, source = failure["frames"][-1]
    return f"{where}: `{source}`" if where else f"`{source}`"


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
        return upper(finding.sentence)
    text = compare.describe(got, target.reference, outcome.probe.axes, outcome.probe.tile, finding.wrong)
    if not target.name:
        return text
    others = [t.name for i, t in enumerate(outcome.targets) if i not in {f.leaf for f in outcome.findings}]
    right = f"{' and '.join(f'`{name}`' for name in others)} {'are' if len(others) > 1 else 'is'} right. " if others and whole else ""
    return f"{right}`{target.name}`: {text[0].lower() if not text.startswith('NaN') else 'N'}{text[1:]}"


def upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def not_finite(outcome: Outcome) -> tuple[str, str] | None:
    """(id, sentence) for NaN everywhere, or NaN and infinities where numbers belong."""
    got = [leaf for leaf in compare.leaves(outcome.reply.result) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.numel()]
    if got and all(bool(leaf.isnan().all()) for leaf in got):
        return "nan-everywhere", (
            "Every number of the result is NaN. Memory from `torch.empty` that nobody wrote is NaN here; so are inf - inf and 0 / 0. "
            "Which line makes the first one?"
        )
    finding = outcome.findings[0]
    leaf, target = compare.leaves(outcome.reply.result)[finding.leaf], outcome.targets[finding.leaf]
    if finding.wrong is None or not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point():
        return None
    if bool((~leaf.isfinite() & target.reference.isfinite())[finding.wrong].all()):
        nan = bool(leaf[finding.wrong].isnan().any())
        first = "the first NaN: inf - inf, 0 / 0, or memory never written" if nan else "an infinity: an exp that overflows, or a division by 0"
        return "not-finite", f"{values(outcome)} Everything else is right. Which line makes {first}?"
    return None
