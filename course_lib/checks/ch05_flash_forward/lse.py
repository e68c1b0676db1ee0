"""Grading material: flash_forward_lse."""

import torch

from course_lib.checks.ch05_flash_forward import sentences
from course_lib.checks.ch05_flash_forward.causal import END, a_key_short, empty_rows
from course_lib.checks.ch05_flash_forward.forward import AXES
from course_lib.checks.ch05_flash_forward.inputs import hot_last, qkv, rising, very_negative
from course_lib.checks.ch05_flash_forward.lse_right import RIGHT
from course_lib.checks.ch05_flash_forward.plain import WAYS
from course_lib.checks.ch05_flash_forward.rules import flash, result_and_lse_size, tiles_skipped
from course_lib.grading.spec import Check, Mutant, Probe, Property

LSE = "row_max + tl.log(row_sum)"
NO_DIVIDE_GUARD = ("    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys: out 0, lse -inf + log(1)\n", "")
NO_GUARDS = (sentences.GUARDED, NO_DIVIDE_GUARD)
UNMASKED = (
    "With causal=True, tiles past the diagonal are skipped, but those that it crosses are not masked: queries there see keys that come after them."
)
VISIBLE = "visible & (start + keys[None, :] <= rows[:, None] + shift)"


def _probes(g: torch.Generator) -> list[Probe]:
    causal = {"causal": True}
    return [
        Probe("9 queries, 75 keys, rising scores", rising(qkv(g, 1, 1, 9, 75, 20)), axes=AXES),
        Probe("150 queries, 21 keys, causal: 129 queries see nothing", qkv(g, 1, 2, 150, 21, 24), causal, axes=AXES),
        Probe("2 sequences of 3 heads, 67 queries, 21 keys", qkv(g, 2, 3, 67, 21, 24), axes=AXES),
        Probe("70 queries, 100 keys, causal, scale = 0.3", qkv(g, 1, 1, 70, 100, 18), {**causal, "scale": 0.3}, axes=AXES),
        Probe("all scores near -300", very_negative(qkv(g, 1, 1, 5, 45, 17)), axes=AXES),
        Probe("no key at all", qkv(g, 1, 2, 5, 0, 20), axes=AXES),
        Probe("a hot last key", hot_last(qkv(g, 1, 1, 13, 67, 24)), axes=AXES, diagnose=False),
        Probe("K alone transposed in memory, 9 queries, 40 keys", qkv(g, 1, 1, 9, 40, 18), layout="mixed", axes=AXES, diagnose=False),
        Probe("transposed in memory, 66 queries, 50 keys, causal", qkv(g, 1, 1, 66, 50, 23), causal, layout="transposed", axes=AXES, diagnose=False),
        Probe("192 queries, 193 keys, causal", qkv(g, 1, 1, 192, 193, 20), causal, axes=AXES, diagnose=False),
    ]


def _shifted(call, g: torch.Generator) -> str | None:
    """Adding 3 to every score leaves the output alone and raises lse by 3."""
    q, k, v = qkv(g, 1, 1, 6, 41, 20)
    q[..., 0], k[..., 0] = 1, 0
    moved = k.clone()
    moved[..., 0] = 3 * 20**0.5
    (out, lse), (out3, lse3) = call(q, k, v), call(q, moved, v)
    if (lse3 - lse - 3).abs().max().item() > 1e-4:
        return "with 3 added to every score, lse must rise by 3"
    return None if (out - out3).abs().max().item() < 1e-4 else "with 3 added to every score, the output must stay as it is"


