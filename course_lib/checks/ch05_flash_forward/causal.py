"""Grading material: flash_forward_causal."""

import torch

from course_lib.checks.ch05_flash_forward import sentences
from course_lib.checks.ch05_flash_forward.causal_right import RIGHT
from course_lib.checks.ch05_flash_forward.forward import AXES
from course_lib.checks.ch05_flash_forward.inputs import far_below, qkv, rising, very_negative
from course_lib.checks.ch05_flash_forward.plain import CAUSAL
from course_lib.checks.ch05_flash_forward.rules import flash, tiles_skipped
from course_lib.grading.spec import Check, Mutant, Probe

END = "end = min(N_KV, (tl.program_id(0) + 1) * BLOCK_M + shift)"
VISIBLE = "visible = (start + keys[None, :] <= rows[:, None] + shift) & (start + keys[None, :] < N_KV)"
NO_DIVIDE_GUARD = ("    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys gives 0\n", "")
NO_GUARDS = (sentences.GUARDED, NO_DIVIDE_GUARD)


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("9 queries, 75 keys, rising scores", rising(qkv(g, 1, 1, 9, 75, 20)), axes=AXES),
        Probe("64 queries, 64 keys, all scores near -370, scale = 0.3", very_negative(qkv(g, 1, 1, 64, 64, 17)), {"scale": 0.3}, axes=AXES),
        Probe("150 queries, 21 keys: 129 queries see nothing", qkv(g, 1, 2, 150, 21, 24), axes=AXES),
        Probe("70 queries, 100 keys, 2 sequences of 2 heads", qkv(g, 2, 2, 70, 100, 19), axes=AXES),
        Probe("all scores near -300, scale given", very_negative(qkv(g, 1, 1, 35, 45, 17)), {"scale": 17**-0.5}, axes=AXES),
        Probe("scores near 100, from the 33rd key on near 5", far_below(qkv(g, 1, 1, 20, 64, 32), 32), axes=AXES),
        Probe("40 queries, 40 keys, scale = 0.3", qkv(g, 1, 1, 40, 40, 18), {"scale": 0.3}, axes=AXES, diagnose=False),
        Probe("192 queries, 193 keys", qkv(g, 1, 1, 192, 193, 20), axes=AXES, diagnose=False),
        Probe("transposed in memory, 66 queries, 50 keys", qkv(g, 1, 1, 66, 50, 23), layout="transposed", axes=AXES, diagnose=False),
        Probe("K alone transposed in memory, 9 queries, 40 keys", qkv(g, 1, 1, 9, 40, 18), layout="mixed", axes=AXES, diagnose=False),
        Probe("64 queries, 64 keys, D = 32: no lane is off", qkv(g, 1, 1, 64, 64, 32), axes=AXES, diagnose=False),
    ]


def a_key_short() -> Mutant:
    return Mutant(
        "ends-a-key-short",
        "The loop ends one key short: `end` is the first key that is *not* read, so it lies one past the last key that the tile's last query sees. It shows where "
        "that key is the first of a tile.",
        edits=((END, END.replace("+ shift)", "+ shift - 1)")),),
    )


def _alignment() -> list[Mutant]:
    top_left = (
        "Right where N_Q = N_KV, wrong elsewhere: the mask is aligned top left. The queries are the last N_Q of the N_KV tokens, so query i is token "
        "i + N_KV - N_Q."
    )
    strict = "A query does not see its own key: `<` where `<=` was meant. The last query of all sees every key."
    unmasked = (
        "Tiles past the diagonal are skipped, but those that it crosses are not masked: queries there see keys that come after them. Hide single scores, "
        "with -inf, before the maximum is taken."
    )
    one_less = (
        "One tile too many is skipped: the last queries of a tile of queries miss the keys nearest to them. The loop ends behind the last key that the "
        "*last* query of the tile sees."
    )
    short = (END, "end = min(N_KV, tl.program_id(0) * BLOCK_M + shift + 1)")
    lax = (VISIBLE, "visible = start + keys[None, :] < N_KV")
    narrow = (VISIBLE, VISIBLE.replace("<= rows", "< rows"))
    return [
        Mutant("top-left", top_left, edits=(("shift = N_KV - N_Q", "shift = 0"),)),
        Mutant("strict", strict, edits=(narrow,)),
        Mutant("strict-no-guard", f"{strict} {sentences.EMPTY}", edits=(narrow, *NO_GUARDS)),
        Mutant("not-masked", unmasked, edits=(lax,)),
        Mutant("not-masked-no-guard", f"{unmasked} {sentences.EMPTY}", edits=(lax, *NO_GUARDS)),
        Mutant("skips-too-much", one_less, edits=(short,)),
        Mutant("skips-too-much-no-guard", f"{one_less} {sentences.EMPTY}", edits=(short, *NO_GUARDS)),
        Mutant(
            "not-causal",
            "Every query sees every key: there is no causal mask in this kernel.",
            edits=(lax, (END, "end = N_KV")),
        ),
        Mutant(
            "shift-reversed",
            "The diagonal is moved the wrong way: with more keys than queries the first query sees more than one key, N_KV - N_Q of them besides its own.",
            edits=(("shift = N_KV - N_Q", "shift = N_Q - N_KV"),),
        ),
        *sentences.hidden(*NO_GUARDS),
    ]


def empty_rows(no_divide_guard: tuple[str, str]) -> list[Mutant]:
    return [
        Mutant(
            "empty-row",
            "Right, except where a query sees no key: -inf - -inf is NaN while a row waits for its first key, and 0 / 0 is NaN at the end. Guard both: "
            "subtract 0 instead of -inf, divide by 1 instead of 0.",
            edits=(sentences.GUARDED, no_divide_guard),
        ),
        Mutant(
            "empty-row-max",
            "Right, except where a query sees no key in a tile that is read: row_max is still -inf there, and -inf - -inf is NaN. Subtract 0 from such a row.",
            edits=(sentences.GUARDED,),
        ),
    ]


FLASH_FORWARD_CAUSAL = Check(
    exercise="flash_forward_causal",
    probes=_probes,
    reference=CAUSAL[0],
    baselines=CAUSAL,
    rules=(*flash(), tiles_skipped(always=True)),
    mutants=(
        a_key_short(),
        *_alignment(),
        *empty_rows(NO_DIVIDE_GUARD),
        *sentences.rescaling(*NO_GUARDS),
        *sentences.dividing("base")[:2],
        *sentences.scaling("base"),
        *sentences.maxima("base"),
        *sentences.moving(),
        sentences.no_other(),
        sentences.outside(("mask=mine)\n", "mask=dims[None, :] < D)\n")),
        sentences.stored_every_turn(),
        sentences.copied(),
        sentences.strides_of_k(),
        sentences.second_product_rounded(),
        Mutant(
            "nothing-skipped",
            "The hidden tiles were read, multiplied and then masked away. Let the loop end behind the last key that the tile's last query sees.",
            edits=((END, "end = N_KV"),),
            rule="tiles",
        ),
    ),
    right=RIGHT,
    exact_float32=True,
    seconds=9.0,
)
