"""Grading material: flash_forward_window."""

import torch

from course_lib.checks.ch05_flash_forward import sentences
from course_lib.checks.ch05_flash_forward.inputs import far_below, hot_last, qkv, rising
from course_lib.checks.ch07_faster_and_more_general.plain import WINDOWED
from course_lib.checks.ch07_faster_and_more_general.rules import window
from course_lib.checks.ch07_faster_and_more_general.window_right import RIGHT
from course_lib.grading.spec import Check, Mutant, Probe, Property

AXES = ("sequence", "head", "query", "feature")


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("9 queries and keys, window 3", (*rising(qkv(g, 1, 1, 9, 9, 20)), 3), axes=AXES),
        Probe("100 queries and keys, window 200: plain causal", (*qkv(g, 1, 2, 100, 100, 24), 200), axes=AXES),
        Probe("70 queries, 120 keys, window 33", (*rising(qkv(g, 2, 1, 70, 120, 19)), 33), axes=AXES),
        Probe("120 queries, 50 keys, window 20: 70 queries see nothing", (*qkv(g, 1, 1, 120, 50, 18), 20), {"scale": 0.3}, axes=AXES),
        Probe("40 queries and keys, window 1: each sees itself", (*qkv(g, 1, 2, 40, 40, 17), 1), axes=AXES),
        Probe("scores near 100, from the 33rd key on near 5, window 40", (*far_below(qkv(g, 1, 1, 64, 64, 32), 32), 40), axes=AXES),
        Probe("128 queries and keys, window 64: whole tiles", (*qkv(g, 1, 1, 128, 128, 16), 64), axes=AXES, diagnose=False),
        Probe(
            "transposed in memory, 66 queries, 90 keys, window 10", (*qkv(g, 1, 1, 66, 90, 23), 10), layout="transposed", axes=AXES, diagnose=False
        ),
        Probe("K alone transposed in memory, 9 queries, 40 keys, window 35", (*qkv(g, 1, 1, 9, 40, 18), 35), layout="mixed", axes=AXES, diagnose=False),
        Probe("96 queries, 97 keys, window 35", (*qkv(g, 1, 1, 96, 97, 20), 35), axes=AXES, diagnose=False),
        Probe("the last key is hot, window 5", (*hot_last(qkv(g, 1, 1, 70, 70, 24)), 5), axes=AXES, diagnose=False),
        Probe("3 queries, 128 keys, window 50", (*qkv(g, 1, 1, 3, 128, 20), 50), axes=AXES, diagnose=False),
    ]


def _ones_stay_ones(call, g: torch.Generator) -> str | None:
    q, k, v = qkv(g, 1, 1, 50, 70, 20)
    error = (call(q, k, torch.ones_like(v), 7) - 1).abs().max().item()
    return None if error < 1e-5 else f"with every value 1 the output must be 1, whatever the weights; it is off by {error:.3g}"


_BEGIN = "begin = max(0, first_seen) // BLOCK_N * BLOCK_N"
_FIRST = "first_seen = tl.program_id(0) * BLOCK_M + shift - window + 1"
_END = "end = min(N_KV, (tl.program_id(0) + 1) * BLOCK_M + shift)"
_LAST = "last_seen = rows[:, None] + shift"
_VISIBLE = "visible = (start + keys[None, :] <= last_seen) & (start + keys[None, :] > last_seen - window)"
_HIDE = 'scores = tl.where(visible & (start + keys[None, :] < N_KV), scores, -float("inf"))'


def _edges() -> list[Mutant]:
    return [
        Mutant(
            "one-key-short",
            "A query sees one key too few: its own position counts as one of the `window`. The first one it sees is i + shift - window + 1.",
            edits=((_VISIBLE, _VISIBLE.replace("last_seen - window", "last_seen - window + 1")),),
        ),
        Mutant(
            "one-key-more",
            "A query sees one key too many: its own position counts as one of the `window`, so i + shift - window is already outside.",
            edits=((_VISIBLE, _VISIBLE.replace("> last_seen", ">= last_seen")), (_FIRST, _FIRST.replace(" + 1", ""))),
        ),
        Mutant(
            "far-keys-not-hidden",
            "Whole tiles before the window are skipped, but in the first tile that is read the keys too far back still count. Hide single scores on that side too.",
            edits=((_VISIBLE, "visible = start + keys[None, :] <= last_seen"),),
        ),
        Mutant(
            "not-causal",
            "Queries see keys that come after them: the window ends at the query's own position.",
            edits=((_VISIBLE, "visible = start + keys[None, :] > last_seen - window"),),
        ),
        Mutant(
            "looks-ahead",
            "The window lies on the wrong side: a query sees its own position and the ones *before* it.",
            edits=((_VISIBLE, "visible = (start + keys[None, :] >= last_seen) & (start + keys[None, :] < last_seen + window)"), (_END, "end = N_KV")),
        ),
        Mutant(
            "mask-top-left",
            "Right where N_Q = N_KV: the mask forgets `shift`. Query i stands at position i + N_KV - N_Q among the keys.",
            edits=((_LAST, "last_seen = rows[:, None] + 0 * shift"),),
        ),
        Mutant(
            "hidden-as-zero",
            "Hidden scores were set to 0. A score of 0 still weighs exp(0 - row_max): only -inf weighs nothing.",
            edits=((_HIDE, _HIDE.replace('-float("inf")', "0.0")),),
        ),
        Mutant(
            "hidden-large-negative",
            "Right, except for queries that see no key at all: there a large negative number looks like a score shared by all keys, and the row becomes a mean "
            "of V. With -inf it can be told apart, and must give zeros.",
            edits=((_HIDE, _HIDE.replace('-float("inf")', "-1e9")),),
        ),
    ]


