"""Grading material: flash_forward."""

import torch

from course_lib.checks.ch05_flash_forward import sentences
from course_lib.checks.ch05_flash_forward.forward_right import MATERIALISED, RIGHT, SMALL_TILES
from course_lib.checks.ch05_flash_forward.inputs import Qkv, far_below, hot_last, qkv, rising, very_negative
from course_lib.checks.ch05_flash_forward.plain import FULL
from course_lib.checks.ch05_flash_forward.rules import flash
from course_lib.grading.spec import Check, Mutant, Probe, Property

AXES = ("sequence", "head", "query", "feature")


def _large_sums(g: torch.Generator) -> Qkv:
    """The sum of all values is near 80,000, beyond float16, and their mean is not."""
    q, k, v = qkv(g, 1, 1, 5, 400, 18)
    return (q / 64).half(), k.half(), (200 + v).half()


def forward_probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("9 queries, 75 keys, rising scores", rising(qkv(g, 1, 1, 9, 75, 20)), axes=AXES),
        Probe("67 queries, 21 keys, 2 sequences of 3 heads", qkv(g, 2, 3, 67, 21, 24), axes=AXES),
        Probe("3 queries, 40 keys, scale = 0.3", qkv(g, 1, 1, 3, 40, 18), {"scale": 0.3}, axes=AXES),
        Probe("all scores near -300, 64 keys", very_negative(qkv(g, 1, 1, 5, 64, 17)), axes=AXES),
        Probe("scores near 100, from the 33rd key on near 5", far_below(qkv(g, 1, 1, 7, 64, 32), 32), axes=AXES),
        Probe("transposed in memory, 66 queries, 50 keys", qkv(g, 1, 1, 66, 50, 23), layout="transposed", axes=AXES),
        Probe("K alone transposed in memory, 9 queries, 40 keys", qkv(g, 1, 1, 9, 40, 18), layout="mixed", axes=AXES, diagnose=False),
        Probe("all scores near -300, 45 keys", very_negative(qkv(g, 1, 1, 5, 45, 17)), axes=AXES, diagnose=False),
        Probe("the last key is hot", hot_last(qkv(g, 1, 1, 13, 67, 24)), axes=AXES, diagnose=False),
        Probe("both sequences in the same memory", qkv(g, 2, 1, 19, 35, 24), layout="expanded", axes=AXES, diagnose=False),
        Probe("64 queries, 64 keys, D = 32: no lane is off", qkv(g, 1, 1, 64, 64, 32), axes=AXES, diagnose=False),
        Probe("float16, D = 100", qkv(g, 1, 2, 20, 50, 100, dtype=torch.float16), axes=AXES, diagnose=False),
        Probe("float16, 400 values near 200, all weighing alike", _large_sums(g), axes=AXES, diagnose=False),
        Probe("3 queries, 600 keys", qkv(g, 1, 1, 3, 600, 20), axes=AXES, diagnose=False),
    ]


def _ones_stay_ones(call, g: torch.Generator) -> str | None:
    q, k, v = qkv(g, 1, 1, 11, 43, 20)
    error = (call(q, k, torch.ones_like(v)) - 1).abs().max().item()
    return None if error < 1e-5 else f"with every value 1 the output must be 1, whatever the weights; it is off by {error:.3g}"


def _order_of_keys(call, g: torch.Generator) -> str | None:
    q, k, v = qkv(g, 1, 1, 6, 50, 20)
    order = torch.randperm(50, generator=g)
    error = (call(q, k, v) - call(q, k[:, :, order], v[:, :, order])).abs().max().item()
    return None if error < 1e-4 else f"attention does not care about the order of the keys; exchanging them moved the output by {error:.3g}"


PROPERTIES = (Property("values of 1", _ones_stay_ones), Property("keys in another order", _order_of_keys))
_K = "k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd"
_TAIL = 'scores = tl.where(start + keys[None, :] < N_KV, scores, -float("inf"))\n'
_GRID = "grid = (triton.cdiv(N_Q, BLOCK_M), H, B)"


