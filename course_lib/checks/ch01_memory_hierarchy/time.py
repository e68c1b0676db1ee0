"""Grading material: roofline_time."""

import torch

from course_lib.checks.ch01_memory_hierarchy.drawing import factor
from course_lib.grading.spec import Check, Mutant, Probe


def _probes(g: torch.Generator) -> list[Probe]:
    flops, moved = 3e9 * factor(g), 7e6 * factor(g)
    return [
        Probe("arithmetic takes longer", (flops, moved, 2e12, 5e11)),
        Probe("moving takes longer", (4e8, 9e9, 312e12, 2.039e12)),
        Probe("the statement's example", (6e12, 1e12, 3e12, 2e12)),
        Probe("a copy: no FLOPs", (0.0, 8e8, 989.4e12, 3.35e12)),
        Probe("both take the same", (2.0**40, 2.0**31, 2.0**43, 2.0**34)),
        Probe("moving takes a little longer", (1.9e12, 6.1e9, 65e12, 2e11)),
        Probe("whole numbers", (10**12, 10**9, 10**13, 10**11), diagnose=False),
    ]


def _plain(flops, bytes_moved, peak_flops, bandwidth):
    return max(flops / peak_flops, bytes_moved / bandwidth)


def _by_question(flops, bytes_moved, peak_flops, bandwidth):
    return flops / peak_flops if flops * bandwidth > bytes_moved * peak_flops else bytes_moved / bandwidth


def _by_inverse(flops, bytes_moved, peak_flops, bandwidth):
    return max(flops * (1 / peak_flops), bytes_moved * (1 / bandwidth))


def _body(expression: str) -> str:
    return f"def roofline_time(flops, bytes_moved, peak_flops, bandwidth):\n    return {expression}\n"


_RIGHT = "max(flops / peak_flops, bytes_moved / bandwidth)"

ROOFLINE_TIME = Check(
    exercise="roofline_time",
    probes=_probes,
    reference=_plain,
    baselines=(_plain, _by_question, _by_inverse),
    returns="a number",
    mutants=(
        Mutant(
            "sum",
            "The two times were added, as if the arithmetic began only when the last byte had arrived. The statement asks for full overlap: who is done last?",
            edits=((_RIGHT, "flops / peak_flops + bytes_moved / bandwidth"),),
        ),
        Mutant(
            "smaller",
            "The smaller of the two times came out. The operator is done when both are done: it waits for the slower one.",
            edits=((_RIGHT, _RIGHT.replace("max", "min")),),
        ),
        Mutant(
            "arithmetic-only",
            "Right while arithmetic takes longer, wrong where moving does: the bytes were left out.",
            edits=((_RIGHT, "flops / peak_flops"),),
        ),
        Mutant(
            "bytes-only",
            "Right where moving takes longer, wrong while arithmetic does: the FLOPs were left out.",
            edits=((_RIGHT, "bytes_moved / bandwidth"),),
        ),
        Mutant(
            "multiplied",
            "Work was multiplied by speed. A time is work divided by speed: check the units, FLOP / (FLOP/s) = s.",
            edits=((_RIGHT, "max(flops * peak_flops, bytes_moved * bandwidth)"),),
        ),
        Mutant(
            "crossed",
            "The FLOPs were divided by the bandwidth and the bytes by the arithmetic rate: each work belongs to its own speed.",
            edits=((_RIGHT, "max(flops / bandwidth, bytes_moved / peak_flops)"),),
        ),
        Mutant(
            "a-rate",
            "That is a rate, the FLOP/s this operator can reach. Asked is the time: seconds.",
            edits=((_RIGHT, "min(peak_flops, flops / bytes_moved * bandwidth)"),),
        ),
        Mutant(
            "milliseconds",
            "A thousand times too much: milliseconds, where seconds are asked.",
            edits=((_RIGHT, f"1e3 * {_RIGHT}"),),
        ),
        Mutant(
            "mean",
            "The mean of the two times came out. Both run at once; the operator is done when the slower one is.",
            edits=((_RIGHT, "(flops / peak_flops + bytes_moved / bandwidth) / 2"),),
        ),
    ),
    right=(
        """\
def roofline_time(flops, bytes_moved, peak_flops, bandwidth):
    compute = flops / peak_flops
    memory = bytes_moved / bandwidth
    if compute > memory:
        return compute
    return memory
""",
        _body("sorted([bytes_moved / bandwidth, flops / peak_flops])[-1]"),
        """\
import torch

def roofline_time(flops, bytes_moved, peak_flops, bandwidth):
    times = torch.tensor([flops, bytes_moved], dtype=torch.float64) / torch.tensor([peak_flops, bandwidth], dtype=torch.float64)
    return times.max().item()
""",
        """\
def roofline_time(flops, bytes_moved, peak_flops, bandwidth):
    if flops == 0:
        return bytes_moved / bandwidth
    attainable = min(peak_flops, flops / bytes_moved * bandwidth)
    return flops / attainable
""",
    ),
)
