"""Grading material: split_kv_decode."""

import torch
from torch import Tensor

from course_lib.checks.ch05_flash_forward import sentences
from course_lib.checks.ch05_flash_forward.plain import WAYS
from course_lib.checks.ch05_flash_forward.rules import SHORTCUT, WITH_STRIDES
from course_lib.checks.ch09_flash_decoding.merging import by_logsumexp
from course_lib.checks.ch09_flash_decoding.splitting_right import PER_HEAD, RIGHT
from course_lib.grading.kernel_rules import launches, loads, no_copies, size, stores
from course_lib.grading.spec import Check, Mutant, Probe, Property

AXES = ("split", "batch", "head", "feature")
_CHUNK = "chunk = tl.cdiv(length, tl.num_programs(0))"
_FIRST, _LAST = "first = split * chunk", "last = min(length, first + chunk)"
_LENGTH = "length = tl.load(lengths_ptr + b)"
_HEADS = "heads = h * GROUP + rows"
_GUARD = "    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a split without keys: out 0, lse -inf\n"
_GRID = "grid = (num_splits, H_KV, B)"
_LSE = "row_max + tl.log(row_sum)"
_HIDDEN = 'scores = tl.where(start + keys[None, :] < last, scores, -float("inf"))\n'


def given(
    g: torch.Generator, b: int, h: int, h_kv: int, n_max: int, d: int, lengths: tuple[int, ...], splits: int, rising: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> tuple:  # fmt: skip
    """q, k_cache, v_cache, lengths, num_splits. Every K/V head of V has its own offset; past a length stands what would show: large keys."""
    q, k, v = torch.randn(b, h, d, generator=g), torch.randn(b, h_kv, n_max, d, generator=g), torch.randn(b, h_kv, n_max, d, generator=g)
    v = v + 0.75 * torch.arange(b * h_kv, dtype=torch.float32).reshape(b, h_kv, 1, 1)
    if rising:
        q, k = q.abs(), k.abs() * torch.linspace(0.1, rising, n_max)[:, None]
    for i, length in enumerate(lengths):
        k[i, :, length:], v[i, :, length:] = 5.0, 100.0
    return q.to(dtype), k.to(dtype), v.to(dtype), torch.tensor(lengths, dtype=torch.int32), splits


def by_way(way):
    """The plain ways of chapter 05, one split after the other."""

    def plain(q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor, num_splits: int, scale: float | None = None) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        outs = torch.zeros((num_splits, *q.shape), dtype=wide)
        lses = torch.full((num_splits, *q.shape[:2]), -torch.inf, dtype=wide)
        for b, length in enumerate(lengths.tolist()):
            chunk = -(-length // num_splits)
            for s in range(num_splits):
                part = slice(s * chunk, min(length, (s + 1) * chunk))
                if part.start < part.stop:
                    out, lse = way(q[b : b + 1, :, None], k_cache[b : b + 1, :, part], v_cache[b : b + 1, :, part], scale)
                    outs[s, b], lses[s, b] = out[0, :, 0], lse[0, :, 0]
        return outs, lses

    return plain


PLAIN = tuple(by_way(way) for way in WAYS)


def _probes(g: torch.Generator) -> list[Probe]:
    half = torch.float16
    return [
        Probe("2 heads share 1, 20 keys in 2 splits", given(g, 1, 2, 1, 20, 18, (20,), 2, 4.0), axes=AXES),
        Probe("sequences of 45 and 0 keys, 4 heads share 2, 2 splits", given(g, 2, 4, 2, 50, 20, (45, 0), 2), axes=AXES),
        Probe("5 heads share 1, 130 keys in 2 splits, rising scores", given(g, 1, 5, 1, 130, 24, (130,), 2, 9.0), axes=AXES),
        Probe("more splits than keys: 5 keys in 4 splits, 2 heads of their own", given(g, 1, 2, 2, 9, 17, (5,), 4), axes=AXES),
        Probe("one split, scale = 0.3", given(g, 2, 4, 2, 40, 19, (40, 33), 1), {"scale": 0.3}, axes=AXES),
        Probe(
            "the K cache alone transposed in memory, 37 of 40 keys", given(g, 1, 2, 1, 40, 18, (37,), 2), layout="mixed", axes=AXES, diagnose=False
        ),
        Probe("transposed in memory, 6 heads share 2, 71 of 75 keys", given(g, 1, 6, 2, 75, 23, (71,), 2), layout="transposed", axes=AXES),
        Probe("float16, 8 heads share 2", given(g, 1, 8, 2, 60, 32, (60,), 2, dtype=half), axes=AXES, diagnose=False),
        Probe("20 heads share 1", given(g, 1, 20, 1, 40, 16, (37,), 2), axes=AXES, diagnose=False),
        Probe("64 keys, D = 32, 2 splits: no lane is off", given(g, 1, 16, 1, 64, 32, (64,), 2), axes=AXES, diagnose=False),
    ]


def _keys_read(probe: Probe) -> int:
    """q once a split, K and V of the keys there are once, and a few numbers a program."""
    q, k, _, lengths, splits = probe.args
    row = 2 * k.shape[1] * k.shape[3] * k.element_size()
    return int(lengths.sum()) * row + splits * (size(q) + 64 * q.shape[0] * k.shape[1])


def _results(probe: Probe) -> int:
    q, splits = probe.args[0], probe.args[4]
    return splits * q.shape[0] * q.shape[1] * (q.shape[2] + 1) * 4


def _merges(call, g: torch.Generator) -> str | None:
    """However many splits: merged, they are the attention over all keys."""
    *tensors, _ = given(g, 1, 2, 1, 45, 16, (43,), 1)
    whole, lse = (x[0] for x in call(*tensors, 1))
    for splits in (2, 3):
        out, merged = by_logsumexp(*call(*tensors, splits))
        if not (torch.allclose(out, whole, atol=1e-4) and torch.allclose(merged, lse, atol=1e-4)):
            return f"{splits} splits, merged, differ from one split by more than rounding: is every key in exactly one of them?"
    return None


SPLIT_KV_DECODE = Check(
    exercise="split_kv_decode",
    probes=_probes,
    reference=PLAIN[0],
    baselines=PLAIN,
    returns="a pair (outs, lses)",
    properties=(Property("splits merged are the whole", _merges),),
    rules=(
        SHORTCUT,
        launches(1),
        stores(_results),
        loads(_keys_read, "reading q once a split, and K and V once for a whole group"),
        no_copies(WITH_STRIDES),
    ),
    mutants=(
        sentences.strides_of_k(),  # first: it shows on a single probe, and whatever stands before it is tried there too
        Mutant(
            "chunk-rounds-down",
            "The chunk was rounded down: the keys that are left over belong to no split. Round up with tl.cdiv.",
            edits=((_CHUNK, "chunk = length // tl.num_programs(0)"),),
        ),
        Mutant(
            "chunk-of-the-capacity",
            "All sequences were cut as if their caches were full: the chunk is ceil of this sequence's own length over the splits.",
            edits=((_CHUNK, "chunk = tl.cdiv(k_sh // k_sn, tl.num_programs(0))"),),
        ),
        Mutant(
            "all-keys-each",
            "Every split read the keys up to the end, not its own part: it stops after `chunk` keys.",
            edits=((_LAST, "last = length"),),
        ),
        Mutant(
            "always-from-zero",
            "Every split began at key 0: split s begins at s * chunk.",
            edits=((_FIRST, "first = split * 0"),),
        ),
        Mutant(
            "past-the-length",
            "The last split reads on past the sequence's length, where the cache holds something else: it ends at `length`.",
            edits=((_LAST, "last = first + chunk"),),
        ),
        Mutant(
            "first-length",
            "Right for the first sequence: its length was used for all. lengths_ptr needs + b.",
            edits=((_LENGTH, "length = tl.load(lengths_ptr)"),),
        ),
        Mutant(
            "tail-of-a-split",
            "Keys were masked by the sequence's length and not by the end of the split: the last tile of a split reaches into the next one's keys.",
            edits=(
                ("inside = (start + keys[:, None] < last)", "inside = (start + keys[:, None] < length)"),
                ("tl.where(start + keys[None, :] < last,", "tl.where(start + keys[None, :] < length,"),
            ),
        ),
        Mutant(
            "not-normalised",
            "The outputs of the parts are sums: each part is divided by its own row_sum, since a log-sum-exp says how much it weighs.",
            edits=(("acc / row_sum[:, None]", "acc"),),
        ),
        Mutant(
            "lse-base-2",
            "The outputs are right; the logarithm of row_sum in lses is to base 2. The course's lse is natural.",
            edits=((_LSE, "row_max + tl.log2(row_sum)"),),
        ),
        Mutant(
            "lse-without-max",
            "The outputs are right, lses holds the logarithm of row_sum alone. row_sum was counted relative to row_max: add it.",
            edits=((_LSE, "tl.log(row_sum)"),),
        ),
        Mutant("lse-is-max", "The outputs are right, and what stands in lses is row_max. Add log(row_sum).", edits=((_LSE, "row_max"),)),
        Mutant(
            "empty-split",
            "Right, except for parts without keys: 0 / 0 is NaN. Their output is 0; with row_sum taken as 1 there, lse is -inf + log(1).",
            edits=((_GUARD, ""),),
        ),
        Mutant(
            "empty-lse",
            "Right, except for parts without keys: their lse has to be -inf. Whoever merges must see that this part is empty.",
            edits=(('row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)', "row_max = tl.full([BLOCK_M], -1e30, tl.float32)"),),
        ),
        Mutant(
            "empty-lse-zero",
            "Right, except for parts without keys: their lse is -inf, and 0 says that they saw one key with a score of 0. Only the division has to be spared from "
            "a row_sum of 0.",
            edits=((_LSE, "tl.where(row_max == -float('inf'), 0.0, row_max) + tl.log(row_sum)"),),
        ),
        Mutant(
            "whole-tiles",
            "The splits were cut at whole tiles, as the course's own kernel cuts them. Here a chunk is counted in keys: ceil(length / splits).",
            edits=((_CHUNK, "chunk = tl.cdiv(tl.cdiv(length, BLOCK_N), tl.num_programs(0)) * BLOCK_N"),),
        ),
        Mutant(
            "groups-overlap",
            "The groups overlap: K/V head h was given the query heads from h on. Before its group come h groups of GROUP heads each.",
            edits=((_HEADS, "heads = h + rows"),),
        ),
        Mutant(
            "lse-of-another-head",
            "The outputs are right; the log-sum-exps of all groups were stored at the first heads. Row r is head h * GROUP + r in both stores.",
            edits=(("tl.store(lses_row + heads * lses_sh", "tl.store(lses_row + rows * lses_sh"),),
        ),
        Mutant(
            "heads-interleaved",
            "Query head i was given K/V head i % H_KV. Neighbours share: the heads of K/V head h are h * GROUP and the ones after it.",
            edits=((_HEADS, "heads = h + tl.num_programs(1) * rows"),),
        ),
        Mutant(
            "first-head-only",
            "All rows of the tile are the first head of the group: row r is head h * GROUP + r.",
            edits=(("tl.load(q_ptr + b * q_sb + heads[:, None] * q_sh", "tl.load(q_ptr + b * q_sb + (heads[:, None] * 0 + h * GROUP) * q_sh"),),
        ),
        Mutant(
            "kv-head-dropped",
            "Right for the first K/V head, wrong for the others: K and V were read from head 0.",
            edits=(("b * k_sb + h * k_sh", "b * k_sb"), ("b * v_sb + h * v_sh", "b * v_sb")),
        ),
        *sentences.rescaling(),
        *sentences.scaling("new_max")[:3],
        sentences.no_other(),
        Mutant(
            "tail-counted",
            "Right where a split ends with a tile, wrong elsewhere: the lanes past its last key were loaded as 0, so their score is 0, and a score of 0 weighs "
            "exp(0 - row_max). They need a score of -inf.",
            edits=((_HIDDEN, "scores = scores + 0.0\n"),),
        ),
        *sentences.moving()[::2],
        sentences.second_product_rounded(),
        Mutant(
            "no-mask",
            "On a GPU this reads or overwrites whatever lies there, or ends the program. The usual causes: rows >= GROUP not masked in the load of Q or in one of "
            "the stores, keys from the split's end on not masked in the loads of K and V, dims >= D not masked in any of them, an index multiplied by the wrong "
            "stride, or axes of the grid exchanged: they are splits, K/V heads, sequences.",
            edits=(("mask=rows < GROUP)\n", "mask=rows >= 0)\n"),),
            rule="out-of-range",
        ),
        Mutant(
            "grid-without-splits",
            "Only the first split has programs: the grid needs all three, splits, K/V heads and sequences.",
            edits=((_GRID, "grid = (1, H_KV, B)"), (_CHUNK, "chunk = tl.cdiv(length, 2)")),
        ),
        Mutant(
            "copied",
            "That is what `.contiguous()`, `.float()` or `.to(...)` in the host function does.",
            edits=(("    GROUP = H // H_KV\n", "    GROUP = H // H_KV\n    q, k_cache = q.contiguous(), k_cache.contiguous()\n"),),
            rule="copied",
        ),
        Mutant(
            "read-per-head",
            "That is what a program for each query head asks for: the heads of a group read the same K and V, one after the other. Let one program own "
            "all heads of the group.",
            body=PER_HEAD,
            rule="bytes",
        ),
    ),
    right=RIGHT,
    seconds=9.0,
    exact_float32=True,
)
