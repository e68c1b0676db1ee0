"""Grading material: paged_prefill."""

import torch

from course_lib.checks.ch05_flash_forward import sentences as flash
from course_lib.checks.ch10_paged_attention import sentences
from course_lib.checks.ch10_paged_attention.inputs import FAR, HARNESS, paged
from course_lib.checks.ch10_paged_attention.plain import PREFILLS
from course_lib.checks.ch10_paged_attention.prefill_right import RIGHT
from course_lib.checks.ch10_paged_attention.rules import PREFILL
from course_lib.grading.spec import Check, Mutant, Probe

AXES = ("query", "head", "feature")
_LAST = "last = length - n + queries"
_END = "end = min(length, length - n + (tl.program_id(0) * BLOCK_M + BLOCK_M - 1) // GROUP + 1)"


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("5 new of 37 keys in blocks of 4, rising scores", paged(g, (37,), 4, 2, 1, 20, queries=(5,), rising=True), axes=AXES),
        Probe("3, 20 and 1 new of 40, 25 and 9 keys, 6 heads share 2", paged(g, (40, 25, 9), 16, 6, 2, 24, queries=(3, 20, 1)), axes=AXES),
        Probe("4 and 0 new of 12 and 40 keys, blocks of 1, scale = 0.3", paged(g, (12, 40), 1, 3, 3, 17, queries=(4, 0)), {"scale": 0.3}, axes=AXES),
        Probe("whole texts of 45 and 6, unused entries name no block", paged(g, (45, 6), 4, 4, 2, 20, queries=(45, 6), garbage=FAR), axes=AXES),
        Probe(
            "the K cache transposed in memory, V's blocks side by side, 5 new of 40",
            paged(g, (40,), 16, 2, 2, 18, queries=(5,)),
            {"v_apart": True},
            layout="mixed",
            axes=AXES,
            diagnose=False,
        ),
        Probe(
            "transposed in memory, 7 and 9 new of 70 and 35, blocks of 64",
            paged(g, (70, 35), 64, 4, 2, 18, queries=(7, 9)),
            layout="transposed",
            axes=AXES,
        ),
        Probe("60 new of 64: four tiles of rows", paged(g, (64,), 16, 2, 1, 32, queries=(60,)), axes=AXES),
        Probe("NaN in every place that is no request's own", paged(g, (19, 50), 16, 2, 2, 20, queries=(4, 3), nan=True), axes=AXES, diagnose=False),
        Probe(
            "three requests share their first 2 blocks", paged(g, (11, 9, 14), 4, 4, 2, 20, queries=(3, 1, 6), common=2), axes=AXES, diagnose=False
        ),
    ]


PAGED_PREFILL = Check(
    exercise="paged_prefill",
    probes=_probes,
    reference=PREFILLS[0],
    baselines=PREFILLS,
    harness=HARNESS,
    rules=PREFILL,
    mutants=(
        Mutant(
            "sees-ahead",
            "Every query saw all keys of its request, those of later tokens too: query i of n sees the keys up to length - n + i.",
            edits=(
                ("visible = (at[None, :] <= last[:, None]) & (at < end)[None, :]", "visible = (at < length)[None, :] & (last >= 0)[:, None]"),
                (_END, "end = length"),
            ),
        ),
        Mutant(
            "top-left",
            "Query i saw the keys 0 to i, as if its request began with it. Its own key is number length - n + i.",
            edits=((_LAST, "last = queries"),),
        ),
        Mutant(
            "own-key-missed",
            "A query sees its own key too: the last one is number length - n + i, itself included.",
            edits=((_LAST, "last = length - n + queries - 1"),),
        ),
        Mutant(
            "ends-at-first-row",
            "The walk ended at the last key of the tile's first query. Its last query, (BLOCK_M - 1) // GROUP further, sees more.",
            edits=((_END, _END.replace(" + BLOCK_M - 1", "")),),
        ),
        Mutant(
            "begin-dropped",
            "Right for the first request, wrong for the others: query i of request b is row cu_q[b] + i of q and of the output.",
            edits=(("q_ptr + (begin + queries)[:, None]", "q_ptr + queries[:, None]"),),
        ),
        Mutant(
            "begin-dropped-twice",
            "Right where a request is the only one: query i of request b is row cu_q[b] + i of q and of the output, and here every request read and wrote from row 0.",
            edits=(
                ("q_ptr + (begin + queries)[:, None]", "q_ptr + queries[:, None]"),
                ("out_ptr + (begin + queries)[:, None]", "out_ptr + queries[:, None]"),
            ),
        ),
        Mutant(
            "rows-not-divided",
            "Queries were not counted a group: with GROUP rows for each query, row r is query r // GROUP, and head r % GROUP of the group.",
            edits=(("queries, heads = packed // GROUP,", "queries, heads = packed,"),),
        ),
        Mutant(
            "grid-per-query",
            "Programs are missing: a request has up to max_q * GROUP rows a K/V head, and that many have to be covered by tiles of BLOCK_M.",
            edits=(("triton.cdiv(max_q * GROUP, BLOCK_M)", "triton.cdiv(max_q, BLOCK_M)"),),
        ),
        *sentences.looking_up("end")[:3],
        *flash.rescaling()[:1],
        *flash.scaling("new_max")[:1],
        Mutant(
            "tiles",
            "Two things ask for more: a walk that does not end at the last key that the tile's last query sees, and programs that have no query of their request and "
            "read its keys all the same.",
            edits=((_END, "end = length"),),
            rule="tiles",
        ),
        *sentences.by_rules(),
    ),
    right=RIGHT,
    seconds=9.0,
    exact_float32=True,
)
