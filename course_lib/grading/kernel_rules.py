"""Resource rules of Triton exercises: launches, requested bytes, stored bytes, copies. Used by the checks of several chapters.

Each takes what a probe allows (a closed form of its shapes) and reads `Evidence`, which comes from the answer's process:
totals over all launches of one call, counted by `course_lib.traffic`. Knows nothing of any one kernel.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from course_lib.grading.spec import Evidence, Mutant, Probe, Rule
from course_lib.words import plural

Bytes = Callable[[Probe], int | None]  # None: the rule does not speak on this probe
COPIES = ("clone", "_to_copy", "contiguous")  # `copy_` is no sign: the interpreter itself copies arguments back with it


def size(*tensors: Tensor) -> int:
    """Bytes of these tensors' elements, an expanded dimension counted in full: what asking once for each element takes."""
    return sum(x.numel() * x.element_size() for x in tensors)


def launches(at_most: int = 1) -> Rule:
    """At most so many launches a call."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        count = len(evidence.launches)
        if count <= at_most:
            return None
        names = ", ".join(dict.fromkeys(str(launch.get("kernel"))[:60] for launch in evidence.launches))
        allowed = "one launch is" if at_most == 1 else f"{at_most} launches are"
        return f"your function launched {count} kernels ({names}); {allowed} enough. What one launch leaves for the next goes to memory and back."

    return Rule("launches", broken)


def loads(allowed: Bytes, what: str, id: str = "bytes") -> Rule:
    """Requested loads of at most `allowed(probe)` bytes; `what` says in words what takes so many ("reading each score once")."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        limit = allowed(probe)
        if limit is None or evidence.bytes_loaded <= limit:
            return None
        return f"the loads of your kernel ask for {evidence.bytes_loaded:,} bytes ({probe.name}); {what} takes {limit:,}."

    return Rule(id, broken)


def streamed(least: Bytes, what: str, id: str = "whole-row") -> Rule:
    """Requested loads of at least `least(probe)` bytes: fewer are possible only for a program that holds what does not fit (`what`)."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        limit = least(probe)
        if limit is None or evidence.bytes_loaded >= limit or not evidence.launches:
            return None
        return f"the loads of your kernel ask for {evidence.bytes_loaded:,} bytes ({probe.name}), fewer than {limit:,}: so a program holds {what}."

    return Rule(id, broken)


def stores(result: Bytes) -> Rule:
    """Each element of the result is stored exactly once: `result(probe)` is its size in bytes."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        wanted = result(probe)
        if wanted is None or evidence.bytes_stored == wanted:
            return None
        return f"your kernel stores {evidence.bytes_stored:,} bytes ({probe.name}); the result has {wanted:,}, each to be stored once."

    return Rule("stores", broken)


def programs(at_most: Callable[[Probe], int], why: str) -> Rule:
    """At most so many programs in all launches of a call; `why` is the end of the sentence."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        count, limit = sum(map(_programs, evidence.launches)), at_most(probe)
        return None if count <= limit else f"your function launched {count:,} {plural('program', count)} ({probe.name}); {why}"

    return Rule("programs", broken)


def no_idle(few: int, why: str) -> Rule:
    """Every program of a call moves something, unless there are no more than `few`; `why` is the end of the sentence."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        count = sum(map(_programs, evidence.launches))
        idle = count - sum(n for launch in evidence.launches if type(n := launch.get("working", _programs(launch))) is int)
        said = f"{idle:,} of the {count:,} programs that your function launched loaded and stored nothing ({probe.name}); {why}"
        return said if count > few and idle > 0 else None

    return Rule("idle", broken)


def no_copies(instead: str, ops: Sequence[str] = COPIES) -> Rule:
    """No tensor is copied or converted by torch beside the kernel: that reads and writes it once more, and no kernel sees it."""
    wanted = frozenset(ops)

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        used = sorted(op for op in evidence.ops if op.split(".")[0] in wanted)
        return (
            f"torch copied a tensor beside your kernel ({', '.join(used)}; {probe.name}): one more read and write of it. {instead}" if used else None
        )

    return Rule("copied", broken)


def tf32(edits: Sequence[tuple[str, str]]) -> Mutant:
    """The mistake that only the compile verdict sees (`Check.exact_float32`): a product of float32 tiles that a GPU rounds."""
    return Mutant(
        "tf32",
        "A `tl.dot` rounds float32 tiles for the tensor cores unless it is told not to, and then this result is wrong from the fourth digit on. Ask for "
        '`input_precision="ieee"` in every `tl.dot`; float16 inputs lose nothing by it.',
        edits=tuple(edits),
        rule="tf32",
    )


def _programs(launch: dict) -> int:
    grid = launch.get("grid")
    return math.prod(n for n in grid if type(n) is int) if isinstance(grid, list | tuple) else 0