def places() -> list[Mutant]:
    """Wrong places in memory, and programs that are missing."""
    return [
        Mutant(
            "k-strides-swapped",
            "K was read with its two last strides exchanged: k_sn is the step from one key to the next, k_sd from one feature to the next.",
            edits=(
                (_K, "k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sd + dims[None, :] * k_sn"),
                ("k_ptrs + start * k_sn", "k_ptrs + start * k_sd"),
            ),
        ),
        Mutant(
            "batch-dropped",
            "Right for the first sequence, wrong for the others: K and V were read from sequence 0. `b` times their first stride is missing.",
            edits=(("k_ptr + b * k_sb + h", "k_ptr + h"), ("v_ptr + b * v_sb + h", "v_ptr + h")),
        ),
        Mutant(
            "heads-dropped",
            "Right for the first head, wrong for the others: K and V were read from head 0. `h` times their second stride is missing.",
            edits=(("b * k_sb + h * k_sh", "b * k_sb"), ("b * v_sb + h * v_sh", "b * v_sb")),
        ),
        Mutant(
            "row-max-not-kept",
            "`row_max` stays at -inf: the new maximum is used and then forgotten, so every tile starts anew and wipes out what came before. Hand "
            "`new_max` on to the next turn.",
            edits=(("        row_max = new_max\n", ""),),
        ),
        Mutant(
            "grid-rounded-down",
            "The last, partial tile of queries has no program: N_Q // BLOCK_M rounds down. Round up with triton.cdiv.",
            edits=((_GRID, "grid = (N_Q // BLOCK_M, H, B)"),),
        ),
        Mutant(
            "one-sequence",
            "Only the first sequence was computed: the third axis of the grid needs a program for every sequence.",
            edits=((_GRID, "grid = (triton.cdiv(N_Q, BLOCK_M), H)"),),
        ),
    ]


FLASH_FORWARD = Check(
    exercise="flash_forward",
    probes=forward_probes,
    reference=FULL[0],
    baselines=FULL,
    properties=PROPERTIES,
    rules=flash(),
    mutants=(
        *sentences.rescaling(),
        *sentences.dividing("new_max"),
        *sentences.scaling("new_max"),
        sentences.no_other(),
        sentences.tail_counted((_TAIL, "scores = scores + 0.0\n")),
        Mutant(
            "hidden-after-max",
            "The maximum was taken before the lanes past the last key were hidden: they hold a score of 0, and where all others lie far below, exp of "
            "their distance rounds to 0. Hide first.",
            edits=((f"{_TAIL}        {sentences.NEW_MAX}\n", f"{sentences.NEW_MAX}\n        {_TAIL}"),),
        ),
        *sentences.maxima("new_max"),
        Mutant(
            "half-accumulator",
            "Right in float32; in float16 the sum of the weighted values overflowed on the way, although their mean would have fitted. `acc` is float32 until it "
            "is divided.",
            edits=(
                ("acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)", "acc = tl.zeros([BLOCK_M, BLOCK_D], v_ptr.dtype.element_ty)"),
                (f"acc = acc * rescale[:, None] + {sentences.DOT}", f"acc = (acc * rescale[:, None] + {sentences.DOT}).to(v.dtype)"),
            ),
        ),
        *sentences.walking("for start in range(0, ", "N_KV"),
        *sentences.moving(),
        *places(),
        sentences.inverted("new_max"),
        sentences.outside(
            ("tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)", "tl.store(out_ptrs, acc / row_sum[:, None], mask=dims[None, :] < D)")
        ),
        sentences.stored_every_turn(),
        sentences.whole_row(),
        sentences.copied(),
        sentences.strides_of_k(),
        sentences.second_product_rounded(),
        Mutant(
            "small-tiles",
            "A program that owns few queries reads all of K and V for them, and so does every further walk over K, and features past D count like others. "
            "The more queries share one walk, the fewer bytes.",
            body=SMALL_TILES,
            rule="bytes",
        ),
        Mutant(
            "materialised",
            "One kernel writes the scores, N_Q x N_KV of them, and the next reads them back: that matrix is what flash attention never stores. Keep each "
            "tile of scores inside the program that multiplies it with V.",
            body=MATERIALISED,
            rule="launches",
        ),
    ),
    right=RIGHT,
    exact_float32=True,
    seconds=9.0,
)