def _loop() -> list[Mutant]:
    return [
        Mutant(
            "begins-for-the-last-query",
            "The loop begins where the tile's *last* query begins to see. The first query of the tile reaches further back: its keys were never read.",
            edits=((_FIRST, "first_seen = (tl.program_id(0) + 1) * BLOCK_M - 1 + shift - window + 1"),),
        ),
        Mutant(
            "begins-rounded-up",
            "The tile that holds the first visible key was skipped: begin was rounded up to the next tile. Round down.",
            edits=((_BEGIN, "begin = (max(0, first_seen) + BLOCK_N - 1) // BLOCK_N * BLOCK_N"),),
        ),
        Mutant(
            "begins-without-shift",
            "Right where there are no more queries than keys: `begin` forgets `shift`. With more queries than keys it lies too far to the right.",
            edits=((_FIRST, "first_seen = tl.program_id(0) * BLOCK_M - window + 1 + max(0, shift)"),),
        ),
        Mutant(
            "ends-for-the-first-query",
            "The loop ends behind the last key that the tile's *first* query sees. The others see further.",
            edits=((_END, "end = min(N_KV, tl.program_id(0) * BLOCK_M + shift + 1)"),),
        ),
        Mutant(
            "ends-a-key-short",
            "The loop ends one key short: `end` is the first key that is *not* read, so it lies one past the last key that the tile's last query sees. It shows where "
            "that key is the first of a tile.",
            edits=((_END, _END.replace("+ shift)", "+ shift - 1)")),),
        ),
        Mutant(
            "begins-a-key-late",
            "The loop begins one key late: a query's own position counts as one of the `window`, so the first query sees from i + shift - window + 1 on. It shows "
            "where that key is the last of a tile.",
            edits=((_FIRST, _FIRST.replace("+ 1", "+ 2")),),
        ),
        Mutant(
            "window-only",
            "The loop reads `window` keys a tile of queries. That is what one query needs; a tile of BLOCK_M queries needs window + BLOCK_M - 1.",
            edits=((_END, "end = min(min(N_KV, (tl.program_id(0) + 1) * BLOCK_M + shift), begin + window)"),),
        ),
        Mutant(
            "below-zero",
            "`begin` falls below 0 for the first queries, and the loads read in front of the tensor: it is max(0, ...).",
            edits=((_BEGIN, "begin = first_seen"),),
            rule="out-of-range",
        ),
        Mutant(
            "nothing-skipped-before",
            "The tiles in front of the window were read, multiplied and masked away. Let the loop begin with the first tile that the tile's first query sees.",
            edits=((_BEGIN, "begin = 0"),),
            rule="tiles-before",
        ),
        Mutant(
            "nothing-skipped-after",
            "The tiles past the diagonal were read, multiplied and masked away. Let the loop end behind the last key that the tile's last query sees.",
            edits=((_END, "end = N_KV"),),
            rule="tiles-after",
        ),
    ]


def _sums() -> list[Mutant]:
    return [
        sentences.second_product_rounded(),
        Mutant(
            "first-tile-empty",
            "NaN where a query sees nothing of the first tile that is read. In a window that happens to most queries of a tile, not only to those without any "
            "key: row_max is still -inf there, and -inf - -inf is NaN. Subtract 0 from such a row.",
            edits=(sentences.GUARDED,),
        ),
        sentences.maxima("base")[0],
        sentences.copied(),
        sentences.strides_of_k(),
    ]


FLASH_FORWARD_WINDOW = Check(
    exercise="flash_forward_window",
    probes=_probes,
    reference=WINDOWED[0],
    baselines=WINDOWED,
    properties=(Property("values of 1", _ones_stay_ones),),
    rules=window(),
    exact_float32=True,
    mutants=(*_edges(), *_loop(), *_sums()),
    right=RIGHT,
    seconds=9.0,
)
