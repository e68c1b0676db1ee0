"""Grading material: flash_backward_dq."""

import torch

from course_lib.checks.ch05_flash_forward.inputs import far_below, qkv, rising, very_negative
from course_lib.checks.ch06_flash_backward import sentences
from course_lib.checks.ch06_flash_backward.dq_right import RIGHT
from course_lib.checks.ch06_flash_backward.inputs import APART, backward_args, own_strides
from course_lib.checks.ch06_flash_backward.plain import DQ
from course_lib.checks.ch06_flash_backward.rules import backward
from course_lib.grading.kernel_rules import tf32
from course_lib.grading.spec import Check, Mutant, Probe

AXES = ("sequence", "head", "query", "feature")
END = "end = min(N_KV, (tl.program_id(0) + 1) * BLOCK_M + shift)"
VISIBLE = "visible & (start + keys[None, :] <= rows[:, None] + shift)"
DQ_LINE = 'dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee")'
STORE = "tl.store(dq_ptrs, dq * scale, mask=mine)"


def _probes(g: torch.Generator) -> list[Probe]:
    causal = {"causal": True}
    return [
        Probe("9 queries, 75 keys, rising scores", backward_args(g, rising(qkv(g, 1, 1, 9, 75, 20))), axes=AXES),
        Probe("5 queries, 45 keys, all scores near -300", backward_args(g, very_negative(qkv(g, 1, 1, 5, 45, 18))), axes=AXES),
        Probe("2 sequences of 3 heads, 67 queries, 21 keys", backward_args(g, qkv(g, 2, 3, 67, 21, 24)), axes=AXES),
        Probe(
            "100 queries, 100 keys, causal, scale = 0.3", backward_args(g, qkv(g, 1, 1, 100, 100, 18), 0.3, True), {**causal, "scale": 0.3}, axes=AXES
        ),
        Probe("90 queries, 21 keys, causal: 69 queries see nothing", backward_args(g, qkv(g, 1, 2, 90, 21, 24), None, True), causal, axes=AXES),
        Probe("40 queries, 110 keys, causal", backward_args(g, qkv(g, 1, 1, 40, 110, 17), None, True), causal, axes=AXES),
        Probe(
            "transposed in memory, 66 queries, 50 keys", backward_args(g, qkv(g, 1, 1, 66, 50, 23)), layout="transposed", axes=AXES, diagnose=False
        ),
        Probe("no key at all", backward_args(g, qkv(g, 1, 2, 5, 0, 20)), axes=AXES, diagnose=False),
        Probe("scores near 100, from the 33rd key on near 5", backward_args(g, far_below(qkv(g, 1, 1, 7, 64, 32), 32)), axes=AXES, diagnose=False),
        Probe("64 queries, 65 keys, causal", backward_args(g, qkv(g, 1, 1, 64, 65, 20), None, True), causal, axes=AXES, diagnose=False),
        Probe("64 queries, 64 keys, D = 32: no lane is off", backward_args(g, qkv(g, 1, 1, 64, 64, 32)), axes=AXES, diagnose=False),
        Probe("3 queries, 600 keys", backward_args(g, qkv(g, 1, 1, 3, 600, 20)), axes=AXES, diagnose=False),
    ]


FLASH_BACKWARD_DQ = Check(
    exercise="flash_backward_dq",
    probes=_probes,
    reference=DQ[0],
    baselines=DQ,
    rules=backward("queries"),
    exact_float32=True,
    harness=APART,
    properties=(own_strides(DQ[0], "k", 1),),
    mutants=(
        tf32(((DQ_LINE, "dq += tl.dot(ds.to(k.dtype), k)"),)),
        *sentences.score_gradient()[:3],
        *sentences.weights()[:1],
        *sentences.weights()[3:],
        Mutant(
            "dq-not-scaled",
            "dq lacks the factor `scale`: the scores were q @ k.T times scale. Once, at the end, is enough.",
            edits=((STORE, "tl.store(dq_ptrs, dq, mask=mine)"),),
        ),
        Mutant(
            "tail-overflows",
            "Right where all lanes of a tile are keys, or where scores are moderate. A lane past the last key was loaded as 0, its score is 0, and exp(0 - lse) "
            "overflows where lse is very negative: infinity times 0 is NaN. Hide these lanes, as `visible` would.",
            edits=(("visible = start + keys[None, :] < N_KV\n", "visible = start + keys[None, :] >= 0\n"),),
        ),
        Mutant(
            "dq-from-v",
            "dS was multiplied with V. The scores are q @ k.T, so dq is dS @ K.",
            edits=((DQ_LINE, 'dq += tl.dot(ds.to(v.dtype), v, input_precision="ieee")'),),
        ),
        Mutant(
            "not-added",
            "Only the last tile of keys is in dq: `=` where `+=` was meant.",
            edits=((DQ_LINE, DQ_LINE.replace("+=", "=")),),
        ),
        Mutant(
            "v-by-strides-of-k",
            "A tensor was read with the strides of another. K and V have the same shape and need not lie alike in memory: each moves on by its own stride.",
            edits=(("v_ptrs + start * v_sn", "v_ptrs + start * k_sn"),),
        ),
        Mutant(
            "v-not-advanced",
            "K moves from tile to tile, V does not: dP was made from the first tile of V again and again.",
            edits=(("v_ptrs + start * v_sn", "v_ptrs"),),
        ),
        *sentences.masks(VISIBLE, END, "end = N_KV")[:2],
        Mutant(
            "ends-a-key-short",
            "The loop ends one key short: `end` is the first key that is *not* read, so it lies one past the last key that the tile's last query sees. It shows where "
            "that key is the first of a tile.",
            edits=((END, END.replace("+ shift)", "+ shift - 1)")),),
        ),
        sentences.outside((STORE, "tl.store(dq_ptrs, dq * scale, mask=dims[None, :] < D)")),
        sentences.nothing_skipped((END, "end = N_KV"), "Let the loop end behind the last key that the tile's last query sees."),
    ),
    right=RIGHT,
    seconds=9.0,
)
