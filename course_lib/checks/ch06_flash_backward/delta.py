"""Grading material: attention_delta."""

import torch

from course_lib.checks.ch06_flash_backward.plain import DELTAS
from course_lib.checks.ch06_flash_backward.rules import WITH_STRIDES
from course_lib.grading.kernel_rules import launches, loads, no_copies, size, stores
from course_lib.grading.spec import Check, Mutant, Probe

AXES = ("sequence", "head", "row")
DOUT_PTRS = "dout_ptrs = dout_ptr + b * dout_sb + h * dout_sh + rows[:, None] * dout_sn + dims[None, :] * dout_sd"


def _pair(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    out, dout = (torch.randn(*shape, generator=g) for _ in range(2))
    offset = torch.arange(shape[0] * shape[1], dtype=torch.float32).reshape(shape[0], shape[1], 1, 1)
    return (out + offset).to(dtype), (dout + 0.5).to(dtype)


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("5 rows of 3 features", _pair(g, 1, 1, 5, 3), axes=AXES),
        Probe("2 sequences of 2 heads, 19 rows of 20", _pair(g, 2, 2, 19, 20), axes=AXES),
        Probe("70 rows of 100", _pair(g, 1, 1, 70, 100), axes=AXES),
        Probe("transposed in memory, 21 rows of 40", _pair(g, 1, 2, 21, 40), layout="transposed", axes=AXES),
        Probe("dout alone transposed in memory, 21 rows of 40", _pair(g, 1, 2, 21, 40), layout="mixed", axes=AXES, diagnose=False),
        Probe("both sequences in the same memory", _pair(g, 2, 2, 9, 24), layout="expanded", axes=AXES),
        Probe("64 rows of 32: no lane is off", _pair(g, 1, 1, 64, 32), axes=AXES, diagnose=False),
        Probe("float16 with values near 200", tuple(x * 100 for x in _pair(g, 1, 1, 11, 64, dtype=torch.float16)), axes=AXES, diagnose=False),
    ]


RIGHT = (
    """\
@triton.jit
def one_row(o, g, d, N, D, ob, oh, on, od, gb, gh, gn, gd, H, B: tl.constexpr):
    pid = tl.program_id(0)
    n, bh = pid % N, pid // N
    b, h = bh // H, bh % H
    at = tl.arange(0, B)
    x = tl.load(o + b * ob + h * oh + n * on + at * od, mask=at < D, other=0.0).to(tl.float32)
    y = tl.load(g + b * gb + h * gh + n * gn + at * gd, mask=at < D, other=0.0).to(tl.float32)
    tl.store(d + pid, tl.sum(x * y, axis=0))

def attention_delta(out, dout):
    B, H, N, D = out.shape
    delta = out.new_empty(B, H, N, dtype=torch.float32)
    one_row[(B * H * N,)](out, dout, delta, N, D, *out.stride(), *dout.stride(), H, triton.next_power_of_2(D))
    return delta
""",
    """\
@triton.jit
def in_pieces(out_ptr, dout_ptr, delta_ptr, N, D, ob, oh, on, od, gb, gh, gn, gd, BM: tl.constexpr, BD: tl.constexpr):
    b, h = tl.program_id(0), tl.program_id(1)
    rows = tl.program_id(2) * BM + tl.arange(0, BM)
    acc = tl.zeros([BM], tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        keep = (rows < N)[:, None] & (d < D)[None, :]
        x = tl.load(out_ptr + b * ob + h * oh + rows[:, None] * on + d[None, :] * od, mask=keep, other=0.0)
        y = tl.load(dout_ptr + b * gb + h * gh + rows[:, None] * gn + d[None, :] * gd, mask=keep, other=0.0)
        acc += tl.sum(x.to(tl.float32) * y.to(tl.float32), axis=1)
    tl.store(delta_ptr + (b * tl.num_programs(1) + h) * N + rows, acc, mask=rows < N)

def attention_delta(out, dout):
    B, H, N, D = dout.shape
    delta = torch.zeros(B, H, N, device=out.device)
    in_pieces[(B, H, triton.cdiv(N, 16))](out, dout, delta, N, D, *out.stride(), *dout.stride(), BM=16, BD=16)
    return delta
""",
    """\
@triton.jit
def strided_delta(out_ptr, dout_ptr, delta_ptr, N, D, ob, oh, on, od, gb, gh, gn, gd, sb, sh, sn, BM: tl.constexpr, BD: tl.constexpr):
    b = tl.program_id(2)
    h = tl.program_id(1)
    n = (tl.program_id(0) * BM + tl.arange(0, BM))[:, None]
    d = tl.arange(0, BD)[None, :]
    x = tl.load(out_ptr + b * ob + h * oh + n * on + d * od, mask=(n < N) & (d < D), other=0.0).to(tl.float32)
    y = tl.load(dout_ptr + b * gb + h * gh + n * gn + d * gd, mask=(n < N) & (d < D), other=0.0).to(tl.float32)
    tl.store(delta_ptr + b * sb + h * sh + n * sn, tl.sum(x * y, axis=1, keep_dims=True), mask=n < N)

def attention_delta(out, dout):
    B, H, N, D = out.shape
    delta = torch.empty((B, H, N), device=out.device, dtype=torch.float32)
    grid = lambda meta: (triton.cdiv(N, meta["BM"]), H, B)
    strided_delta[grid](out, dout, delta, N, D, *out.stride(), *dout.stride(), *delta.stride(), BM=32, BD=max(2, triton.next_power_of_2(D)))
    return delta
""",
)

