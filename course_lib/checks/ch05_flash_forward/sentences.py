"""Mistakes that every flash kernel of the chapter can make, as edits of its solution, which are alike in these lines."""

from course_lib.grading.kernel_rules import tf32
from course_lib.grading.spec import Mutant

RESCALE_ACC = ("acc = acc * rescale[:, None] + ", "acc = acc + ")
RESCALE_SUM = ("row_sum = row_sum * rescale + ", "row_sum = row_sum + ")
SCALED = 'scores = tl.dot(q, k.T, input_precision="ieee") * scale'
DOT = 'tl.dot(p.to(v.dtype), v, input_precision="ieee")'
DIVIDED = "acc / row_sum[:, None]"
NEW_MAX = "new_max = tl.maximum(row_max, tl.max(scores, axis=1))"
HOST_SCALE = "scale = D**-0.5 if scale is None else scale"
EMPTY = "(Rows without keys are not right yet either.)"

GUARDED = ('base = tl.where(new_max == -float("inf"), 0.0, new_max)  # no key yet: exp(-inf - 0) is 0, not NaN', "base = new_max")
UNGUARDED = (GUARDED,)  # what a beginner writes: -inf - -inf


def rescaling(*unguarded: tuple[str, str]) -> list[Mutant]:
    """What goes wrong when the maximum grows; each also as a beginner writes it, without the guards, where edits take them away."""
    said = {
        "acc-not-rescaled": (
            "This is what comes out when `acc` is not rescaled as the maximum grows. Look at what happens to the old `acc` on the line where the new "
            "product is added.",
            (RESCALE_ACC,),
        ),
        "sum-not-rescaled": (
            "This is what comes out when `row_sum` is not rescaled as the maximum grows, while `acc` is. Both count the same exponentials.",
            (RESCALE_SUM,),
        ),
        "nothing-rescaled": (
            "Neither `row_sum` nor `acc` was rescaled as the maximum grew: they hold terms relative to different maxima. Multiply both by "
            "exp(old maximum - new maximum) before adding.",
            (RESCALE_ACC, RESCALE_SUM),
        ),
    }
    made = [Mutant(id, message, edits=edits) for id, (message, edits) in said.items()]
    if unguarded:
        made += [Mutant(f"{id}-no-guard", f"{message} {EMPTY}", edits=(*edits, *unguarded)) for id, (message, edits) in said.items()]
    return made


def inverted(base: str) -> Mutant:
    return Mutant(
        "inverted",
        "The old `acc` and `row_sum` were multiplied by exp(new - old) where exp(old - new) was meant: before the first tile old is -inf, and exp of "
        "+inf is what spoils every row.",
        edits=((f"rescale = tl.exp(row_max - {base})", f"rescale = tl.exp({base} - row_max)"),),
    )


def maxima(base: str) -> list[Mutant]:
    return [
        Mutant(
            "last-tile-max",
            "The maximum is the current tile's own, and not the running one: as soon as a tile lies far below an earlier one, exp(old - new) "
            "overflows. Look at how the new maximum is made.",
            edits=((NEW_MAX, "new_max = tl.max(scores, axis=1)"),),
        ),
        Mutant(
            "max-from-zero",
            "Right, except where all scores lie far below 0: `row_max` starts at 0, so the largest score is not what is subtracted, and every "
            "exponential rounds to 0. Start it at -inf.",
            edits=(('row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)', "row_max = tl.zeros([BLOCK_M], tl.float32)"),),
        ),
        Mutant(
            "no-max",
            "Right for small scores: nothing was subtracted before exp, and exp of a score above 88 does not fit float32.",
            edits=(
                (f"p = tl.exp(scores - {base}[:, None])", "p = tl.exp(scores)"),
                (f"rescale = tl.exp(row_max - {base})", "rescale = tl.full([BLOCK_M], 1.0, tl.float32)"),
            ),
        ),
    ]


