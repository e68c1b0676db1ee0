"""Grading material: flash_forward_varlen."""

import itertools

import torch
from torch import Tensor

from course_lib.checks.ch05_flash_forward import sentences
from course_lib.checks.ch07_faster_and_more_general.plain import PACKED, spans
from course_lib.checks.ch07_faster_and_more_general.rules import packed
from course_lib.checks.ch07_faster_and_more_general.varlen_right import RIGHT
from course_lib.grading.spec import Check, Mutant, Probe, Property

AXES = ("token", "head", "feature")


def cu(lengths: list[int]) -> Tensor:
    """Where each sequence begins, and where the last one ends: [0, l0, l0 + l1, ...], int32."""
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


def sequences(
    g: torch.Generator, queries: list[int], keys: list[int], h: int, d: int, dtype: torch.dtype = torch.float32, longest: int | None = None
):
    """Arguments of the exercise. Every sequence and every head of V has an offset of its own, so that a foreign key shows."""
    q, k, v = (torch.randn(sum(lengths), h, d, generator=g) for lengths in (queries, keys, keys))
    cu_q, cu_k = cu(queries), cu(keys)
    for b, (first, end) in enumerate(spans(cu_k)):
        v[first:end] += 2.0 * b
    v += 0.75 * torch.arange(h)[:, None]
    return q.to(dtype), k.to(dtype), v.to(dtype), cu_q, cu_k, max(queries) if longest is None else longest


def rising(given):
    """The same, with scores that rise from key to key inside every sequence."""
    q, k, v, cu_q, cu_k, longest = given
    q, k = q.clone(), k.clone()
    q[..., 0] = 1
    for first, end in spans(cu_k):
        k[first:end, :, 0] = torch.linspace(-7, 7, end - first)[:, None] * q.shape[-1] ** 0.5
    return q, k, v, cu_q, cu_k, longest


def _probes(g: torch.Generator) -> list[Probe]:
    causal = {"causal": True}
    return [
        Probe("lengths 5 and 40, 2 heads", rising(sequences(g, [5, 40], [5, 40], 2, 20)), axes=AXES),
        Probe("queries 70, 7 and 12, keys 50, 21 and 40", sequences(g, [70, 7, 12], [50, 21, 40], 1, 24), axes=AXES),
        Probe("the same lengths, causal", sequences(g, [70, 7, 12], [50, 21, 40], 1, 24), causal, axes=AXES),
        Probe("one token each, 3 sequences", sequences(g, [1, 1, 1], [1, 1, 1], 1, 17), causal, axes=AXES),
        Probe("no query in the 2nd sequence, no key in the 3rd", sequences(g, [9, 0, 6, 3], [8, 5, 0, 33], 1, 18), {"scale": 0.3}, axes=AXES),
        Probe("K alone transposed in memory, lengths 9 and 40", sequences(g, [9, 40], [9, 40], 2, 18), layout="mixed", axes=AXES, diagnose=False),
        Probe("transposed in memory, lengths 66 and 68, causal", sequences(g, [66, 68], [66, 68], 2, 23), causal, layout="transposed", axes=AXES),
        Probe("6 sequences of 13 tokens, max_q above the longest", sequences(g, [13] * 6, [13] * 6, 1, 16, longest=16), axes=AXES, diagnose=False),
        Probe("64 tokens, D = 32: no lane is off", sequences(g, [64], [64], 1, 32), axes=AXES, diagnose=False),
        Probe("64 queries, 65 keys, causal", sequences(g, [64], [65], 1, 20), causal, axes=AXES, diagnose=False),
        Probe("one sequence, 30 queries, 100 keys, causal", sequences(g, [30], [100], 1, 20), causal, axes=AXES, diagnose=False),
    ]


def _no_leak(call, g: torch.Generator) -> str | None:
    """Other numbers in one sequence must not move a bit of the others."""
    q, k, v, cu_q, cu_k, longest = sequences(g, [20, 9, 14], [20, 9, 14], 1, 16)
    before = call(q, k, v, cu_q, cu_k, longest)
    first, end = spans(cu_k)[1]
    k[first:end], v[first:end] = 3.0, 1000.0
    moved = (call(q, k, v, cu_q, cu_k, longest) - before).abs().amax(dim=(1, 2))
    for b, (start, stop) in enumerate(spans(cu_q)):
        if b != 1 and moved[start:stop].max() > 0:
            return f"new keys and values in sequence 1 changed the output of sequence {b}: its queries see keys of another document."
    return None


