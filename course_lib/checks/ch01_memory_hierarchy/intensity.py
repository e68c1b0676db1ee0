"""Grading material: arithmetic_intensity."""

import torch

from course_lib.checks.ch01_memory_hierarchy.drawing import whole
from course_lib.grading.spec import Check, Mutant, Probe


def _probes(g: torch.Generator) -> list[Probe]:
    m, n, k = whole(g, 11, 40), whole(g, 41, 90), whole(g, 91, 160)
    return [
        Probe(f"a small product, m={m}, n={n}, k={k}", (m, n, k)),
        Probe("the statement's example", (2, 3, 4)),
        Probe("one row: m=1, n=300, k=500", (1, 300, 500)),
        Probe("fp32: m=70, n=30, k=110", (70, 30, 110, 4)),
        Probe("int8: m=24, n=1000, k=36", (24, 1000, 36, 1)),
        Probe("large and square, 4,096", (4096, 4096, 4096)),
        Probe("bytes_each given by name", (33, 65, 17), {"bytes_each": 8}, diagnose=False),
    ]


def _plain(m, n, k, bytes_each=2):
    return 2 * m * n * k / (bytes_each * (m * k + k * n + m * n))


def _by_sides(m, n, k, bytes_each=2):
    return 2 / bytes_each / (1 / n + 1 / m + 1 / k)


def _by_element(m, n, k, bytes_each=2):
    return 2 * k / ((k / n + k / m + 1) * bytes_each)  # of one element of the result


def _body(expression: str) -> str:
    return f"def arithmetic_intensity(m, n, k, bytes_each=2):\n    return {expression}\n"


ARITHMETIC_INTENSITY = Check(
    exercise="arithmetic_intensity",
    probes=_probes,
    reference=_plain,
    baselines=(_plain, _by_sides, _by_element),
    returns="a number",
    mutants=(
        Mutant(
            "one-flop",
            "This is half of it: a multiplication and the addition that follows were counted as one. Data sheets count them as two FLOPs, and the "
            "two sides of a comparison must count alike.",
            edits=(("flops = 2 * m * n * k", "flops = m * n * k"),),
        ),
        Mutant(
            "one-addition-less",
            "k products need only k - 1 additions, that is true. But the hardware's multiply-add starts from 0, and data sheets count 2 FLOPs for "
            "each of its k steps: use k additions, as the statement says.",
            edits=(("flops = 2 * m * n * k", "flops = m * n * (2 * k - 1)"),),
        ),
        Mutant(
            "inverted",
            "That is bytes per FLOP, the inverse. Intensity says how much arithmetic each byte brings: FLOPs on top.",
            edits=(("flops / bytes_moved", "bytes_moved / flops"),),
        ),
        Mutant(
            "elements",
            "That is FLOPs per element. Memory counts bytes: how many does one element have?",
            edits=((") * bytes_each", ")"),),
        ),
        Mutant(
            "always-two-bytes",
            "Right for fp16 and for nothing else: an element takes `bytes_each` bytes, not always 2.",
            edits=((") * bytes_each", ") * 2"),),
        ),
        Mutant(
            "no-output",
            "The two inputs are counted, the result is not. It has to be written to memory as well.",
            edits=(("(m * k + k * n + m * n)", "(m * k + k * n)"),),
        ),
        Mutant(
            "one-matrix",
            "Only the [k, n] matrix is counted. For one row that is nearly right, because the others are small; here they are not. Three matrices move.",
            edits=(("(m * k + k * n + m * n)", "(k * n)"),),
        ),
        Mutant(
            "output-only",
            "Only the result is counted. The two inputs must be read before anything can be multiplied.",
            edits=(("(m * k + k * n + m * n)", "(m * n)"),),
        ),
        Mutant(
            "output-twice",
            "The result is counted twice, as if it were read before it is written. A product that starts from 0 has nothing to read there.",
            edits=(("(m * k + k * n + m * n)", "(m * k + k * n + 2 * m * n)"),),
        ),
        Mutant(
            "no-reuse",
            "Two operands were fetched for each multiplication, as if nothing could be kept on the chip. The statement counts each matrix once: an "
            "element that has arrived is used again.",
            edits=(("(m * k + k * n + m * n)", "(2 * m * n * k + m * n)"),),
        ),
        Mutant(
            "side-lengths",
            "The sides were added where the matrices have areas: a matrix [m, k] holds m * k elements.",
            edits=(("(m * k + k * n + m * n)", "(m + k + k + n + m + n)"),),
        ),
        Mutant(
            "three-sides",
            "The sides were added where the matrices have areas: a matrix [m, k] holds m * k elements. Count the three matrices one by one.",
            edits=(("(m * k + k * n + m * n)", "(m + n + k)"),),
        ),
        Mutant(
            "rounded-down",
            "The fraction is gone: `//` divides whole numbers and drops what is left over. Intensities below 1 are common; use `/`.",
            edits=(("flops / bytes_moved", "flops // bytes_moved"),),
        ),
        Mutant(
            "flops-only",
            "Those are the FLOPs. Divide them by the bytes that move.",
            edits=(("return flops / bytes_moved", "return flops"),),
        ),
    ),
    right=(
        _body("(m * n * k) / (m * k + k * n + m * n) * (2 / bytes_each)"),
        _body("2 / bytes_each / (1 / m + 1 / n + 1 / k)"),
        """\
import math

def arithmetic_intensity(m, n, k, bytes_each=2):
    shapes = [(m, k), (k, n), (m, n)]
    return 2.0 * math.prod((m, n, k)) / sum(math.prod(s) * bytes_each for s in shapes)
""",
        """\
from fractions import Fraction

def arithmetic_intensity(m: int, n: int, k: int, bytes_each: int = 2) -> float:
    per_element = 2 * k
    return float(Fraction(per_element * m * n, bytes_each * (k * (m + n) + m * n)))
""",
    ),
)
