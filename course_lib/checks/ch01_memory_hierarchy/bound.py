"""Grading material: classify_bound.

One word comes back, so a single probe says little. Each mistake turns its own set of the six diagnosing probes around: the
shapes lie on that side of the ridge where exactly these mistakes cross it. (No six out of 472 shapes and machines keep all of
them apart: min(m, n) and min(m, n, k) share a sentence. Rules of thumb such as m < 64 fall together with no mistake.)
"""

import torch

from course_lib.checks.ch01_memory_hierarchy.drawing import factor
from course_lib.grading.spec import Check, Mutant, Probe

_FP16, _TF32 = (312e12, 2.039e12), (156e12, 2.039e12)  # an A100's ridge: 153 and 77 FLOPs per byte
_T4 = (65e12, 0.32e12)  # ridge: 203


def _probes(g: torch.Generator) -> list[Probe]:
    def probe(name: str, m: int, n: int, k: int, bytes_each: int, machine: tuple[float, float], **more) -> Probe:
        speed = factor(g)  # both ceilings alike: the ridge stays where it is
        return Probe(name, (m, n, k, bytes_each, machine[0] * speed, machine[1] * speed), **more)

    return [
        probe("one row times a large matrix", 1, 4096, 4096, 2, _FP16, diagnose=False),
        probe("one row on slow arithmetic beside fast memory", 1, 4096, 4096, 2, (1e9, 1e11)),
        probe("fp32, 4 rows, on arithmetic a little less slow", 4, 4096, 4096, 4, (3.5e10, 1e11)),
        probe("fp32, 2 rows, on arithmetic that does 2 FLOPs in the time of a byte", 2, 4096, 4096, 4, (2e11, 1e11)),
        probe("one byte an element, 128 rows", 128, 4096, 4096, 1, _FP16),
        probe("many rows, 100 columns, on a T4", 4096, 100, 4096, 2, _T4),
        probe("fp32, a thin product, k=128", 4096, 4096, 128, 4, _TF32),
        probe("large and square", 4096, 4096, 4096, 2, _FP16, diagnose=False),
        probe("fp32, 128 rows, a little below the ridge", 128, 4096, 4096, 4, _TF32, diagnose=False),
        probe("many rows, 16 columns", 4096, 16, 4096, 2, _FP16, diagnose=False),
        probe("256 rows, a little above the ridge", 256, 4096, 4096, 2, _FP16, diagnose=False),
        probe("a thin product, k=128", 4096, 4096, 128, 2, _FP16, diagnose=False),
        probe("the same thin product on half the arithmetic", 4096, 4096, 128, 2, (_FP16[0] / 2, _FP16[1]), diagnose=False),
        Probe("exactly on the ridge: both take as long", (256, 256, 128, 2, 64e12, 1e12), diagnose=False),  # 64 FLOPs per byte, without rounding
    ]


def _by_intensity(m, n, k, bytes_each, peak_flops, bandwidth):
    return "memory" if 2 / bytes_each / (1 / m + 1 / n + 1 / k) < peak_flops / bandwidth else "compute"


def _by_time(m, n, k, bytes_each, peak_flops, bandwidth):
    moving, computing = (m * k + k * n + m * n) * bytes_each / bandwidth, 2 * m * n * k / peak_flops
    return "memory" if moving > computing else "compute"


def _by_products(m, n, k, bytes_each, peak_flops, bandwidth):
    return "memory" if 2 * m * n * k * bandwidth < (m * k + k * n + m * n) * bytes_each * peak_flops else "compute"


_BYTES, _LAST = "(m * k + k * n + m * n)", 'return "memory" if intensity < peak_flops / bandwidth else "compute"'