ATTENTION_DELTA = Check(
    exercise="attention_delta",
    probes=_probes,
    reference=DELTAS[0],
    baselines=DELTAS,
    rules=(
        launches(1),
        stores(lambda probe: size(probe.args[0][..., 0].float())),
        loads(lambda probe: size(*probe.args), "reading out and dout once"),
        no_copies(WITH_STRIDES),
    ),
    mutants=(
        Mutant(
            "one-tensor",
            "out was multiplied by itself: delta takes one factor from the output, the other from its gradient.",
            edits=(("tl.sum(out * dout, axis=1)", "tl.sum(out * out, axis=1)"),),
        ),
        Mutant("mean", "The sum was divided by D. delta is a sum.", edits=(("tl.sum(out * dout, axis=1)", "tl.sum(out * dout, axis=1) / D"),)),
        Mutant(
            "out-strides-for-both",
            "Right where out and dout lie alike in memory, wrong elsewhere: dout was read with the strides of out.",
            edits=(
                (
                    "out, dout, delta, N, D, *out.stride(), *dout.stride(),",
                    "out, dout.mT.contiguous().mT, delta, N, D, *out.stride(), *out.stride(),",
                ),
            ),
        ),
        Mutant(
            "heads-dropped",
            "Right for the first head, wrong for the others: dout was read from head 0. `h` times its second stride is missing.",
            edits=((DOUT_PTRS, DOUT_PTRS.replace("h * dout_sh + ", "")),),
        ),
        Mutant(
            "half-precision",
            "Right in float32. In float16 the products were made and added in float16, and a sum of squares soon passes its largest number, 65,504: convert "
            "what was loaded to float32 first.",
            edits=(
                ("tl.load(out_ptrs, mask=mine, other=0.0).to(tl.float32)", "tl.load(out_ptrs, mask=mine, other=0.0)"),
                ("tl.load(dout_ptrs, mask=mine, other=0.0).to(tl.float32)", "tl.load(dout_ptrs, mask=mine, other=0.0)"),
            ),
        ),
        Mutant(
            "no-mask",
            "On a GPU this reads or overwrites whatever lies there. Rows >= N must be masked in both loads and in the store, features >= D in both loads.",
            edits=(("tl.sum(out * dout, axis=1), mask=rows < N)", "tl.sum(out * dout, axis=1), mask=rows >= 0)"),),
            rule="out-of-range",
        ),
        Mutant(
            "copied",
            "That is what `.contiguous()`, `.float()` or `.to(...)` in the host function does.",
            edits=(("    B, H, N, D = out.shape\n", "    B, H, N, D = out.shape\n    out, dout = out.contiguous(), dout.contiguous()\n"),),
            rule="copied",
        ),
    ),
    right=RIGHT,
    seconds=9.0,
)
