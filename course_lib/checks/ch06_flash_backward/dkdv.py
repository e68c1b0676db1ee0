"""Grading material: flash_backward_dkdv."""

import torch

from course_lib.checks.ch05_flash_forward.inputs import far_below, hot_last, qkv, rising, very_negative
from course_lib.checks.ch06_flash_backward import sentences
from course_lib.checks.ch06_flash_backward.dkdv_right import RIGHT
from course_lib.checks.ch06_flash_backward.inputs import APART, backward_args, own_strides
from course_lib.checks.ch06_flash_backward.plain import DKDV
from course_lib.checks.ch06_flash_backward.rules import backward
from course_lib.grading.kernel_rules import tf32
from course_lib.grading.spec import Check, Mutant, Probe

AXES = ("sequence", "head", "key", "feature")
FIRST = "first = max(0, tl.program_id(0) * BLOCK_N - shift) // BLOCK_M * BLOCK_M"
VISIBLE = "visible & (keys[None, :] <= start + rows[:, None] + shift)"
DK = 'dk += tl.dot(ds.to(q.dtype).T, q, input_precision="ieee")'
DV = 'dv += tl.dot(p.to(dout.dtype).T, dout, input_precision="ieee")'
STORE_DK = "tl.store(dk_ptrs, dk * scale, mask=mine)"


def _probes(g: torch.Generator) -> list[Probe]:
    causal = {"causal": True}
    return [
        Probe("75 queries, 9 keys, rising scores", backward_args(g, rising(qkv(g, 1, 1, 75, 9, 20))), axes=AXES),
        Probe("2 sequences of 3 heads, 21 queries, 67 keys", backward_args(g, qkv(g, 2, 3, 21, 67, 24)), axes=AXES),
        Probe(
            "100 queries, 100 keys, causal, scale = 0.3", backward_args(g, qkv(g, 1, 1, 100, 100, 18), 0.3, True), {**causal, "scale": 0.3}, axes=AXES
        ),
        Probe("90 queries, 21 keys, causal: 69 queries see nothing", backward_args(g, qkv(g, 1, 2, 90, 21, 24), None, True), causal, axes=AXES),
        Probe("40 queries, 110 keys, causal", backward_args(g, qkv(g, 1, 1, 40, 110, 17), None, True), causal, axes=AXES),
        Probe("transposed in memory, 50 queries, 66 keys", backward_args(g, qkv(g, 1, 1, 50, 66, 23)), layout="transposed", axes=AXES),
        Probe("all scores near -300", backward_args(g, very_negative(qkv(g, 1, 1, 45, 5, 18))), axes=AXES, diagnose=False),
        Probe("scores near 100, from the 33rd key on near 5", backward_args(g, far_below(qkv(g, 1, 1, 7, 64, 32), 32)), axes=AXES, diagnose=False),
        Probe("the last key is hot", backward_args(g, hot_last(qkv(g, 1, 1, 13, 67, 24))), axes=AXES, diagnose=False),
        Probe("64 queries, 65 keys, causal", backward_args(g, qkv(g, 1, 1, 64, 65, 20), None, True), causal, axes=AXES, diagnose=False),
        Probe("64 queries, 64 keys, D = 32: no lane is off", backward_args(g, qkv(g, 1, 1, 64, 64, 32)), axes=AXES, diagnose=False),
        Probe("600 queries, 3 keys", backward_args(g, qkv(g, 1, 1, 600, 3, 20)), axes=AXES, diagnose=False),
    ]