CLASSIFY_BOUND = Check(
    exercise="classify_bound",
    probes=_probes,
    reference=_by_intensity,
    baselines=(_by_intensity, _by_time, _by_products),
    returns='"memory" or "compute"',
    mutants=(
        Mutant(
            "swapped",
            "Every answer is the other one. Few FLOPs for each byte means that the arithmetic waits for memory: which word is that?",
            edits=(("intensity < peak", "intensity > peak"),),
        ),
        Mutant(
            "ridge-inverted",
            "The machine's number is upside down: bandwidth divided by FLOP/s. Both sides of the comparison must be FLOPs per byte.",
            edits=(("peak_flops / bandwidth", "bandwidth / peak_flops"),),
        ),
        Mutant(
            "kind-of-operator",
            'It says "compute" for every shape, as if a matrix product always were compute-bound. That depends on the shape and on the machine.',
            edits=((_LAST, 'return "compute"'),),
        ),
        Mutant(
            "always-memory",
            'It says "memory" for every shape. Is the number from the shape compared with one that is also FLOPs per byte? FLOP/s alone are always larger.',
            edits=(("peak_flops / bandwidth", "peak_flops"),),
        ),
        Mutant(
            "one-flop",
            "Wrong close to the ridge only: the shape's number is half of what it should be. A multiplication and an addition are two FLOPs.",
            edits=(("2 * m * n * k", "m * n * k"),),
        ),
        Mutant(
            "no-reuse",
            "Two operands were fetched for each multiplication. Then no shape could ever be compute-bound on a GPU: each matrix is moved once and reused "
            "on the chip.",
            edits=((_BYTES, "(2 * m * n * k)"),),
        ),
        Mutant(
            "elements",
            "Wrong below the ridge: FLOPs per element were compared with FLOPs per byte. Where does `bytes_each` come in?",
            edits=((" * bytes_each)", ")"),),
        ),
        Mutant(
            "always-two-bytes",
            "Right for 2 bytes an element; with 4 the shape's intensity is half of that, with 1 it is twice that. Use `bytes_each`.",
            edits=((" * bytes_each)", " * 2)"),),
        ),
        Mutant(
            "one-matrix",
            "Only the [k, n] matrix was counted. A product with few columns moves mostly the other two, and a square one moves three of the same size.",
            edits=((_BYTES, "(k * n)"),),
        ),
        Mutant(
            "no-output",
            "Wrong only where the result is as large as the inputs, or larger: it was left out, and it has to be written.",
            edits=((_BYTES, "(m * k + k * n)"),),
        ),
        Mutant(
            "rows",
            "Only the rows were looked at: m was compared with the ridge. Columns, k and the bytes an element count too: a product with 16 columns has few "
            "FLOPs per byte however many rows it has.",
            edits=((_LAST, _LAST.replace("intensity", "m")),),
        ),
        Mutant(
            "smallest-side",
            "The smallest of the sizes was compared with the ridge. The intensity comes near it where the other sizes are far larger and an element takes "
            "2 bytes; in general it needs all three sizes and `bytes_each`.",
            edits=((_LAST, _LAST.replace("intensity", "min(m, n, k)")),),
        ),
        Mutant(
            "one-row",
            '"memory" comes out for one row only. One row is the clearest case, not the only one, and on a machine with slow arithmetic it is none: compare '
            "the shape's FLOPs per byte with the machine's.",
            edits=((_LAST, 'return "memory" if m == 1 else "compute"'),),
        ),
        Mutant(
            "fixed-ridge",
            "Right for an A100 in fp16 only: its ridge, 153, was written in. Another machine has another: use `peak_flops` and `bandwidth`.",
            edits=(("peak_flops / bandwidth", "153"),),
        ),
        Mutant(
            "tie",
            'Right, except exactly on the ridge. There the bytes take as long as the FLOPs and not longer: the statement calls that "compute".',
            edits=(("intensity < peak", "intensity <= peak"),),
        ),
        Mutant(
            "capitals",
            'The right side each time, but another word: return "memory" or "compute", in small letters.',
            edits=((_LAST, _LAST.replace('"memory"', '"Memory"').replace('"compute"', '"Compute"')),),
        ),
        Mutant(
            "longer-words",
            'The right side each time, but another word: return "memory" or "compute", without "-bound".',
            edits=((_LAST, _LAST.replace('"memory"', '"memory-bound"').replace('"compute"', '"compute-bound"')),),
        ),
    ),
    right=(
        """\
from course_lib.earlier import arithmetic_intensity

def classify_bound(m, n, k, bytes_each, peak_flops, bandwidth):
    ridge = peak_flops / bandwidth
    return "memory" if arithmetic_intensity(m, n, k, bytes_each) < ridge else "compute"
""",
        """\
def classify_bound(m, n, k, bytes_each, peak_flops, bandwidth):
    t_compute = 2.0 * m * n * k / peak_flops
    t_memory = bytes_each * (m * (n + k) + n * k) / bandwidth
    if t_memory > t_compute:
        return 'memory'
    return 'compute'
""",
        """\
from course_lib.earlier import roofline_time

def classify_bound(m, n, k, bytes_each, peak_flops, bandwidth):
    flops = 2 * m * n * k
    whole = roofline_time(flops, bytes_each * (m * k + k * n + m * n), peak_flops, bandwidth)
    return ("compute", "memory")[whole > flops / peak_flops]
""",
        """\
def classify_bound(m: int, n: int, k: int, bytes_each: int, peak_flops: float, bandwidth: float) -> str:
    times = {"compute": 2 * m * n * k / peak_flops, "memory": (m * k + k * n + m * n) * bytes_each / bandwidth}
    return max(times, key=times.get)
""",
    ),
)
