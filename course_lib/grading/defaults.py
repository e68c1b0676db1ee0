"""The rules that every exercise of a kind has, without its grading material naming them. Plain functions of the evidence.

A `torch` exercise that forbids an operation: the result must come out of operations that were seen. A `triton` exercise:
a kernel must run, its stores must make the result, and torch must not do the arithmetic. What the evidence cannot settle
is for a person to look at (`needs_review`); what it shows plainly is refused.
"""

from course_lib.grading.spec import Check, Evidence, Probe, Rule
from course_lib.source import Exercise

_FEW = 4  # numbers: a result smaller than this says nothing about where it came from


def rules_of(exercise: Exercise, material: Check) -> tuple[Rule, ...]:
    """The rules of an exercise: its own, and those of its kind."""
    if exercise.kind == "triton":
        return (LAUNCHED, torch_does_the_work(material.allow), STORED, *material.rules, OUTSIDE)
    if exercise.kind == "torch" and any(rule.id == "shortcut" for rule in material.rules):
        return (*material.rules, OUTSIDE)
    return material.rules


def _not_launched(probe: Probe, evidence: Evidence) -> str | None:
    if evidence.launches or not evidence.returned:
        return None
    return (
        f"no kernel was launched on this input ({probe.name}); the result came from elsewhere. The exercise is the kernel: "
        "let the function launch it, on every input."
    )


def _not_stored(probe: Probe, evidence: Evidence) -> str | None:
    others = evidence.returned - evidence.stored - evidence.blank
    if others <= 0 or not evidence.launches:
        return None
    return (
        f"the kernel stored {evidence.stored:,} of {evidence.returned:,} elements of the result ({probe.name}); {others:,} of the others are not 0, "
        "and no kernel wrote them. The kernel has to make the result."
    )


def torch_does_the_work(allow: tuple[str, ...] = ()) -> Rule:
    """The host may allocate, copy, pad, reshape and launch; arithmetic on tensors as large as the result is the kernel's."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        if "all" in allow or evidence.largest_returned < _FEW:
            return None
        used = {op: n for op, n in evidence.made.items() if n >= evidence.largest_returned and op not in allow}
        if not used:
            return None
        op, n = max(used.items(), key=lambda pair: pair[1])
        return (
            f"torch's `{op.strip('_')}` computed {n:,} numbers on this input ({probe.name}); the result has {evidence.largest_returned:,}. "
            "In this exercise the kernel does the arithmetic; the host allocates, reshapes and launches."
        )

    return Rule("torch-does-the-work", broken)


def _outside(probe: Probe, evidence: Evidence) -> str | None:
    if evidence.returned < _FEW:
        return None
    if evidence.unseen >= _FEW:
        return (
            f"{evidence.unseen:,} numbers appeared on this input ({probe.name}) without an operation that was seen to make them. "
            "What runs in a process of its own, in an operation of one's own, or with torch's hooks switched off is not seen."
        )
    returned_trip = evidence.taken >= 2 and evidence.brought >= evidence.returned
    if not returned_trip and evidence.carried < evidence.returned:
        return None
    ways = f" (by {' and '.join(f'`{way}`' for way in evidence.detours)})" if evidence.detours else ""
    numbers = max(evidence.brought, evidence.carried)
    left = (
        f"{evidence.taken:,} numbers left torch on this input{ways}, and {numbers:,} came back"
        if evidence.taken >= 2
        else f"{numbers:,} numbers came"
    )
    return f"{left} from Python or NumPy ({probe.name}). What happened to them there is not seen here."


LAUNCHED = Rule("no-launch", _not_launched)
STORED = Rule("not-stored", _not_stored)
OUTSIDE = Rule("outside-torch", _outside, review=True)
