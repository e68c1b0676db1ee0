"""Grading material: matmul."""

import torch

from course_lib.checks.ch03_online_softmax.inputs import normal
from course_lib.checks.ch04_triton_from_zero.matmul_right import RIGHT
from course_lib.checks.ch04_triton_from_zero.plain import matmul, matmul_in_pieces, matmul_one_by_one
from course_lib.checks.ch04_triton_from_zero.sentences import WITH_STRIDES, copied, outside
from course_lib.checks.ch04_triton_from_zero.softmax_rows import AXES
from course_lib.grading.kernel_rules import launches, loads, no_copies, stores, tf32
from course_lib.grading.spec import Check, Mutant, Probe, forbid

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "dot", "einsum", "matmul", "linear", "addmv", "_int_mm")
SMALL = 16  # rows and columns of the smallest tile that the loads are measured against


def _probes(g: torch.Generator) -> list[Probe]:
    def pair(m: int, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        return normal(g, m, k), normal(g, k, n)

    def cancelling(m: int, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first half of K adds up to about 77,000, the second takes it back."""
        a, b = 40 + normal(g, m, k), 40 + normal(g, k, n)
        b[k // 2 :] *= -1
        return a.half(), b.half()

    return [
        Probe("[20, 70] @ [70, 12]", pair(20, 12, 70), axes=AXES),
        Probe("[100, 34] @ [34, 66]", pair(100, 66, 34), axes=AXES),
        Probe("not contiguous, [45, 50] @ [50, 37]", pair(45, 37, 50), layout="transposed", axes=AXES),
        Probe("float16, partial sums beyond 65,504", cancelling(24, 21, 96), axes=AXES),
        Probe("[64, 64] @ [64, 96], no lane off", pair(64, 96, 64), axes=AXES),
        Probe("every row the same memory, [33, 40] @ [40, 25]", pair(33, 25, 40), layout="expanded", axes=AXES),
        Probe("float16, [30, 45] @ [45, 50]", tuple(x.half() for x in pair(30, 50, 45)), axes=AXES),
    ]


def _small_tiles(probe: Probe) -> int | None:
    """What tiles of 16 x 16 ask for, partial ones in full: a once for each 16 columns of the result, b once for each 16 rows."""
    a, b = probe.args
    (m, k), n = a.shape, b.shape[1]
    down, across = -(-m // SMALL), -(-n // SMALL)
    return 2 * down * across * SMALL * k * a.element_size() if min(m, n) >= 64 else None


_A = "a_ptr + rows[:, None] * a_stride_m + ks[None, :] * a_stride_k"
_B = "b_ptr + ks[:, None] * b_stride_k + cols[None, :] * b_stride_n"
_DOT = 'acc = tl.dot(a, b, acc, input_precision="ieee")'
_STORE = "out_ptr + rows[:, None] * out_stride_m + cols[None, :] * out_stride_n"
_LOOP = "for start in range(0, K, BLOCK_K):"
_ROWS = "rows = tl.program_id(0) * BLOCK_M"
_COLS = "cols = tl.program_id(1) * BLOCK_N"

MATMUL = Check(
    exercise="matmul",
    probes=_probes,
    reference=matmul,
    baselines=(matmul, matmul_in_pieces, matmul_one_by_one),
    rules=(
        forbid(PRODUCTS, "The exercise is the kernel."),
        launches(1),
        loads(_small_tiles, f"computing the result in tiles of {SMALL} x {SMALL}"),
        stores(lambda probe: probe.args[0].shape[0] * probe.args[1].shape[1] * probe.args[0].element_size()),
        no_copies(WITH_STRIDES),
    ),
    mutants=(
        Mutant(
            "no-other",
            (
                "The lanes past the end of K hold nothing that you chose: a load has a mask and no `other`. A GPU leaves anything there; this check puts NaN, so "
                "that it shows. Both factors of such a place have to be 0: 0 times NaN is NaN."
            ),
            edits=(("mask=a_inside, other=0.0)", "mask=a_inside)"), ("mask=b_inside, other=0.0)", "mask=b_inside)")),
        ),
        Mutant(
            "one-turn",
            "Only the first BLOCK_K terms of each sum are there: K needs a loop, one tile of a and one of b in each turn.",
            edits=((_LOOP, "for start in range(0, BLOCK_K, BLOCK_K):"),),
        ),
        Mutant(
            "reset",
            "The result holds the last tile of K only: the accumulator is made anew in every turn of the loop. Make it once, before.",
            edits=((f"    {_LOOP}\n", f"    {_LOOP}\n        acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)\n"),),
        ),
        Mutant(
            "not-advanced",
            "Every turn of the loop multiplied the same first tiles: the indices along K, or the pointers, have to move on by BLOCK_K.",
            edits=(("ks = start + tl.arange(0, BLOCK_K)", "ks = tl.arange(0, BLOCK_K)"),),
        ),
        Mutant(
            "k-tail",
            "The last, partial tile of K is missing: K // BLOCK_K rounds down. The masks make it safe to take one more turn.",
            edits=((_LOOP, "for start in range(0, K // BLOCK_K * BLOCK_K, BLOCK_K):"),),
        ),
        Mutant(
            "walks-n",
            "The loop ends at N and should end at K: it walks along the dimension that a and b share.",
            edits=((_LOOP, "for start in range(0, N, BLOCK_K):"),),
        ),
        Mutant(
            "added-twice",
            "`tl.dot(a, b, acc)` already adds to acc, and `acc +=` adds once more: after every turn what was there before is doubled.",
            edits=((_DOT, 'acc += tl.dot(a, b, acc, input_precision="ieee")'),),
        ),
        Mutant(
            "half-accumulator",
            (
                "Right in float32; in float16 the sum overflowed on the way, although the result would have fitted. The accumulator has to be float32, and "
                "is rounded once, by the store."
            ),
            edits=(
                ("tl.zeros([BLOCK_M, BLOCK_N], tl.float32)", "tl.zeros([BLOCK_M, BLOCK_N], out_ptr.dtype.element_ty)"),
                (_DOT, 'acc = (acc + tl.dot(a, b, input_precision="ieee")).to(out_ptr.dtype.element_ty)'),
            ),
        ),
        Mutant(
            "half-products",
            "Right in float32; in float16 each tile's product was rounded to 11 bits before it was added. Leave `out_dtype` alone: `tl.dot` gives float32.",
            edits=((_DOT, 'acc += tl.dot(a, b, input_precision="ieee", out_dtype=tl.float16)'),),
        ),
        Mutant(
            "half-factors",
            "Right in float16; float32 factors were rounded to float16 before the product, which is wrong from the fourth digit on. Take them as they come.",
            edits=((_DOT, 'acc = tl.dot(a.to(tl.float16), b.to(tl.float16), acc, input_precision="ieee")'),),
        ),
        Mutant(
            "grid-flat",
            "Only the first column of tiles was written: the grid has one axis, and the kernel reads two. There `tl.program_id(1)` is 0 in every program.",
            edits=(("(triton.cdiv(M, BLOCK_M), triton.cdiv(N, BLOCK_N))", "(triton.cdiv(M, BLOCK_M) * triton.cdiv(N, BLOCK_N),)"),),
        ),
        Mutant(
            "grid-turned",
            (
                "Right where the grid has as many programs one way as the other. Elsewhere tiles are missing: the kernel reads its row of tiles from one axis "
                "of the grid, and the host puts it on the other."
            ),
            edits=((_ROWS, "rows = tl.program_id(1) * BLOCK_M"), (_COLS, "cols = tl.program_id(0) * BLOCK_N")),
        ),
        Mutant(
            "tail-forgotten",
            "The last, partial tiles of the result were never computed: M // BLOCK_M and N // BLOCK_N round down. Round the grid up with `triton.cdiv`.",
            edits=(("(triton.cdiv(M, BLOCK_M), triton.cdiv(N, BLOCK_N))", "(M // BLOCK_M, N // BLOCK_N)"),),
        ),
        Mutant(
            "first-tile-only",
            "Only the top left tile of the result was written: rows and cols have to start at the program's own tile, `tl.program_id(...) * BLOCK_...`.",
            edits=((f"{_ROWS} + ", "rows = "), (f"{_COLS} + ", "cols = ")),
        ),
        Mutant(
            "b-strides-swapped",
            "The two strides of b are exchanged: b_stride_k is the step from one row of b to the next, b_stride_n from one column to the next.",
            edits=((_B, "b_ptr + ks[:, None] * b_stride_n + cols[None, :] * b_stride_k"),),
        ),
        Mutant(
            "contiguous-assumed",
            (
                "Right where a and b are contiguous, wrong elsewhere: row * K + column is the place of an element in a contiguous tensor only. Use the "
                "strides that the kernel is given."
            ),
            edits=((_A, "a_ptr + rows[:, None] * K + ks[None, :]"), (_B, "b_ptr + ks[:, None] * N + cols[None, :]")),
        ),
        Mutant(
            "b-contiguous-assumed",
            "Right where b is contiguous, wrong elsewhere: k * N + column ignores b's strides. (a is read rightly.)",
            edits=((_B, "b_ptr + ks[:, None] * N + cols[None, :]"),),
        ),
        Mutant(
            "result-transposed",
            "The result lies in memory with rows and columns exchanged: look at the two strides in the pointer of the store.",
            edits=((_STORE, "out_ptr + rows[:, None] + cols[None, :] * M"),),
        ),
        outside((("a_inside = (rows[:, None] < M) & (ks[None, :] < K)", "a_inside = rows[:, None] < M"),)),
        Mutant(
            "small-tiles",
            (
                "The fewer rows a program computes, the more often b is read as a whole, and the fewer columns, the more often a is: a tile of rows shares what it "
                "has read of b, a tile of columns what it has read of a. Give a program more of both."
            ),
            body="""\
@triton.jit
def matmul_kernel(a_ptr, b_ptr, out_ptr, N, K, am, ak, bk, bn, om, on, BLOCK_N: tl.constexpr, TILE_K: tl.constexpr):
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK_N)
    acc = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, K, TILE_K):
        ks = start + tl.arange(0, TILE_K)
        inside = (ks[:, None] < K) & (cols[None, :] < N)
        a = tl.load(a_ptr + row * am + ks * ak, mask=ks < K, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + ks[:, None] * bk + cols[None, :] * bn, mask=inside, other=0.0).to(tl.float32)
        acc += tl.sum(a[:, None] * b, axis=0)
    tl.store(out_ptr + row * om + cols * on, acc, mask=cols < N)

def matmul(a, b):
    (M, K), N = a.shape, b.shape[1]
    out = torch.empty((M, N), dtype=a.dtype, device=a.device)
    matmul_kernel[(M,)](a, b, out, N, K, *a.stride(), *b.stride(), *out.stride(), BLOCK_N=triton.next_power_of_2(N), TILE_K=64)
    return out
""",
            rule="bytes",
        ),
        Mutant(
            "stored-every-turn",
            "The store stands inside the loop: the unfinished tile is written in every turn. It belongs after the last one.",
            edits=(
                (
                    "    inside = (rows[:, None] < M) & (cols[None, :] < N)\n    tl.store",
                    "        inside = (rows[:, None] < M) & (cols[None, :] < N)\n        tl.store",
                ),
            ),
            rule="stores",
        ),
        copied((("    (M, K), N", "    a, b = a.contiguous(), b.contiguous()\n    (M, K), N"),)),
        tf32(((_DOT, "acc = tl.dot(a, b, acc)"),)),
    ),
    right=RIGHT,
    exact_float32=True,
    seconds=9.0,
)