_END = "    if tl.program_id(0) * BLOCK_M >= N_Q:\n        end = 0  # this sequence is too short to have queries for me\n"
_N_KV = "N_KV = (tl.load(cu_k_ptr + b + 1) - k_first).to(tl.int32)"
_N_Q = "N_Q = (tl.load(cu_q_ptr + b + 1) - q_first).to(tl.int32)"
_SHIFT, _GRID = "shift = N_KV - N_Q", "grid = (triton.cdiv(max_q, BLOCK_M), H, B)"
_Q_FIRST, _K_FIRST = "q_first = tl.load(cu_q_ptr + b).to(tl.int64)", "k_first = tl.load(cu_k_ptr + b).to(tl.int64)"
_LAUNCH = "    flash_forward_varlen_kernel[grid](\n"


def _leaks() -> list[Mutant]:
    return [
        Mutant(
            "documents-ignored",
            "The sequences were taken for one: every query sees the keys of all documents. Each program has to work inside its own sequence.",
            edits=(
                (_Q_FIRST, "q_first = tl.load(cu_q_ptr).to(tl.int64) * 0"),
                (_K_FIRST, "k_first = tl.load(cu_k_ptr).to(tl.int64) * 0"),
                (_N_Q, "N_Q = tl.load(cu_q_ptr).to(tl.int32)"),
                (_N_KV, "N_KV = tl.load(cu_k_ptr).to(tl.int32)"),
                (_GRID, "grid = (triton.cdiv(q.shape[0], BLOCK_M), H, 1)"),
                ("q, k, v, out, cu_q, cu_k, D, scale,", "q, k, v, out, cu_q[-1:], cu_k[-1:], D, scale,"),
            ),
        ),
        Mutant(
            "leak-behind",
            "Keys of another document leak in: N_KV runs to the last key of all, so a sequence sees the keys of those behind it. It ends where the next one begins.",
            edits=((_N_KV, "N_KV = (tl.load(cu_k_ptr + tl.num_programs(2)) - k_first).to(tl.int32)"),),
        ),
        Mutant(
            "keys-from-start",
            "Keys of another document leak in: right for the first sequence, and the others read their keys and values from the beginning of the packed tensor. "
            "Add k_first to the row of K and of V.",
            edits=(
                ("k_ptr + (k_first + keys[:, None])", "k_ptr + (keys[:, None])"),
                ("v_ptr + (k_first + keys[:, None])", "v_ptr + (keys[:, None])"),
            ),
        ),
        Mutant(
            "values-from-start",
            "The keys are the sequence's own, the values are the first sequence's: V needs k_first as K does.",
            edits=(("v_ptr + (k_first + keys[:, None])", "v_ptr + (keys[:, None])"),),
        ),
        Mutant(
            "queries-mark-keys",
            "Right where every sequence has as many keys as queries: K and V were cut by cu_q. They have their own marks, cu_k.",
            edits=((_K_FIRST, "k_first = tl.load(cu_q_ptr + b).to(tl.int64)"), (_N_KV, "N_KV = (tl.load(cu_q_ptr + b + 1) - k_first).to(tl.int32)")),
        ),
        Mutant(
            "keys-begin-with-queries",
            "Right where a sequence's queries and keys begin at the same place: the beginning of K and V was read from cu_q, their end from cu_k. Both are in cu_k.",
            edits=((_K_FIRST, "k_first = tl.load(cu_q_ptr + b).to(tl.int64)"),),
        ),
        Mutant(
            "one-short",
            "The last token of every sequence is missing: cu[b + 1] is the first token that is not in sequence b, so the length is cu[b + 1] - cu[b], with no 1 to take away.",
            edits=((_N_KV, "N_KV = (tl.load(cu_k_ptr + b + 1) - k_first).to(tl.int32) - 1"),),
        ),
    ]


def _places() -> list[Mutant]:
    return [
        Mutant(
            "queries-from-start",
            "Every sequence was computed with the first sequence's queries: the pointer of Q needs q_first, as that of the output has it.",
            edits=(("q_ptr + (q_first + rows[:, None])", "q_ptr + (rows[:, None])"),),
        ),
        Mutant(
            "output-from-start",
            "All sequences stored into the first rows of the output, one over the other, and the rest was never written: out_ptrs needs q_first.",
            edits=(("out_ptr + (q_first + rows[:, None])", "out_ptr + (rows[:, None])"),),
        ),
        Mutant(
            "nothing-from-start",
            "Queries and output both lie at the beginning for every sequence: rows count from the sequence's first query, so q_first has to be added to both.",
            edits=(
                ("q_ptr + (q_first + rows[:, None])", "q_ptr + (rows[:, None])"),
                ("out_ptr + (q_first + rows[:, None])", "out_ptr + (rows[:, None])"),
            ),
        ),
        Mutant(
            "grid-of-the-mean",
            "The longest sequence's last queries have no program: the grid is as tall as the mean length, and has to be as tall as the longest, max_q.",
            edits=((_GRID, "grid = (triton.cdiv(max(1, q.shape[0] // B), BLOCK_M), H, B)"),),
        ),
        Mutant(
            "grid-rounded-down",
            "The last, partial tile of a long sequence has no program: max_q // BLOCK_M rounds down. Round up with triton.cdiv.",
            edits=((_GRID, "grid = (max(1, max_q // BLOCK_M), H, B)"),),
        ),
        Mutant(
            "one-sequence-less",
            "The last sequence was not computed: B sequences have B + 1 marks, and the third axis of the grid needs B programs.",
            edits=((_GRID, "grid = (triton.cdiv(max_q, BLOCK_M), H, max(1, B - 1))"),),
        ),
        Mutant(
            "axes-exchanged",
            "Heads and sequences are exchanged in the grid: the kernel takes its head from the second axis and its sequence from the third.",
            edits=((_GRID, "grid = (triton.cdiv(max_q, BLOCK_M), B, H)"),),
        ),
        Mutant(
            "no-mask",
            "On a GPU this reads or overwrites whatever lies there, a neighbour's tokens or nothing that is yours. The usual causes here: cu[b + 1], where a "
            "sequence ends, taken for its length; K or V cut by cu_q; q_first or k_first missing on one side or added twice; rows counted past N_Q.",
            edits=((_N_KV, "N_KV = tl.load(cu_k_ptr + b + 1).to(tl.int32)"),),
            rule="out-of-range",
        ),
    ]


