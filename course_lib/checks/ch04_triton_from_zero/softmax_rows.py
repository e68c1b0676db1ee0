"""Grading material: softmax_rows."""

import torch

from course_lib.checks.ch03_online_softmax.inputs import normal, with_hidden
from course_lib.checks.ch03_online_softmax.plain import softmax, softmax_by_hand, softmax_by_lse
from course_lib.checks.ch04_triton_from_zero.plain import softmax_in_pieces
from course_lib.checks.ch04_triton_from_zero.sentences import WITH_STRIDES, copied, outside
from course_lib.grading.kernel_rules import launches, loads, no_copies, size, stores
from course_lib.grading.spec import Check, Mutant, Probe, forbid

SOFTMAX_OPS = ("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax", "logsumexp")
AXES = ("row", "column")


def _probes(g: torch.Generator) -> list[Probe]:
    far = normal(g, 12, 11) * 3
    far[1::3] += 200
    far[2::3] -= 200
    return [
        Probe("20 rows of 7 scores", (normal(g, 20, 7) * 2,), axes=AXES),
        Probe("rows around +200, rows around -200", (far,), axes=AXES),
        Probe("rows with hidden scores, one of them empty", (with_hidden(g, 6, 21, 8),), axes=AXES),
        Probe("64 scores a row, no lane off", (normal(g, 5, 64) * 2,), axes=AXES),
        Probe("not contiguous, 9 rows of 13", (normal(g, 9, 13) * 2,), layout="transposed", axes=AXES),
        Probe("every row the same memory", (normal(g, 4, 10),), layout="expanded", axes=AXES),
        Probe("3 rows of 2,500 scores", (normal(g, 3, 2500) * 2,), axes=AXES),
    ]


_LOAD = "x_ptr + row * x_stride_m + cols * x_stride_n"
_STORE = "out_ptr + row * out_stride_m + cols * out_stride_n"

# What a beginner writes: no care for empty rows.
_PLAIN = """\
@triton.jit
def softmax_rows_kernel(x_ptr, out_ptr, N, x_stride_m, x_stride_n, out_stride_m, out_stride_n, BLOCK_N: tl.constexpr):
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK_N)
    x = tl.load(x_ptr + row * x_stride_m + cols * x_stride_n, mask=cols < N, other=-float("inf"))
    weights = tl.exp(x - tl.max(x, axis=0))
    weights = weights / tl.sum(weights, axis=0)
    tl.store(out_ptr + row * out_stride_m + cols * out_stride_n, weights, mask=cols < N)


def softmax_rows(x):
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    softmax_rows_kernel[(M,)](x, out, N, *x.stride(), *out.stride(), BLOCK_N=triton.next_power_of_2(N))
    return out
"""
_TOO = " (Empty rows are not right yet either.)"


def _pair(id: str, message: str, edit: tuple[str, str], plain: tuple[str, str] | None = None) -> tuple[Mutant, Mutant]:
    """The same mistake with and without the guard for empty rows."""
    old, new = plain or edit
    assert _PLAIN.count(old) == 1, old
    return Mutant(id, message, edits=(edit,)), Mutant(f"{id}-no-guard", message + _TOO, body=_PLAIN.replace(old, new))


