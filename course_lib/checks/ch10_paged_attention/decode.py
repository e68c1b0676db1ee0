"""Grading material: paged_decode."""

import torch

from course_lib.checks.ch05_flash_forward import sentences as flash
from course_lib.checks.ch10_paged_attention import sentences
from course_lib.checks.ch10_paged_attention.decode_right import RIGHT
from course_lib.checks.ch10_paged_attention.inputs import FAR, HARNESS, paged
from course_lib.checks.ch10_paged_attention.plain import DECODES
from course_lib.checks.ch10_paged_attention.rules import DECODE
from course_lib.grading.spec import Check, Mutant, Probe

AXES = ("request", "head", "feature")


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("37 keys in blocks of 4, rising scores, 2 heads share 1", paged(g, (37,), 4, 2, 1, 20, rising=True), axes=AXES),
        Probe("5, 70 and 21 keys in blocks of 16, 6 heads share 2", paged(g, (5, 70, 21), 16, 6, 2, 24), axes=AXES),
        Probe("9 and 40 keys in blocks of 1, scale = 0.3", paged(g, (9, 40), 1, 3, 3, 17), {"scale": 0.3}, axes=AXES),
        Probe("33 and 6 keys in blocks of 4, unused entries name no block", paged(g, (33, 6), 4, 4, 2, 20, garbage=FAR), axes=AXES),
        Probe("a request without keys beside one of 20", paged(g, (0, 20), 8, 2, 1, 20), axes=AXES),
        Probe(
            "the K cache transposed in memory, V's blocks side by side, 40 keys in blocks of 16",
            paged(g, (40,), 16, 2, 2, 18),
            {"v_apart": True},
            layout="mixed",
            axes=AXES,
            diagnose=False,
        ),
        Probe("transposed in memory, 70 and 35 keys in blocks of 64", paged(g, (70, 35), 64, 4, 2, 18), layout="transposed", axes=AXES),
        Probe("NaN in every place that is no request's own", paged(g, (19, 50), 16, 2, 2, 20, nan=True), axes=AXES, diagnose=False),
        Probe("three requests share their first 2 blocks", paged(g, (11, 9, 14), 4, 4, 2, 20, common=2, garbage=-9), axes=AXES, diagnose=False),
        Probe("16 heads share 1, 64 keys, D = 32: no lane is off", paged(g, (64, 64), 16, 16, 1, 32), axes=AXES, diagnose=False),
    ]


PAGED_DECODE = Check(
    exercise="paged_decode",
    probes=_probes,
    reference=DECODES[0],
    baselines=DECODES,
    harness=HARNESS,
    rules=DECODE,
    mutants=(
        *sentences.looking_up("length"),
        *flash.rescaling()[:2],
        *flash.dividing("new_max")[:1],
        *flash.scaling("new_max")[:1],
        flash.tail_counted(
            ('scores = tl.where((at < length)[None, :], scores, -float("inf"))\n', "scores = scores + 0.0\n"),
        ),
        Mutant(
            "newest-missed",
            "The newest key was left out: `lengths` counts it, so the last position is length - 1.",
            edits=(("    # 3. initialise\n", "    # 3. initialise\n    length = length - 1\n"),),
        ),
        Mutant(
            "empty-divided",
            "Right, except for a request without keys: its row_sum is 0, and 0 / 0 is NaN. Such rows pad a batch to a fixed size and must come out as 0.",
            edits=(("    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # no keys: 0, not 0 / 0\n", ""),),
        ),
        *sentences.by_rules(),
        Mutant(
            "read-per-head",
            "That is what a program for each query head asks for: the heads of a group read the same keys, one after the other. Let one program own all heads of a group.",
            edits=(
                ("h_kv = tl.program_id(0).to(tl.int64)", "h_kv = tl.program_id(0).to(tl.int64) // GROUP"),
                ("heads = h_kv * GROUP + rows", "heads = tl.program_id(0).to(tl.int64) + rows"),
                ("mine = (rows < GROUP)", "mine = (rows < 1)"),
                ("grid = (H_KV, B)", "grid = (H, B)"),
            ),
            rule="bytes",
        ),
    ),
    right=RIGHT,
    seconds=9.0,
    exact_float32=True,
)