def dividing(base: str) -> list[Mutant]:
    return [
        Mutant(
            "no-divide", "The output is a sum, not an average: `acc` was never divided by row_sum. Once, after the loop.", edits=((DIVIDED, "acc"),)
        ),
        Mutant(
            "divides-every-tile",
            "`acc` was divided by row_sum inside the loop, and then added to undivided terms in the next turn. Divide once, after the last tile.",
            edits=(
                (f"acc = acc * rescale[:, None] + {DOT}", f"acc = (acc * rescale[:, None] + {DOT}) / tl.maximum(row_sum, 1e-30)[:, None]"),
                (DIVIDED, "acc"),
            ),
        ),
        Mutant(
            "averages-tiles",
            "Each tile was turned into attention of its own, and the tiles were averaged. Tiles do not weigh the same: one with larger scores weighs "
            "more. Carry row_max and row_sum from tile to tile.",
            edits=(
                (NEW_MAX, "new_max = tl.max(scores, axis=1)\n        own = tl.maximum(tl.sum(tl.exp(scores - new_max[:, None]), axis=1), 1e-30)"),
                (f"acc = acc * rescale[:, None] + {DOT}", f"acc = acc + {DOT} / own[:, None]"),
                (f"rescale = tl.exp(row_max - {base})", "rescale = tl.full([BLOCK_M], 1.0, tl.float32)"),
                (DIVIDED, "acc / tl.cdiv(N_KV, BLOCK_N)"),
            ),
        ),
    ]


def scaling(base: str) -> list[Mutant]:
    return [
        Mutant(
            "no-scale",
            "The scores were not scaled: they are multiplied by `scale` after the product, before the maximum is taken.",
            edits=((SCALED, SCALED.removesuffix(" * scale")),),
        ),
        Mutant(
            "scale-not-rooted",
            "With scale=None the scores were divided by D, not by sqrt(D).",
            edits=((HOST_SCALE, "scale = 1 / D if scale is None else scale"),),
        ),
        Mutant(
            "scale-ignored", "Right with the default scale, wrong with scale=0.3: the argument is not used.", edits=((HOST_SCALE, "scale = D**-0.5"),)
        ),
        Mutant(
            "exp2-without-log2e",
            "exp2 was used where exp was meant: 2^x = e^(x ln 2). Either use tl.exp, or multiply the scores by log2(e) = 1.4427 first.",
            edits=(
                (f"p = tl.exp(scores - {base}[:, None])", f"p = tl.exp2(scores - {base}[:, None])"),
                (f"rescale = tl.exp(row_max - {base})", f"rescale = tl.exp2(row_max - {base})"),
            ),
        ),
    ]


def walking(loop: str, end: str) -> list[Mutant]:
    """The loop over tiles of keys. `loop` is its line up to the end of the range, `end` what it runs to."""
    line = f"{loop}{end}, BLOCK_N):"
    return [
        Mutant(
            "one-tile",
            "Only the first tile of keys was read: the loop has to run over all of them, BLOCK_N keys a turn.",
            edits=((line, f"{loop}BLOCK_N, BLOCK_N):"),),
        ),
        Mutant(
            "tail-dropped",
            "The last, partial tile of keys was never read: the loop stops at the last full tile. A mask makes it safe to take one more turn.",
            edits=((line, f"{loop}{end} // BLOCK_N * BLOCK_N, BLOCK_N):"),),
        ),
        Mutant(
            "counts-queries",
            "The loop runs over the queries' length instead of the keys': with N_Q and N_KV different, keys are missed, or counted that are not there.",
            edits=((line, f"{loop}N_Q, BLOCK_N):"),),
        ),
    ]


def moving() -> list[Mutant]:
    return [
        Mutant(
            "not-advanced",
            "Every turn of the loop used the first tile of K and V again: the pointers have to move on by BLOCK_N rows.",
            edits=(("k_ptrs + start * k_sn", "k_ptrs"), ("v_ptrs + start * v_sn", "v_ptrs")),
        ),
        Mutant(
            "moved-by-elements",
            "The pointers moved on by BLOCK_N elements, not by BLOCK_N rows: multiply by the stride from one key to the next.",
            edits=(("k_ptrs + start * k_sn", "k_ptrs + start"), ("v_ptrs + start * v_sn", "v_ptrs + start")),
        ),
        Mutant(
            "v-not-advanced",
            "K moves from tile to tile, V does not: every tile's weights were multiplied by the first tile of V.",
            edits=(("v_ptrs + start * v_sn", "v_ptrs"),),
        ),
    ]


