"""Grading material: vector_add."""

import torch

from course_lib.checks.ch03_online_softmax.inputs import normal
from course_lib.checks.ch04_triton_from_zero.sentences import outside
from course_lib.grading.kernel_rules import launches, loads, no_idle, programs, size, stores
from course_lib.grading.spec import Check, Mutant, Probe

WARP, FEW = 32, 8


def _probes(g: torch.Generator) -> list[Probe]:
    def probe(n: int, name: str) -> Probe:
        return Probe(name, (normal(g, n), normal(g, n)), axes=("element",))

    return [
        probe(300, "300 elements"),
        probe(1000, "1,000 elements"),
        probe(512, "512 elements, no lane off"),
        probe(129, "129 elements"),
        probe(7, "7 elements, fewer than a tile"),
    ]


def _sum_by_scaling(x, y):
    return (x * 0.5 + y * 0.5) * 2


VECTOR_ADD = Check(
    exercise="vector_add",
    probes=_probes,
    reference=lambda x, y: x + y,
    baselines=(lambda x, y: x + y, lambda x, y: torch.stack([x, y]).sum(dim=0), _sum_by_scaling),
    rules=(
        launches(1),
        loads(lambda probe: size(*probe.args), "reading each element once"),
        stores(lambda probe: size(probe.args[0])),
        no_idle(FEW, "a program owns a tile, so there are as many programs as tiles of BLOCK cover N."),
        programs(
            lambda probe: max(FEW, -(-probe.args[0].numel() // WARP)),
            f"with more than one for {WARP} elements most lanes of the GPU, which come in groups of {WARP}, have nothing to do. How many tiles are there?",
        ),
    ),
    mutants=(
        Mutant(
            "tail-forgotten",
            "The last, partial tile was never computed: N // BLOCK rounds down, and N need not be a multiple. Round the number of programs up.",
            edits=(("triton.cdiv(x.numel(), BLOCK)", "x.numel() // BLOCK"),),
        ),
        Mutant(
            "first-tile-only",
            (
                "Only the first BLOCK elements were written. Either all programs worked on the first tile (where does `tl.program_id(0)` come in?), "
                "or there was only one program, or the mask compares with BLOCK instead of N."
            ),
            edits=(("tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)", "tl.arange(0, BLOCK)"),),
        ),
        Mutant(
            "not-times-block",
            "The tiles overlap: program 1 starts at element 1. Each program has BLOCK elements, so program p starts at p * BLOCK.",
            edits=(("tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)", "tl.program_id(0) + tl.arange(0, BLOCK)"),),
        ),
        Mutant(
            "roles-swapped",
            (
                "The lanes of a program lie BLOCK apart, and most elements have no lane. It is the program's number that is multiplied by BLOCK; the "
                "lanes lie side by side."
            ),
            edits=(("tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)", "tl.program_id(0) + tl.arange(0, BLOCK) * BLOCK"),),
        ),
        Mutant(
            "last-element",
            "The last element is missing: the mask stops one too early. Offsets run from 0 to N - 1, so a lane is inside where offset < N.",
            edits=(("inside = offsets < N", "inside = offsets < N - 1"),),
        ),
        Mutant(
            "x-twice",
            "What came out is x + x: both loads use the same pointer.",
            edits=(("tl.load(y_ptr + offsets", "tl.load(x_ptr + offsets"),),
        ),
        Mutant(
            "not-stored",
            (
                "No element of the result was written. A kernel returns nothing: `tl.store(out_ptr + offsets, ...)` has to put the sum into the tensor that "
                "the host made."
            ),
            edits=(("tl.store(out_ptr + offsets, x + y, mask=inside)", "out = x + y"),),
        ),
        Mutant(
            "product",
            "What came out is the product.",
            edits=(("x + y, mask", "x * y, mask"),),
        ),
        outside((("tl.load(x_ptr + offsets, mask=inside)", "tl.load(x_ptr + offsets)"),)),
        Mutant(
            "idle-programs",
            "A program owns a whole tile of BLOCK elements: with one for each element, or for each smaller piece, most have nothing to do.",
            edits=(("programs = triton.cdiv(x.numel(), BLOCK)", "programs = x.numel()"),),
            rule="idle",
        ),
        Mutant(
            "tile-of-one",
            "The tiles are narrower than a warp, the 32 threads that go along together. Give a program more elements.",
            edits=(("BLOCK = 128", "BLOCK = 4"),),
            rule="programs",
        ),
        Mutant(
            "loads-again",
            "Something is loaded twice. What a lane has loaded stays in its register under the name you gave it.",
            edits=(
                (
                    "    tl.store(out_ptr + offsets, x + y",
                    "    x = tl.load(x_ptr + offsets, mask=inside)\n    tl.store(out_ptr + offsets, x + y",
                ),
            ),
            rule="bytes",
        ),
    ),
    right=(
        """\
@triton.jit
def add(a, b, c, n, TILE: tl.constexpr):
    p = tl.program_id(axis=0)
    i = tl.arange(0, TILE) + TILE * p
    ok = i < n
    tl.store(c + i, tl.load(b + i, mask=ok, other=0.0) + tl.load(a + i, mask=ok, other=0.0), mask=ok)

def vector_add(x, y):
    n = x.shape[0]
    z = torch.empty(n, dtype=x.dtype, device=x.device)
    grid = lambda meta: (triton.cdiv(n, meta["TILE"]),)
    add[grid](x, y, z, n, TILE=64)
    return z
""",
        """\
@triton.jit
def whole(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    inside = lanes < N
    x = tl.load(x_ptr + lanes, mask=inside, other=0.0)
    y = tl.load(y_ptr + lanes, mask=inside, other=0.0)
    tl.store(out_ptr + lanes, x + y, mask=inside)

def vector_add(x, y):
    out = torch.zeros_like(x)
    whole[(1,)](x, y, out, len(x), BLOCK=triton.next_power_of_2(len(x)))
    return out
""",
        """\
@triton.jit
def strided(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    for start in range(tl.program_id(0) * BLOCK, N, tl.num_programs(0) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, at < N)
        y = tl.load(y_ptr + at, at < N)
        tl.store(out_ptr + at, x + y, at < N)

def vector_add(x, y):
    out = torch.empty_like(y)
    strided[(2,)](x, y, out, x.numel(), BLOCK=32)
    return out
""",
        """\
BLOCK = 256

@triton.jit
def interleaved(x_ptr, y_ptr, out_ptr, N, LANES: tl.constexpr):
    programs = tl.num_programs(0)
    offsets = tl.program_id(0) + programs * tl.arange(0, LANES)
    inside = offsets < N
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0)
    y = tl.load(y_ptr + offsets, mask=inside, other=0.0)
    tl.store(out_ptr + offsets, x + y, mask=inside)

def vector_add(x, y):
    out = x.new_empty(x.shape)
    n = x.numel()
    interleaved[((n + BLOCK - 1) // BLOCK,)](x, y, out, n, LANES=BLOCK)
    return out
""",
    ),
)
