"""Mutants that every kernel of chapter 04 can share: what the bounds guard catches, and a copy made by torch."""

from course_lib.grading.spec import Mutant

WITH_STRIDES = "Give the kernel the strides: it can read any layout, and convert what it has loaded."


def outside(edits: tuple[tuple[str, str], ...]) -> Mutant:
    """The guard stopped a load or a store outside every tensor: whatever the cause, this is what to look at."""
    return Mutant(
        "no-mask",
        (
            "On a GPU this reads or overwrites whatever lies there, or ends the program. The usual causes: a load or store without its mask, "
            "a mask that compares with the wrong size, a pointer that multiplies an index by the wrong stride, more programs than there are tiles or rows."
        ),
        edits=edits,
        rule="out-of-range",
    )


def copied(edits: tuple[tuple[str, str], ...]) -> Mutant:
    return Mutant(
        "copied",
        "That is what `.contiguous()`, `.float()` or `.to(...)` in the host function does. It costs as much as the kernel itself.",
        edits=edits,
        rule="copied",
    )