def _diagonal() -> list[Mutant]:
    return [
        Mutant(
            "top-left",
            "Right where a sequence has as many keys as queries: under the causal mask the diagonal starts at its top left. The queries are the last N_Q of "
            "the sequence's N_KV tokens.",
            edits=((_SHIFT, "shift = 0"),),
        ),
        Mutant(
            "shift-of-all",
            "The diagonal was shifted by the totals of the packed tensors. Each sequence has its own N_KV - N_Q.",
            edits=((_SHIFT, "shift = tl.load(cu_k_ptr + tl.num_programs(2)) - tl.load(cu_q_ptr + tl.num_programs(2))"),),
        ),
        Mutant(
            "shift-reversed", "The diagonal is moved the wrong way: shift is N_KV - N_Q, keys minus queries.", edits=((_SHIFT, "shift = N_Q - N_KV"),)
        ),
        Mutant(
            "skips-too-much",
            "One tile too many is skipped: under the causal mask the loop has to reach the last key that the *last* query of the tile sees.",
            edits=(("last = (tl.program_id(0) + 1) * BLOCK_M + shift", "last = tl.program_id(0) * BLOCK_M + shift + 1"),),
        ),
        Mutant(
            "ends-a-key-short",
            "The loop ends one key short: `end` is the first key that is *not* read, so it lies one past the last key that the tile's last query sees. It shows where "
            "that key is the first of a tile.",
            edits=(("last = (tl.program_id(0) + 1) * BLOCK_M + shift", "last = (tl.program_id(0) + 1) * BLOCK_M + shift - 1"),),
        ),
    ]


def _resources() -> list[Mutant]:
    return [
        sentences.second_product_rounded(),
        Mutant(
            "idle-programs-read",
            "The grid is as tall as the longest sequence, so in the shorter ones some programs have no query. They read K and V all the same: let their loop "
            "end before it begins.",
            edits=((_END, ""),),
            rule="idle",
        ),
        Mutant(
            "nothing-skipped",
            "Under the causal mask the hidden tiles were read, multiplied and then masked away. Let the loop end behind the last key that the tile's last query sees.",
            edits=(("end = min(N_KV, last) if CAUSAL else N_KV", "end = N_KV"),),
            rule="tiles",
        ),
        Mutant(
            "grid-of-all-tokens",
            "The grid is as tall as all sequences together. max_q says how long the longest of them is: the other programs start, look at their marks, and leave.",
            edits=((_GRID, "grid = (triton.cdiv(q.shape[0], BLOCK_M), H, B)"),),
            rule="programs",
        ),
        Mutant(
            "a-launch-each",
            "That is a launch for each sequence, and 1,000 short documents would be 1,000 launches of a nearly empty GPU. One grid has room for all: its third axis.",
            edits=(
                (_LAUNCH, "    for b in range(B):\n     flash_forward_varlen_kernel[(*grid[:2], 1)](\n"),
                ("q, k, v, out, cu_q, cu_k, D, scale,", "q, k, v, out, cu_q[b:], cu_k[b:], D, scale,"),
            ),
            rule="launches",
        ),
        sentences.copied(),
        sentences.strides_of_k("(k_first + keys[:, None]) * v_st + h * v_sh + dims[None, :] * v_sd"),
    ]


FLASH_FORWARD_VARLEN = Check(
    exercise="flash_forward_varlen",
    probes=_probes,
    reference=PACKED[0],
    baselines=PACKED,
    properties=(Property("documents do not see each other", _no_leak, "leak"),),
    rules=packed(),
    exact_float32=True,
    mutants=(*_leaks(), *_places(), *_diagonal(), *_resources()),
    right=RIGHT,
    seconds=9.0,
)
