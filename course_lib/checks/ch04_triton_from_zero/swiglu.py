"""Grading material: swiglu."""

import torch

from course_lib.checks.ch03_online_softmax.inputs import normal
from course_lib.checks.ch04_triton_from_zero.plain import swiglu, swiglu_by_division, swiglu_by_sigmoid, swiglu_in_two_steps
from course_lib.checks.ch04_triton_from_zero.sentences import WITH_STRIDES, copied, outside
from course_lib.checks.ch04_triton_from_zero.softmax_rows import AXES
from course_lib.grading.kernel_rules import launches, loads, no_copies, size, stores
from course_lib.grading.spec import Check, Mutant, Probe, forbid


def _probes(g: torch.Generator) -> list[Probe]:
    def pair(m: int, n: int, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
        return normal(g, m, n) * spread, normal(g, m, n) * 2

    wide = pair(12, 11, 60.0)
    half = tuple(x.half() for x in pair(5, 40))
    return [
        Probe("20 rows of 7", pair(20, 7), axes=AXES),
        Probe("6 rows of 300", pair(6, 300), axes=AXES),
        Probe("gates up to 150 either way", wide, axes=AXES),
        Probe("float16", half, axes=AXES),
        Probe("not contiguous, 9 rows of 150", pair(9, 150), layout="transposed", axes=AXES),
        Probe("every row the same memory", pair(4, 10), layout="expanded", axes=AXES),
        Probe("4 rows of 256, no lane off", pair(4, 256), axes=AXES),
    ]


_GATE = "gate_ptr + row * gate_stride_m + cols * gate_stride_n"
_UP = "up_ptr + row * up_stride_m + cols * up_stride_n"
_STORE = "out_ptr + row * out_stride_m + cols * out_stride_n"
_SILU = "gate * tl.sigmoid(gate) * up"

SWIGLU = Check(
    exercise="swiglu",
    probes=_probes,
    reference=swiglu,
    baselines=(swiglu, swiglu_by_division, swiglu_by_sigmoid, swiglu_in_two_steps),
    rules=(
        forbid(("silu", "silu_"), "The exercise is the kernel."),
        launches(1),
        loads(lambda probe: size(*probe.args), "reading each element of gate and up once"),
        stores(lambda probe: size(probe.args[0])),
        no_copies(WITH_STRIDES),
    ),
    mutants=(
        Mutant(
            "wrong-operand",
            "This is gate * silu(up): the two are exchanged. The activation goes on gate.",
            edits=((_SILU, "up * tl.sigmoid(up) * gate"),),
        ),
        Mutant(
            "sigmoid-only",
            "This is sigmoid(gate) * up. silu(g) is g * sigmoid(g): one factor is missing.",
            edits=((_SILU, "tl.sigmoid(gate) * up"),),
        ),
        Mutant(
            "up-unused",
            "This is silu(gate) alone: the product with up is missing.",
            edits=((_SILU, "gate * tl.sigmoid(gate)"),),
        ),
        Mutant(
            "up-added",
            "This is silu(gate) + up. A gate multiplies.",
            edits=((_SILU, "gate * tl.sigmoid(gate) + up"),),
        ),
        Mutant(
            "gelu",
            "This is the sigmoid form of GELU, with a factor of 1.702 inside. silu(g) is g * sigmoid(g).",
            edits=((_SILU, "gate * tl.sigmoid(1.702 * gate) * up"),),
        ),
        Mutant(
            "relu",
            "This is max(gate, 0) * up, which is ReGLU. silu is smooth: g * sigmoid(g).",
            edits=((_SILU, "tl.maximum(gate, 0.0) * up"),),
        ),
        Mutant(
            "sign",
            "The sign in the exponent is turned: sigmoid(g) is 1 / (1 + exp(-g)).",
            edits=((_SILU, "gate / (1.0 + tl.exp(gate)) * up"),),
        ),
        Mutant(
            "overflow",
            (
                "Right, except where a gate is large: exp(g) / (1 + exp(g)) is inf / inf there. With exp(-g) below the line nothing can go wrong: it "
                "becomes 0 or inf, and g / inf is 0."
            ),
            edits=((_SILU, "gate * (tl.exp(gate) / (1.0 + tl.exp(gate))) * up"),),
        ),
        Mutant(
            "tail-forgotten",
            "The last, partial tile of each row was never computed: N // BLOCK rounds down. Round up: `triton.cdiv(N, BLOCK)`.",
            edits=(("(M, triton.cdiv(N, BLOCK))", "(M, N // BLOCK)"),),
        ),
        Mutant(
            "first-tile-only",
            (
                "Only the first tile of each row was written. Either the columns do not start at the program's own tile, or there are no programs for the "
                "other tiles."
            ),
            edits=(("tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)", "tl.arange(0, BLOCK)"),),
        ),
        Mutant(
            "contiguous-assumed",
            (
                "Right where the rows lie one behind the other, wrong elsewhere: row * N + column is the place of an element in a contiguous tensor "
                "only. The kernel needs the strides."
            ),
            edits=((_GATE, "gate_ptr + row * N + cols"), (_UP, "up_ptr + row * N + cols")),
        ),
        Mutant(
            "column-stride",
            "Wrong where neighbours in a row are not neighbours in memory: the columns have a stride too.",
            edits=((_GATE, "gate_ptr + row * gate_stride_m + cols"), (_UP, "up_ptr + row * up_stride_m + cols")),
        ),
        Mutant(
            "strides-of-gate-for-out",
            "Right where gate and the result lie in memory alike, wrong elsewhere: the store uses the strides of gate. The result has its own.",
            edits=((_STORE, "out_ptr + row * gate_stride_m + cols * gate_stride_n"),),
        ),
        outside(((_SILU + ", mask=inside)", _SILU + ")"),)),
        Mutant(
            "two-launches",
            "The first kernel's result lies in memory, for the second to read back. No element needs its neighbours: one kernel can do both steps.",
            body="""\
@triton.jit
def silu_kernel(x_ptr, out_ptr, N, sm, sn, om, on, BLOCK: tl.constexpr):
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * sm + cols * sn, mask=cols < N).to(tl.float32)
    tl.store(out_ptr + tl.program_id(0) * om + cols * on, x * tl.sigmoid(x), mask=cols < N)

@triton.jit
def product_kernel(x_ptr, y_ptr, out_ptr, N, xm, xn, ym, yn, om, on, BLOCK: tl.constexpr):
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + tl.program_id(0) * xm + cols * xn, mask=cols < N).to(tl.float32)
    y = tl.load(y_ptr + tl.program_id(0) * ym + cols * yn, mask=cols < N).to(tl.float32)
    tl.store(out_ptr + tl.program_id(0) * om + cols * on, x * y, mask=cols < N)

def swiglu(gate, up):
    M, N = gate.shape
    silu, out = (torch.empty((M, N), dtype=gate.dtype, device=gate.device) for _ in range(2))
    grid = (M, triton.cdiv(N, 128))
    silu_kernel[grid](gate, silu, N, *gate.stride(), *silu.stride(), BLOCK=128)
    product_kernel[grid](silu, up, out, N, *silu.stride(), *up.stride(), *out.stride(), BLOCK=128)
    return out
""",
            rule="launches",
        ),
        Mutant(
            "loads-again",
            "Something is loaded twice. What a lane has loaded stays in its register under the name you gave it: gate is needed twice and loaded once.",
            edits=((_SILU, f"tl.load({_GATE}, mask=inside).to(tl.float32) * tl.sigmoid(gate) * up"),),
            rule="bytes",
        ),
        copied((("    M, N = gate.shape\n", "    gate, up = gate.contiguous(), up.contiguous()\n    M, N = gate.shape\n"),)),
        Mutant(
            "wide-result",
            "The kernel wrote float32, which somebody has to read, convert and write again. `tl.store` converts to the type of the pointer by itself.",
            edits=(
                ("dtype=gate.dtype", "dtype=torch.float32"),
                ("    return out", "    return out if gate.dtype == torch.float32 else out.to(gate.dtype)"),
            ),
            rule="stores",
        ),
    ),
    right=(
        """\
@triton.jit
def gated(g_ptr, u_ptr, o_ptr, M, N, gm, gn, um, un, om, on, TILE_M: tl.constexpr, TILE_N: tl.constexpr):
    r = (tl.program_id(1) * TILE_M + tl.arange(0, TILE_M))[:, None]
    c = (tl.program_id(0) * TILE_N + tl.arange(0, TILE_N))[None, :]
    ok = (r < M) & (c < N)
    g = tl.load(g_ptr + r * gm + c * gn, ok, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + r * um + c * un, ok, other=0.0).to(tl.float32)
    tl.store(o_ptr + r * om + c * on, g / (1.0 + tl.exp(-g)) * u, ok)

def swiglu(gate, up):
    M, N = gate.shape
    out = torch.empty((M, N), dtype=gate.dtype, device=gate.device)
    gated[(triton.cdiv(N, 64), triton.cdiv(M, 8))](gate, up, out, M, N, *gate.stride(), *up.stride(), *out.stride(), TILE_M=8, TILE_N=64)
    return out
""",
        """\
@triton.jit
def flat(g_ptr, u_ptr, o_ptr, M, N, gm, gn, um, un, om, on, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    r, c = i // N, i % N
    ok = i < M * N
    g = tl.load(g_ptr + r * gm + c * gn, ok, other=0.0)
    u = tl.load(u_ptr + r * um + c * un, ok, other=0.0)
    wide = g.to(tl.float32)
    silu = (wide * tl.sigmoid(wide)).to(g.dtype)
    tl.store(o_ptr + r * om + c * on, silu * u, ok)

def swiglu(gate, up):
    M, N = gate.shape
    out = torch.empty((M, N), dtype=gate.dtype, device=gate.device)
    flat[(triton.cdiv(M * N, 256),)](gate, up, out, M, N, *gate.stride(), *up.stride(), *out.stride(), BLOCK=256)
    return out
""",
        """\
@triton.jit
def looped(g_ptr, u_ptr, o_ptr, N, gm, gn, um, un, om, on, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    for start in range(0, N, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        g = tl.load(g_ptr + row * gm + cols * gn, mask=cols < N, other=0.0).to(tl.float32)
        u = tl.load(u_ptr + row * um + cols * un, mask=cols < N, other=0.0).to(tl.float32)
        tl.store(o_ptr + row * om + cols * on, u * g * (1.0 / (1.0 + tl.exp2(-1.4426950408889634 * g))), mask=cols < N)

def swiglu(gate, up):
    out = torch.empty_like(gate)
    looped[(gate.shape[0],)](gate, up, out, gate.shape[1], *gate.stride(), *up.stride(), *out.stride(), BLOCK=64)
    return out
""",
    ),
)