FLASH_FORWARD_LSE = Check(
    exercise="flash_forward_lse",
    probes=_probes,
    reference=WAYS[0],
    baselines=WAYS,
    returns="a pair (out, lse)",
    properties=(Property("scores moved by 3", _shifted),),
    rules=(*flash(result_and_lse_size), tiles_skipped(always=False)),
    mutants=(
        *empty_rows(NO_DIVIDE_GUARD),
        a_key_short(),
        Mutant(
            "lse-base-2",
            "The output is right; the logarithm of row_sum in lse was taken to base 2, so it is 1.44 times too large. The course's lse is a natural "
            "logarithm.",
            edits=((LSE, "row_max + tl.log2(row_sum)"),),
        ),
        Mutant(
            "lse-all-base-2",
            "The output is right, lse is 1.4427 times too large: it is a logarithm to base 2. Multiply it by ln 2 = 0.6931 at the end.",
            edits=((LSE, "(row_max + tl.log(row_sum)) * 1.4426950408889634"),),
        ),
        Mutant(
            "lse-without-max",
            "The output is right, lse is the logarithm of row_sum alone. row_sum was counted relative to row_max: add it.",
            edits=((LSE, "tl.log(row_sum)"),),
        ),
        Mutant("lse-is-max", "The output is right, and what stands in lse is row_max. Add log(row_sum).", edits=((LSE, "row_max"),)),
        Mutant("lse-without-log", "The output is right, lse is row_max + row_sum: the logarithm is missing.", edits=((LSE, "row_max + row_sum"),)),
        Mutant("lse-is-sum", "The output is right, and what stands in lse is row_sum: lse = row_max + log(row_sum).", edits=((LSE, "row_sum"),)),
        Mutant(
            "lse-negated",
            "The output is right, lse has row_max with the wrong sign: lse = row_max + log(row_sum).",
            edits=((LSE, "tl.log(row_sum) - row_max"),),
        ),
        Mutant(
            "lse-not-minus-inf",
            "Right, except for rows without keys: their lse has to be -inf, not a large negative number. Whoever merges two results by lse must see that "
            "this one is empty.",
            edits=(('row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)', "row_max = tl.full([BLOCK_M], -1e30, tl.float32)"),),
        ),
        Mutant(
            "lse-zero-when-empty",
            "Right, except for rows without keys: their lse is 0, which says that their exponentials add up to 1. They add up to 0, so it is -inf.",
            edits=((LSE, 'tl.where(row_max == -float("inf"), 0.0, row_max) + tl.log(row_sum)'),),
        ),
        Mutant(
            "causal-ignored",
            "Right without causal, wrong with causal=True: the argument is not used.",
            edits=((VISIBLE, "visible"), (END, "end = N_KV")),
        ),
        Mutant(
            "always-causal",
            "Right with causal=True, wrong without: every query is masked. The mask and the early end of the loop belong under `if CAUSAL:`.",
            edits=((" CAUSAL=causal,", " CAUSAL=True,"),),
        ),
        Mutant(
            "top-left",
            "Right where N_Q = N_KV or nothing is masked, wrong elsewhere: the mask is aligned top left. Query i is token i + N_KV - N_Q.",
            edits=(("shift = N_KV - N_Q", "shift = 0"),),
        ),
        Mutant("not-masked", UNMASKED, edits=((VISIBLE, "visible"),)),
        Mutant("not-masked-no-guard", f"{UNMASKED} {sentences.EMPTY}", edits=((VISIBLE, "visible"), *NO_GUARDS)),
        *sentences.hidden(*NO_GUARDS),
        Mutant(
            "empty-row-divide",
            "Only the output of rows without keys is wrong, their lse is right: acc is 0 there, and so is row_sum. What should a sum of 0 be divided by?",
            edits=(NO_DIVIDE_GUARD,),
        ),
        *sentences.rescaling(*NO_GUARDS),
        *sentences.scaling("base")[:3],
        sentences.tail_counted(("visible = start + keys[None, :] < N_KV\n", "visible = start + keys[None, :] >= 0\n")),
        *sentences.maxima("base")[:1],
        *sentences.moving(),
        sentences.no_other(),
        sentences.outside(("mask=rows < N_Q)\n", "mask=rows >= 0)\n")),
        sentences.copied(),
        sentences.strides_of_k(),
        sentences.second_product_rounded(),
        Mutant(
            "stored-twice",
            "lse is written in every turn of the loop, or the output is: each belongs after the last tile, once.",
            edits=(("        row_max = new_max\n", f"        row_max = new_max\n        tl.store(lse_ptrs, {LSE}, mask=rows < N_Q)\n"),),
            rule="stores",
        ),
        Mutant(
            "nothing-skipped",
            "Under causal=True the hidden tiles were read, multiplied and then masked away. Let the loop end earlier, as in flash_forward_causal.",
            edits=((END, "end = N_KV"),),
            rule="tiles",
        ),
    ),
    right=RIGHT,
    exact_float32=True,
    seconds=9.0,
)