SOFTMAX_ROWS = Check(
    exercise="softmax_rows",
    probes=_probes,
    reference=softmax,
    baselines=(softmax, softmax_by_hand, softmax_by_lse, softmax_in_pieces),
    rules=(
        forbid(SOFTMAX_OPS, "The exercise is the kernel."),
        launches(1),
        loads(lambda probe: size(probe.args[0]), "reading each score once"),
        stores(lambda probe: size(probe.args[0])),
        no_copies(WITH_STRIDES),
    ),
    mutants=(
        Mutant(
            "no-other",
            (
                "The lanes past the end of a row hold nothing that you chose: the load has a mask and no `other`. A GPU leaves anything there; this check puts "
                "NaN, so that it shows. What should such a lane hold, so that neither the maximum nor the sum notices it?"
            ),
            edits=(('mask=inside, other=-float("inf"))', "mask=inside)"),),
        ),
        *_pair(
            "no-max",
            (
                "This is what comes out when `exp` gets the scores as they are: above 88 it overflows, far below 0 everything rounds to 0. Subtract "
                "the row's maximum first: `tl.max(x, axis=0)`."
            ),
            ("tl.exp(x - shift)", "tl.exp(x)"),
            ("tl.exp(x - tl.max(x, axis=0))", "tl.exp(x)"),
        ),
        Mutant(
            "padding-counts",
            (
                "Wherever the tile is wider than the row, the weights are too small: the lanes past the end hold 0, and exp(0 - row_max) goes into the "
                "sum. What must they hold, so that exp makes 0 of it?"
            ),
            edits=(('mask=inside, other=-float("inf"))', "mask=inside, other=0.0)"),),
        ),
        *_pair(
            "one-row",
            (
                "Only the first row was written. The grid has one dimension, so the row's number is `tl.program_id(0)`; `tl.program_id(1)` is 0 in "
                "every program. And the row must appear in the pointer of the store."
            ),
            ("tl.program_id(0)", "tl.program_id(1)"),
        ),
        Mutant(
            "program-a-column",
            "The grid has a program for each column: with more rows than columns rows are missing, and the other way round programs have no row. It is M rows.",
            edits=(("[(M,)]", "[(N,)]"),),
        ),
        *_pair(
            "first-row-again",
            "Every row came out as the softmax of row 0: the row's number is in the pointer of the store, and not in that of the load.",
            (_LOAD, "x_ptr + cols * x_stride_n"),
        ),
        *_pair(
            "contiguous-assumed",
            (
                "Right where the rows lie one behind the other, wrong elsewhere: row * N + column is the place of an element in a contiguous tensor "
                "only. Use both strides that the kernel is given."
            ),
            (_LOAD, "x_ptr + row * N + cols"),
        ),
        *_pair(
            "column-stride",
            "Wrong where neighbours in a row are not neighbours in memory: the columns have a stride too, `cols * x_stride_n`.",
            (_LOAD, "x_ptr + row * x_stride_m + cols"),
        ),
        Mutant(
            "strides-swapped",
            "The two strides of x are exchanged: x_stride_m is the step from one row to the next, x_stride_n from one column to the next.",
            edits=((_LOAD, "x_ptr + row * x_stride_n + cols * x_stride_m"),),
        ),
        *_pair(
            "strides-of-x-for-out",
            "Right where x and the result lie in memory alike, wrong elsewhere: the store uses the strides of x. The result has its own.",
            (_STORE, "out_ptr + row * x_stride_m + cols * x_stride_n"),
        ),
        Mutant(
            "empty-row",
            (
                "Right wherever a row has a score left; the empty row is NaN. Its maximum is -inf, -inf - -inf is NaN, and its sum is 0. Such a row must "
                "give zeros: with `tl.where`, which numbers can it subtract, and divide by, instead?"
            ),
            body=_PLAIN,
        ),
        *_pair(
            "no-divide",
            "The weights were never divided by their sum. Each row must sum to 1.",
            ("weights = weights / tl.where(row_sum == 0.0, 1.0, row_sum)", "weights = weights * 1.0"),
            ("weights = weights / tl.sum(weights, axis=0)", "weights = weights * 1.0"),
        ),
        *_pair(
            "base-two",
            "The weights are too even: this is 2 to the power of the score. `tl.exp2` needs scores multiplied by log2(e) = 1.4427.",
            ("tl.exp(x - shift)", "tl.exp2(x - shift)"),
            ("tl.exp(x", "tl.exp2(x"),
        ),
        *_pair(
            "narrow-tile",
            (
                "Rows wider than the tile are wrong and unfinished: a program saw only the first BLOCK_N scores of its row. The host has to choose a tile "
                "that the row fits in: `triton.next_power_of_2(N)`."
            ),
            ("BLOCK_N=triton.next_power_of_2(N)", "BLOCK_N=16"),
        ),
        outside(
            ((", mask=inside, other=-float", ", mask=cols < N + 1, other=-float"), ("weights, mask=inside)", "weights, mask=inside & (cols < N))"))
        ),
        Mutant(
            "two-launches",
            "That is the softmax as operators, one launch a step, that this chapter began with. One program has all it needs: keep the row in registers.",
            body="""\
@triton.jit
def exponentials(x_ptr, e_ptr, N, sm, sn, em, en, BLOCK_N: tl.constexpr):
    cols = tl.arange(0, BLOCK_N)
    x = tl.load(x_ptr + tl.program_id(0) * sm + cols * sn, mask=cols < N, other=-float("inf"))
    m = tl.max(x, axis=0)
    tl.store(e_ptr + tl.program_id(0) * em + cols * en, tl.exp(x - tl.where(m == -float("inf"), 0.0, m)), mask=cols < N)

@triton.jit
def divided(e_ptr, out_ptr, N, em, en, BLOCK_N: tl.constexpr):
    cols = tl.arange(0, BLOCK_N)
    e = tl.load(e_ptr + tl.program_id(0) * em + cols * en, mask=cols < N, other=0.0)
    s = tl.sum(e, axis=0)
    tl.store(out_ptr + tl.program_id(0) * em + cols * en, e / tl.where(s == 0.0, 1.0, s), mask=cols < N)

def softmax_rows(x):
    M, N = x.shape
    e, out = (torch.empty((M, N), dtype=x.dtype, device=x.device) for _ in range(2))
    BLOCK_N = triton.next_power_of_2(N)
    exponentials[(M,)](x, e, N, *x.stride(), *e.stride(), BLOCK_N=BLOCK_N)
    divided[(M,)](e, out, N, *e.stride(), BLOCK_N=BLOCK_N)
    return out
""",
            rule="launches",
        ),
        Mutant(
            "loads-again",
            "The row is loaded more than once. It fits on the chip: load it into one variable, and use that for the maximum and for the exponentials.",
            edits=(
                (
                    "    weights = tl.exp(x - shift)",
                    f'    x = tl.load({_LOAD}, mask=inside, other=-float("inf"))\n    weights = tl.exp(x - shift)',
                ),
            ),
            rule="bytes",
        ),
        copied((("    M, N = x.shape\n", "    x = x.contiguous()\n    M, N = x.shape\n"),)),
    ),
    right=(
        """\
@triton.jit
def rowwise(x_ptr, y_ptr, n, xs0, xs1, ys0, ys1, W: tl.constexpr):
    pid = tl.program_id(0)
    i = tl.arange(0, W)
    v = tl.load(x_ptr + pid * xs0 + i * xs1, i < n, other=float("-inf"))
    m = tl.maximum(tl.max(v, 0), -1e30)
    e = tl.exp2((v - m) * 1.4426950408889634)
    s = tl.maximum(tl.sum(e, 0), 1e-37)
    tl.store(y_ptr + pid * ys0 + i * ys1, e / s, i < n)

def softmax_rows(x):
    y = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    rowwise[(x.shape[0],)](x, y, x.shape[1], x.stride(0), x.stride(1), y.stride(0), y.stride(1), W=max(16, triton.next_power_of_2(x.shape[1])))
    return y
""",
        """\
@triton.jit
def several_rows(x_ptr, out_ptr, M, N, sm, sn, om, on, ROWS: tl.constexpr, BLOCK_N: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK_N)
    inside = (rows[:, None] < M) & (cols[None, :] < N)
    x = tl.load(x_ptr + rows[:, None] * sm + cols[None, :] * sn, mask=inside, other=-float("inf"))
    m = tl.max(x, axis=1)
    m = tl.where(m == -float("inf"), 0.0, m)
    e = tl.exp(x - m[:, None])
    s = tl.sum(e, axis=1)
    out = e * (1.0 / tl.where(s == 0.0, 1.0, s))[:, None]
    tl.store(out_ptr + rows[:, None] * om + cols[None, :] * on, out, mask=inside)

def softmax_rows(x):
    M, N = x.shape
    out = torch.empty_like(x)
    several_rows[(triton.cdiv(M, 4),)](x, out, M, N, *x.stride(), *out.stride(), ROWS=4, BLOCK_N=triton.next_power_of_2(N))
    return out
""",
        """\
@triton.jit
def few_programs(x_ptr, out_ptr, M, N, sm, sn, om, on, BLOCK_N: tl.constexpr):
    cols = tl.arange(0, BLOCK_N)
    for row in range(tl.program_id(0), M, tl.num_programs(0)):
        x = tl.load(x_ptr + row * sm + cols * sn, mask=cols < N, other=-float("inf"))
        m = tl.max(x, axis=0)
        e = tl.where(x == -float("inf"), 0.0, tl.exp(x - m))
        s = tl.sum(e, axis=0)
        tl.store(out_ptr + row * om + cols * on, tl.where(s > 0.0, e / s, 0.0), mask=cols < N)

def softmax_rows(x):
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    few_programs[(2,)](x, out, M, N, *x.stride(), *out.stride(), BLOCK_N=triton.next_power_of_2(N))
    return out
""",
    ),
)
