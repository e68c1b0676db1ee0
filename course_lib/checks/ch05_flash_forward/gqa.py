"""Grading material: flash_forward_gqa."""

import torch

from course_lib.checks.ch05_flash_forward import sentences
from course_lib.checks.ch05_flash_forward.forward import AXES
from course_lib.checks.ch05_flash_forward.gqa_right import PER_HEAD, RIGHT
from course_lib.checks.ch05_flash_forward.inputs import hot_last, qkv, rising
from course_lib.checks.ch05_flash_forward.plain import FULL
from course_lib.checks.ch05_flash_forward.rules import flash, read_once_a_group
from course_lib.grading.spec import Check, Mutant, Probe

_HEADS, _ROWS = "heads = h * GROUP + packed % GROUP", "rows = packed // GROUP"
_GRID = "grid = (triton.cdiv(GROUP * N_Q, BLOCK_M), H_KV, B)"


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("4 heads share 1, 3 queries, 75 keys", rising(qkv(g, 1, 4, 3, 75, 20, h_kv=1)), axes=AXES),
        Probe("6 heads share 2, 2 sequences, 5 queries, 21 keys", qkv(g, 2, 6, 5, 21, 24, h_kv=2), axes=AXES),
        Probe("6 heads share 2, 25 queries, 40 keys", qkv(g, 1, 6, 25, 40, 18, h_kv=2), axes=AXES),
        Probe("8 heads share 2, 2 queries, 40 keys, scale = 0.3", qkv(g, 1, 8, 2, 40, 17, h_kv=2), {"scale": 0.3}, axes=AXES),
        Probe("3 heads of their own, 20 queries, 33 keys", qkv(g, 1, 3, 20, 33, 19), axes=AXES),
        Probe("transposed in memory, 4 heads share 2, 35 queries, 50 keys", qkv(g, 1, 4, 35, 50, 23, h_kv=2), layout="transposed", axes=AXES),
        Probe("K alone transposed in memory, 2 heads share 1, 9 queries, 40 keys", qkv(g, 1, 2, 9, 40, 18, h_kv=1), layout="mixed", axes=AXES, diagnose=False),
        Probe("a hot last key, 2 heads share 1", hot_last(qkv(g, 1, 2, 13, 67, 24, h_kv=1)), axes=AXES, diagnose=False),
        Probe("4 heads share 1, 16 queries, 64 keys, D = 32: no lane is off", qkv(g, 1, 4, 16, 64, 32, h_kv=1), axes=AXES, diagnose=False),
    ]


FLASH_FORWARD_GQA = Check(
    exercise="flash_forward_gqa",
    probes=_probes,
    reference=FULL[0],
    baselines=FULL,
    rules=flash(reads=read_once_a_group, what="reading Q once, and K and V once for every 16 queries of a group"),
    mutants=(
        Mutant(
            "heads-interleaved",
            "Query head h was given K/V head h % H_KV. Neighbours share: it is h // GROUP, so the heads of K/V head g are g * GROUP and the ones after it.",
            edits=((_HEADS, "heads = h + tl.num_programs(1) * (packed % GROUP)"),),
        ),
        Mutant(
            "first-head-only",
            "All rows of the tile were taken from the first head of the group: each row needs its own head, in the pointer of Q and in that of the output.",
            edits=((_HEADS, "heads = h * GROUP + packed * 0"),),
        ),
        Mutant(
            "head-wrong-on-store",
            "Rows were read from their own heads and all stored into the group's first: the pointer of the output needs the head of each row as well.",
            edits=(("heads[:, None] * out_sh", "(heads[:, None] * 0 + h * GROUP) * out_sh"),),
        ),
        Mutant(
            "rows-not-divided",
            "The queries were not counted a group: with GROUP rows for each query, row r is query r // GROUP, and head r % GROUP of the group.",
            edits=((_ROWS, "rows = packed"),),
        ),
        Mutant(
            "unpacked-two-ways",
            "Query and head were taken from the row's number by two different rules: if the head is r % GROUP, the query is r // GROUP; if the head is "
            "r // N_Q, the query is r % N_Q.",
            edits=((_ROWS, "rows = packed % N_Q"),),
        ),
        Mutant(
            "grid-per-query",
            "Programs are missing: a K/V head has GROUP * N_Q queries, so that many have to be covered by tiles of BLOCK_M.",
            edits=((_GRID, "grid = (triton.cdiv(N_Q, BLOCK_M), H_KV, B)"),),
        ),
        Mutant(
            "grid-rounded-down",
            "The last, partial tile has no program: GROUP * N_Q // BLOCK_M rounds down. Round up with triton.cdiv.",
            edits=((_GRID, "grid = (GROUP * N_Q // BLOCK_M, H_KV, B)"),),
        ),
        Mutant(
            "batch-dropped",
            "Right for the first sequence, wrong for the others: K and V were read from sequence 0. `b` times their first stride is missing.",
            edits=(("k_ptr + b * k_sb + h", "k_ptr + h"), ("v_ptr + b * v_sb + h", "v_ptr + h")),
        ),
        Mutant(
            "kv-head-dropped",
            "Right for the first K/V head, wrong for the others: K and V were read from head 0. `h` times their second stride is missing.",
            edits=(("b * k_sb + h * k_sh", "b * k_sb"), ("b * v_sb + h * v_sh", "b * v_sb")),
        ),
        *sentences.rescaling(),
        *sentences.dividing("new_max")[:2],
        *sentences.scaling("new_max")[:3],
        sentences.no_other(),
        sentences.tail_counted(('scores = tl.where(start + keys[None, :] < N_KV, scores, -float("inf"))\n', "scores = scores + 0.0\n")),
        *sentences.walking("for start in range(0, ", "N_KV")[:2],
        *sentences.moving(),
        sentences.outside(
            ("tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)", "tl.store(out_ptrs, acc / row_sum[:, None], mask=dims[None, :] < D)")
        ),
        sentences.stored_every_turn(),
        sentences.copied(),
        sentences.strides_of_k(),
        sentences.second_product_rounded(),
        Mutant(
            "read-per-head",
            "That is what a program for each query head asks for: the heads of a group read the same K and V, one after the other. Let one program own "
            "queries of all the group's heads.",
            body=PER_HEAD,
            rule="bytes",
        ),
    ),
    right=RIGHT,
    exact_float32=True,
    seconds=9.0,
)
