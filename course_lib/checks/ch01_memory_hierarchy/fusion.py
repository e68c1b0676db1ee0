"""Grading material: fusion_bytes."""

import torch

from course_lib.checks.ch01_memory_hierarchy.drawing import whole
from course_lib.grading.spec import Check, Mutant, Probe


def _probes(g: torch.Generator) -> list[Probe]:
    n, d = whole(g, 500, 900), whole(g, 20, 60)
    return [
        Probe(f"{n} elements: a bias of {d}, then GELU", (n, [d, 0])),
        Probe("the statement's example", (100, [10, 0, 100])),
        Probe("five operators, fp32", (1000, [0, 40, 0, 1000, 0], 4)),
        Probe("one operator: nothing to fuse", (640, [640])),
        Probe("no extra inputs, int8", (77, [0, 0, 0, 0], 1)),
        Probe("two residuals", (5000, [5000, 0, 5000])),
        Probe("large tensors", (2**31, [4096, 2**31, 0, 4096, 0, 2**31]), diagnose=False),
    ]


def _plain(elements, extras, bytes_each=2):
    return (2 * elements * len(extras) + sum(extras)) * bytes_each, (2 * elements + sum(extras)) * bytes_each


def _one_by_one(elements, extras, bytes_each=2):
    separate = sum(bytes_each * (elements + extra + elements) for extra in extras)
    return separate, separate - 2 * elements * bytes_each * (len(extras) - 1)


def _walked(elements, extras, bytes_each=2):
    separate, fused = 0, elements
    for extra in extras:
        separate += elements + extra + elements
        fused += extra
    return separate * bytes_each, (fused + elements) * bytes_each


_SEPARATE, _FUSED = "(2 * elements * len(extras) + extra) * bytes_each", "(2 * elements + extra) * bytes_each"

FUSION_BYTES = Check(
    exercise="fusion_bytes",
    probes=_probes,
    reference=_plain,
    baselines=(_plain, _one_by_one, _walked),
    returns="a pair (separate, fused)",
    mutants=(
        Mutant(
            "counted-once",
            "`separate` is too small: each tensor was counted once. What lies between two operators is moved twice, written by one and read by the next.",
            edits=((_SEPARATE, "(elements * (len(extras) + 1) + extra) * bytes_each"),),
        ),
        Mutant(
            "reads-or-writes-only",
            "`separate` counts one trip an operator. Each makes two with that tensor: it reads its predecessor's result and writes its own.",
            edits=((_SEPARATE, "(elements * len(extras) + extra) * bytes_each"),),
        ),
        Mutant(
            "fused-without-extras",
            "`fused` lacks the extra inputs: fusing does not make them go away, each must be read once.",
            edits=((_FUSED, "2 * elements * bytes_each"),),
        ),
        Mutant(
            "without-extras",
            "The extra inputs are in neither number. A residual is as large as the tensor itself, and has to be read.",
            edits=(("extra = sum(extras)", "extra = 0"),),
        ),
        Mutant(
            "fused-still-writes",
            "`fused` still writes what lies between. Inside one kernel a result can wait in registers for the next operator: it is written once, at the end.",
            edits=((_FUSED, "(elements + elements * len(extras) + extra) * bytes_each"),),
        ),
        Mutant(
            "fused-one-trip",
            "`fused` counts the tensor once. It makes two trips even then: the first input is read, and the result is written.",
            edits=((_FUSED, "(elements + extra) * bytes_each"),),
        ),
        Mutant(
            "divided",
            "`fused` is `separate` divided by the number of operators. The extra inputs do not shrink that way: count what a fused kernel reads and writes.",
            edits=(("return separate, fused", "return separate, separate // len(extras)"),),
        ),
        Mutant(
            "saved",
            "The second number is what fusing saves. Asked is what the fused kernel moves.",
            edits=(("return separate, fused", "return separate, separate - fused"),),
        ),
        Mutant(
            "swapped",
            "The two numbers are in the wrong order: (separate, fused).",
            edits=(("return separate, fused", "return fused, separate"),),
        ),
        Mutant(
            "elements",
            "Those are elements. Asked are bytes: `bytes_each` an element.",
            edits=((_SEPARATE, _SEPARATE.replace(" * bytes_each", "")), (_FUSED, _FUSED.replace(" * bytes_each", ""))),
        ),
        Mutant(
            "always-two-bytes",
            "Right for fp16 only: use `bytes_each`.",
            edits=((_SEPARATE, _SEPARATE.replace("bytes_each", "2")), (_FUSED, _FUSED.replace("bytes_each", "2"))),
        ),
        Mutant(
            "extras-as-tensors",
            "Every extra input was counted as large as the tensor itself. `extras` says how large each is: a bias of D numbers is D numbers.",
            edits=(("extra = sum(extras)", "extra = sum(elements for e in extras if e)"),),
        ),
        Mutant(
            "largest-extra",
            "Only the largest extra input was counted. Each is a tensor of its own, and every one of them has to be read.",
            edits=(("extra = sum(extras)", "extra = max(extras)"),),
        ),
        Mutant(
            "same-extra-once",
            "Extra inputs of equal size were taken for one. Each is a tensor of its own: two residuals are read twice.",
            edits=(("extra = sum(extras)", "extra = sum(set(extras))"),),
        ),
        Mutant(
            "different-operators",
            "`separate` counts operators whose extra inputs are equal only once: `set` does that. `extras` has one number for each operator.",
            edits=((_SEPARATE, _SEPARATE.replace("len(extras)", "len(set(extras))")),),
        ),
        Mutant(
            "operators-with-extras",
            "`separate` leaves out the operators that read nothing besides the tensor. GELU has a 0 in `extras` and still reads the tensor and writes it.",
            edits=((_SEPARATE, _SEPARATE.replace("len(extras)", "sum(e > 0 for e in extras)")),),
        ),
    ),
    right=(
        """\
def fusion_bytes(elements, extras, bytes_each=2):
    separate = sum(elements + extra + elements for extra in extras)
    fused = elements + sum(extras) + elements
    return separate * bytes_each, fused * bytes_each
""",
        """\
def fusion_bytes(elements, extras, bytes_each=2):
    total = 0
    for extra in extras:
        total += (2 * elements + extra) * bytes_each
    between = len(extras) - 1
    return [total, total - between * 2 * elements * bytes_each]
""",
        """\
import numpy as np

def fusion_bytes(elements, extras, bytes_each=2):
    e = np.asarray(extras, dtype=np.int64)
    return int((2 * elements + e).sum() * bytes_each), int((2 * elements + e.sum()) * bytes_each)
""",
        """\
from functools import reduce

def fusion_bytes(elements: int, extras: list[int], bytes_each: int = 2) -> tuple[int, int]:
    n = elements * bytes_each
    side = reduce(lambda a, b: a + b * bytes_each, extras, 0)
    return 2 * n * len(extras) + side, 2 * n + side
""",
    ),
)