FLASH_BACKWARD_DKDV = Check(
    exercise="flash_backward_dkdv",
    probes=_probes,
    reference=DKDV[0],
    baselines=DKDV,
    returns="a pair (dk, dv)",
    rules=backward("keys"),
    exact_float32=True,
    harness=APART,
    properties=(own_strides(DKDV[0], "q", 0),),
    mutants=(
        tf32(((DK, "dk += tl.dot(ds.to(q.dtype).T, q)"),)),
        *sentences.score_gradient(),
        *sentences.weights(),
        Mutant(
            "dk-not-scaled",
            "dv is right, dk lacks the factor `scale`: the scores were q @ k.T times scale. Once, at the end, is enough.",
            edits=((STORE_DK, "tl.store(dk_ptrs, dk, mask=mine)"),),
        ),
        Mutant(
            "dv-from-ds",
            "dk is right; dv was made from dS. The output is P @ V, so dv is P transposed times dout.",
            edits=((f"        {DV}\n", ""), (DK, f"{DK}\n        dv += tl.dot(ds.to(dout.dtype).T, dout, input_precision='ieee')")),
        ),
        Mutant(
            "not-added",
            "Only the last tile of queries is in dk and dv: `=` where `+=` was meant. Every query adds to the gradient of a key.",
            edits=((DK, DK.replace("+=", "=")), (DV, DV.replace("+=", "="))),
        ),
        Mutant(
            "stays-at-first-tile",
            "Every turn of the loop used the first tile of Q and dout again: their pointers have to move on by `start` rows.",
            edits=(("q_ptrs + start * q_sn", "q_ptrs"), ("dout_ptrs + start * dout_sn", "dout_ptrs")),
        ),
        Mutant(
            "only-q-stays",
            "dout moves from tile to tile, Q does not: scores and dk were made from the first tile of Q again and again.",
            edits=(("q_ptrs + start * q_sn", "q_ptrs"),),
        ),
        Mutant(
            "only-dout-stays",
            "Q moves from tile to tile, dout does not: dv and dP were made from the first tile of dout again and again.",
            edits=(("dout_ptrs + start * dout_sn", "dout_ptrs"),),
        ),
        Mutant(
            "dout-by-strides-of-q",
            "A tensor was read with the strides of another. Q and dout have the same shape and need not lie alike in memory, nor do K and V: each moves on by its "
            "own stride.",
            edits=(("dout_ptrs + start * dout_sn", "dout_ptrs + start * q_sn"),),
        ),
        Mutant(
            "grid-over-queries",
            "The grid counts tiles of queries, and a program owns a tile of keys: where there are more keys than queries, the last keys' gradients are never written.",
            edits=(("grid = (triton.cdiv(N_KV, BLOCK_N), H, B)", "grid = (triton.cdiv(N_Q, BLOCK_M), H, B)"),),
        ),
        Mutant(
            "starts-a-query-late",
            "The loop starts one query late: key j is seen from query j - (N_KV - N_Q) on, that one included. It shows where that query is the last of a tile.",
            edits=((FIRST, FIRST.replace("- shift)", "- shift + 1)")),),
        ),
        Mutant(
            "starts-on-the-diagonal",
            "Under causal=True right where N_Q = N_KV; elsewhere the loop begins at the wrong query, although the mask is right. The bound needs the shift too: key j "
            "is seen from query j - (N_KV - N_Q) on.",
            edits=((FIRST, "first = tl.program_id(0) * BLOCK_N // BLOCK_M * BLOCK_M"),),
        ),
        Mutant(
            "lse-stays",
            "Q and dout move from tile to tile, lse and delta do not: each query needs its own.",
            edits=(("lse_ptrs + start", "lse_ptrs"), ("delta_ptrs + start", "delta_ptrs")),
        ),
        Mutant(
            "counts-keys",
            "The loop runs over the keys' length instead of the queries': with N_Q and N_KV different, queries are missed.",
            edits=(("for start in range(first, N_Q, BLOCK_M):", "for start in range(first, N_KV, BLOCK_M):"),),
        ),
        Mutant(
            "starts-too-late",
            "Under causal=True one tile too many is skipped: a tile of queries that is seen in part was left out. Round the first query that sees the first key "
            "*down* to a whole tile.",
            edits=((FIRST, "first = tl.cdiv(max(0, tl.program_id(0) * BLOCK_N - shift), BLOCK_M) * BLOCK_M"),),
        ),
        Mutant(
            "not-masked",
            "Under causal=True whole tiles are skipped, but in the tiles that the diagonal crosses nothing is hidden: keys get gradients from queries that come "
            "before them.",
            edits=((VISIBLE, "visible & (start + rows[:, None] >= 0)"),),
        ),
        *sentences.masks(VISIBLE, FIRST, "first = 0"),
        sentences.outside((STORE_DK, "tl.store(dk_ptrs, dk * scale, mask=dims[None, :] < D)")),
        Mutant(
            "stored-every-turn",
            "dk and dv are written in every turn of the loop: a program that keeps its keys keeps their gradients on the chip, and stores once.",
            edits=((DK, f"{DK}\n        {STORE_DK}"),),
            rule="stores",
        ),
        sentences.copied(),
        sentences.nothing_skipped((FIRST, "first = 0"), "Let the loop begin at the tile of the first query that sees the tile's first key."),
    ),
    right=RIGHT,
    seconds=10.0,
)
