"""Grading material: rms_norm."""

import torch

from course_lib.checks.ch03_online_softmax.inputs import normal
from course_lib.checks.ch04_triton_from_zero.plain import rms_norm, rms_norm_by_division, rms_norm_rounded_before_the_weight
from course_lib.checks.ch04_triton_from_zero.sentences import WITH_STRIDES, copied, outside
from course_lib.checks.ch04_triton_from_zero.softmax_rows import AXES
from course_lib.grading.kernel_rules import launches, loads, no_copies, size, stores
from course_lib.grading.spec import Check, Mutant, Probe, forbid


def _probes(g: torch.Generator) -> list[Probe]:
    def weight(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (1.5 + normal(g, n)).to(dtype)

    large = (normal(g, 5, 40) * 60 + 300).half()
    return [
        Probe("20 rows of 7", (normal(g, 20, 7) * 2, weight(7)), axes=AXES),
        Probe("numbers of about 1e-4, beside which eps is large", (normal(g, 8, 13) * 1e-4, weight(13)), axes=AXES),
        Probe("eps = 0.5", (normal(g, 6, 21), weight(21)), {"eps": 0.5}, axes=AXES),
        Probe("float16 around 300, whose squares do not fit float16", (large, weight(40, torch.float16)), axes=AXES),
        Probe("64 numbers a row, no lane off", (normal(g, 5, 64) * 3, weight(64)), axes=AXES),
        Probe("not contiguous, 9 rows of 13", (normal(g, 9, 13) * 2, weight(13)), layout="transposed", axes=AXES),
        Probe("every row and every weight the same memory", (normal(g, 4, 10), weight(10)), layout="expanded", axes=AXES),
        Probe("3 rows of 1,000", (normal(g, 3, 1000), weight(1000)), axes=AXES),
    ]


def _least(probe: Probe) -> int:
    """x once, and the weight once a row."""
    x, weight = probe.args
    return size(x) + x.shape[0] * size(weight)


_LOAD = "x_ptr + row * x_stride_m + cols * x_stride_n"
_STORE = "out_ptr + row * out_stride_m + cols * out_stride_n"
_MEAN = "mean_square = tl.sum(x * x, axis=0) / N"
_NORMED = "normed = x * tl.rsqrt(mean_square + eps) * weight"

RMS_NORM = Check(
    exercise="rms_norm",
    probes=_probes,
    reference=rms_norm,
    baselines=(rms_norm, rms_norm_by_division, rms_norm_rounded_before_the_weight),
    rules=(
        forbid(("rms_norm", "_fused_rms_norm", "layer_norm", "native_layer_norm"), "The exercise is the kernel."),
        launches(1),
        loads(_least, "reading each element of x once, and the weight once a row,"),
        stores(lambda probe: size(probe.args[0])),
        no_copies(WITH_STRIDES),
    ),
    mutants=(
        Mutant(
            "no-other",
            (
                "The lanes past the end of a row hold nothing that you chose: the load has a mask and no `other`. A GPU leaves anything there; this check puts "
                "NaN, so that it shows. What should such a lane hold, so that the sum of squares does not notice it?"
            ),
            edits=(("x_stride_n, mask=inside, other=0.0)", "x_stride_n, mask=inside)"),),
        ),
        Mutant(
            "no-eps",
            "Right where the numbers are large, too large where they are tiny: eps was not added. It goes under the root, beside the mean.",
            edits=((_NORMED, "normed = x * tl.rsqrt(mean_square) * weight"),),
        ),
        Mutant(
            "eps-outside",
            "eps was added to the root, and belongs under it: sqrt(mean + eps). For tiny numbers that is a large difference.",
            edits=((_NORMED, "normed = x / (tl.sqrt(mean_square) + eps) * weight"),),
        ),
        Mutant(
            "eps-fixed",
            "Right with the default eps, wrong with another: the argument is not used.",
            edits=((_NORMED, "normed = x * tl.rsqrt(mean_square + 1e-6) * weight"),),
        ),
        Mutant(
            "padded-mean",
            (
                "Right only where the tile is as wide as the row: the sum was divided by BLOCK_N. The lanes past the end added 0 to the sum, and they "
                "do not count for the mean: divide by N."
            ),
            edits=((_MEAN, "mean_square = tl.sum(x * x, axis=0) / BLOCK_N"),),
        ),
        Mutant(
            "no-mean",
            "The root is of the sum of squares, not of their mean. Divide by N.",
            edits=((_MEAN, "mean_square = tl.sum(x * x, axis=0)"),),
        ),
        Mutant(
            "no-root",
            "The rows were divided by their mean square. Its root is what has the size of the numbers: `tl.rsqrt`, or `tl.sqrt` and a division.",
            edits=((_NORMED, "normed = x / (mean_square + eps) * weight"),),
        ),
        Mutant(
            "no-weight",
            "The weight was not applied. Each column is multiplied by its own.",
            edits=((_NORMED, "normed = x * tl.rsqrt(mean_square + eps)"),),
        ),
        Mutant(
            "weight-plus-one",
            "The rows were multiplied by 1 + weight, as some models do. Here the weight is the factor itself.",
            edits=((_NORMED, "normed = x * tl.rsqrt(mean_square + eps) * (1.0 + weight)"),),
        ),
        Mutant(
            "mean-subtracted",
            "The row's mean was subtracted first: that is LayerNorm. RMSNorm leaves the mean in.",
            edits=((_MEAN, "x = tl.where(inside, x - tl.sum(x, axis=0) / N, 0.0)\n    mean_square = tl.sum(x * x, axis=0) / N"),),
        ),
        Mutant(
            "squares-in-half",
            (
                "Right in float32; in float16 the rows came out as 0: 300 * 300 does not fit float16, whose largest number is 65,504. Convert what was "
                "loaded, `.to(tl.float32)`, before squaring it."
            ),
            edits=(
                ("mask=inside, other=0.0).to(tl.float32)\n    weight", "mask=inside, other=0.0)\n    weight"),
                (_MEAN, "mean_square = tl.sum((x * x).to(tl.float32), axis=0) / N"),
            ),
        ),
        Mutant(
            "one-row",
            "Only the first row was written. The grid has one dimension, so the row's number is `tl.program_id(0)`, in the load and in the store.",
            edits=(("tl.program_id(0)", "tl.program_id(1)"),),
        ),
        Mutant(
            "contiguous-assumed",
            (
                "Right where the rows lie one behind the other, wrong elsewhere: row * N + column is the place of an element in a contiguous tensor "
                "only. Use both strides that the kernel is given."
            ),
            edits=((_LOAD, "x_ptr + row * N + cols"),),
        ),
        Mutant(
            "column-stride",
            "Wrong where neighbours in a row are not neighbours in memory: the columns have a stride too, `cols * x_stride_n`.",
            edits=((_LOAD, "x_ptr + row * x_stride_m + cols"),),
        ),
        Mutant(
            "strides-of-x-for-out",
            "Right where x and the result lie in memory alike, wrong elsewhere: the store uses the strides of x. The result has its own.",
            edits=((_STORE, "out_ptr + row * x_stride_m + cols * x_stride_n"),),
        ),
        outside((("normed, mask=inside)", "normed)"),)),
        Mutant(
            "loads-again",
            "The row is loaded twice, once for the sum and once to be scaled. It fits on the chip: keep it.",
            edits=((_NORMED, f"x = tl.load({_LOAD}, mask=inside, other=0.0).to(tl.float32)\n    {_NORMED}"),),
            rule="bytes",
        ),
        copied((("    M, N = x.shape\n", "    x = x.contiguous()\n    M, N = x.shape\n"),)),
        Mutant(
            "wide-result",
            "The kernel wrote float32, which somebody has to read, convert and write again. `tl.store` converts to the type of the pointer by itself.",
            edits=(("dtype=x.dtype", "dtype=torch.float32"), ("    return out", "    return out if x.dtype == torch.float32 else out.to(x.dtype)")),
            rule="stores",
        ),
    ),
    right=(
        """\
@triton.jit
def normed(x_ptr, w_ptr, y_ptr, n, eps, xs0, xs1, ws, ys0, ys1, W: tl.constexpr):
    r = tl.program_id(0)
    c = tl.arange(0, W)
    v = tl.load(x_ptr + r * xs0 + c * xs1, c < n, other=0).to(tl.float32)
    root = tl.sqrt(tl.sum(v * v) / n + eps)
    w = tl.load(w_ptr + c * ws, c < n)
    tl.store(y_ptr + r * ys0 + c * ys1, (v / root) * w, c < n)

def rms_norm(x, weight, eps=1e-6):
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    normed[(x.shape[0],)](x, weight, y, x.shape[1], eps, *x.stride(), weight.stride(0), *y.stride(), W=triton.next_power_of_2(x.shape[1]))
    return y
""",
        """\
@triton.jit
def rows_share_the_weight(x_ptr, w_ptr, out_ptr, M, N, eps, sm, sn, sw, om, on, ROWS: tl.constexpr, BLOCK_N: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cols = tl.arange(0, BLOCK_N)
    inside = (rows < M)[:, None] & (cols < N)[None, :]
    x = tl.load(x_ptr + rows[:, None] * sm + cols[None, :] * sn, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(w_ptr + cols * sw, mask=cols < N, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, axis=1) / N + eps)
    tl.store(out_ptr + rows[:, None] * om + cols[None, :] * on, x * scale[:, None] * w[None, :], mask=inside)

def rms_norm(x, weight, eps=1e-6):
    M, N = x.shape
    out = torch.empty_like(x)
    rows_share_the_weight[(triton.cdiv(M, 4),)](
        x, weight, out, M, N, eps, *x.stride(), weight.stride(0), *out.stride(), ROWS=4, BLOCK_N=triton.next_power_of_2(N)
    )
    return out
""",
        """\
@triton.jit
def rounded_as_llama(x_ptr, w_ptr, out_ptr, M, N, eps, sm, sn, sw, om, on, BLOCK_N: tl.constexpr):
    cols = tl.arange(0, BLOCK_N)
    weight = tl.load(w_ptr + cols * sw, mask=cols < N, other=0.0)
    for row in range(tl.program_id(0), M, tl.num_programs(0)):
        raw = tl.load(x_ptr + row * sm + cols * sn, mask=cols < N, other=0.0)
        x = raw.to(tl.float32)
        inverse = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) * (1.0 / N) + eps)
        tl.store(out_ptr + row * om + cols * on, (x * inverse).to(raw.dtype) * weight, mask=cols < N)

def rms_norm(x, weight, eps=1e-6):
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    rounded_as_llama[(min(M, 3),)](x, weight, out, M, N, eps, *x.stride(), weight.stride(0), *out.stride(), BLOCK_N=triton.next_power_of_2(N))
    return out
""",
    ),
)