def no_other() -> Mutant:
    return Mutant(
        "no-other",
        "Lanes that a mask turns off hold nothing that you chose: a load has a mask and no `other`. A GPU leaves anything there; this check puts NaN, so that "
        "it shows. A weight of 0 does not help, since 0 times NaN is NaN: let such lanes be 0.",
        edits=tuple((f"{load}, other=0.0)", f"{load})") for load in ("k_ptrs + start * k_sn, mask=inside", "v_ptrs + start * v_sn, mask=inside")),
    )


HIDDEN = 'scores = tl.where(visible, scores, -float("inf"))'


def hidden(*no_guards: tuple[str, str]) -> list[Mutant]:
    """What goes wrong where scores are hidden, each also without the guards for empty rows."""
    said = {
        "hidden-as-zero": (
            "Hidden scores were set to 0. A score of 0 still weighs exp(0 - row_max): only -inf weighs nothing.",
            ((HIDDEN, "scores = tl.where(visible, scores, 0.0)"),),
        ),
        "hidden-large-negative": (
            "Right, except for queries that see no key: there a large negative number looks like a score shared by all keys, and the row becomes a mean of "
            "V. With -inf it can be told apart, and must give zeros.",
            ((HIDDEN, "scores = tl.where(visible, scores, -1e9)"),),
        ),
        "hidden-after-max": (
            "The maximum was taken before the scores were hidden: where a hidden one, or the 0 of a lane past the last key, is far above all that are seen, "
            "their exponentials round to 0. Hide first.",
            ((f"{HIDDEN}\n        {NEW_MAX}", f"{NEW_MAX}\n        {HIDDEN}"),),
        ),
    }
    return [
        mutant
        for id, (message, edits) in said.items()
        for mutant in (Mutant(id, message, edits=edits), Mutant(f"{id}-no-guard", f"{message} {EMPTY}", edits=(*edits, *no_guards)))
    ]


def tail_counted(edit: tuple[str, str]) -> Mutant:
    return Mutant(
        "tail-counted",
        "Right where N_KV is a multiple of the tile, wrong elsewhere: the lanes past the last key were loaded as 0, so their score is 0, and a score of 0 "
        "weighs exp(0 - row_max). They need a score of -inf.",
        edits=(edit,),
    )


def outside(*edits: tuple[str, str]) -> Mutant:
    """The guard stopped a load or a store outside every tensor: whatever the cause, this is what to look at."""
    return Mutant(
        "no-mask",
        "On a GPU this reads or overwrites whatever lies there, or ends the program. The usual causes: rows >= N_Q not masked in the load of Q or in the "
        "store, keys >= N_KV not masked in the loads of K and V, dims >= D not masked in any of them, an index multiplied by the wrong stride, or axes of the grid exchanged.",
        edits=edits,
        rule="out-of-range",
    )


def stored_every_turn() -> Mutant:
    """Edits differ a little from kernel to kernel only in what follows the loop."""
    return Mutant(
        "stored-every-turn",
        "The output is written in every turn of the loop: that is version 1's way. A program that keeps its queries keeps `acc` on the chip, and stores "
        "once, after the last tile.",
        edits=(("        row_max = new_max\n", f"        row_max = new_max\n        tl.store(out_ptrs, {DIVIDED}, mask=mine)\n"),),
        rule="stores",
    )


def whole_row() -> Mutant:
    return Mutant(
        "whole-row",
        "It works while the keys are few. A tile of K has to fit the chip however long the text is: keep BLOCK_N fixed, and walk.",
        edits=(("    BLOCK_N = 32\n", "    BLOCK_N = max(16, triton.next_power_of_2(N_KV))\n"),),
        rule="whole-row",
    )


def second_product_rounded() -> Mutant:
    """The first `tl.dot` asks for exact products, the second was forgotten."""
    return tf32(((DOT, "tl.dot(p.to(v.dtype), v)"),))


def strides_of_k(line: str = "v_ptrs + start * v_sn") -> Mutant:
    """The slip of whoever copies the line of K: right wherever K and V lie alike."""
    return Mutant(
        "v-by-strides-of-k",
        "A tensor was read with the strides of another. K and V have the same shape and need not lie alike in memory: each moves on by its own stride.",
        edits=((line, line.replace(" v_s", " k_s")),),
    )


def copied() -> Mutant:
    return Mutant(
        "copied",
        "That is what `.contiguous()`, `.float()` or `.to(...)` in the host function does.",
        edits=((f"    {HOST_SCALE}\n", f"    {HOST_SCALE}\n    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()\n"),),
        rule="copied",
    )
