"""Grading material of the tests' two exercises."""

import torch

from course_lib.grading.spec import Check, Mutant, Probe, Property, Rule, forbid


def _shares(x):
    total = x.abs().sum(dim=-1, keepdim=True)
    return torch.nan_to_num(x.abs() / total)


def _shares_by_inverse(x):
    return torch.nan_to_num(x.abs() * (1 / x.abs().sum(dim=-1, keepdim=True)), nan=0.0, posinf=0.0)


def _shares_backwards(x):
    total = x.abs().flip(-1).sum(dim=-1, keepdim=True)
    return torch.nan_to_num(x.abs() / total)


def _row_probes(g):
    zeros = torch.randn(4, 5, generator=g)
    zeros[2] = 0
    axes = ("row", "column")
    return [
        Probe("2 rows of 3 numbers", (torch.randn(2, 3, generator=g),), axes=axes),
        Probe("a row of zeros", (zeros,), axes=axes),
        Probe("three dimensions [2, 3, 4]", (torch.randn(2, 3, 4, generator=g),), axes=("batch", "row", "column")),
        Probe("not contiguous", (torch.randn(5, 7, generator=g),), layout="transposed", axes=axes),
        Probe("every row the same memory", (torch.randn(3, 6, generator=g),), layout="expanded", axes=axes),
    ]


def _sums_to_one(call, g):
    apart = (call(torch.rand(3, 8, generator=g) + 0.1).sum(dim=-1) - 1).abs().max().item()
    return None if apart < 1e-5 else f"the shares of a row sum to 1; yours are off by up to {apart:.2g}."


ROW_SHARES = Check(
    exercise="row_shares",
    probes=_row_probes,
    reference=_shares,
    baselines=(_shares, _shares_by_inverse, _shares_backwards),
    properties=(Property("the shares of a row sum to 1", _sums_to_one, "do-not-sum-to-one"),),
    rules=(forbid(("norm", "linalg_vector_norm"), "Build it from abs and sum."),),
    seconds=3.0,
    mutants=(
        Mutant("no-abs", "The signs are still there: shares are of sizes.", edits=(("sizes = x.abs()", "sizes = x"),)),
        Mutant("columns", "The columns sum to 1: look at `dim`.", edits=(("sum(dim=-1, keepdim=True)", "sum(dim=-2, keepdim=True)"),)),
        Mutant("zero-row", "Only rows of zeros are wrong: 0 / 0 is NaN.", edits=(("torch.where(total == 0, 1.0, total)", "total"),)),
        Mutant("in-place", "An `abs_` writes where the caller keeps its numbers.", edits=(("x.abs()", "x.abs_()"),), rule="mutated-input"),
        Mutant(
            "norm",
            "Sum the sizes yourself.",
            body="def row_shares(x):\n    n = torch.linalg.vector_norm(x, 1, dim=-1, keepdim=True)\n    return x.abs() / n.clamp_min(1e-30)\n",
            rule="shortcut",
        ),
    ),
    right=("def row_shares(x):\n    return torch.nan_to_num(x.abs() / x.abs().sum(-1, True))\n",),
)


def _kept(x, keep):
    return 2 * x * (keep != 0)


def _kernel_probes(g):
    def probe(n):
        return Probe(f"{n} numbers", (torch.randn(n, generator=g), torch.randint(0, 2, (n,), generator=g, dtype=torch.int8)), axes=("place",))

    return [probe(16), probe(21), probe(50), probe(64)]


def _read_once(probe, evidence):
    allowed = 5 * 16 * -(-probe.args[0].numel() // 16)  # whole tiles, for hosts that pad
    if evidence.bytes_loaded <= allowed:
        return None
    return f"your kernel requested {evidence.bytes_loaded:,} bytes; reading each number once takes {allowed:,}."


DOUBLE_AND_MASK = Check(
    exercise="double_and_mask",
    probes=_kernel_probes,
    reference=_kept,
    baselines=(_kept, lambda x, keep: torch.where(keep != 0, x + x, 0.0), lambda x, keep: (x * keep) * 2),
    rules=(Rule("bytes", _read_once),),
    mutants=(
        Mutant("not-doubled", "The numbers are kept, and not doubled.", edits=(("x * 2.0", "x"),)),
        Mutant("mask-inverted", "1 means keep.", edits=(("keep != 0", "keep == 0"),)),
        Mutant(
            "tile-reversed",
            "Each tile is stored backwards.",
            edits=(
                ("out_ptr + offsets", "out_ptr + tl.program_id(0) * BLOCK + BLOCK - 1 - tl.arange(0, BLOCK)"),
                (", 0.0), mask=inside)", ", 0.0), mask=inside & (tl.program_id(0) * BLOCK + BLOCK <= N))"),
            ),
        ),
        Mutant(
            "tail",
            "The last, partial tile has no program: round the number of programs up.",
            edits=(("triton.cdiv(x.numel(), BLOCK)", "max(x.numel() // BLOCK, 1)"),),
        ),
        Mutant(
            "no-mask",
            "Lanes past the end must be turned off, on loads and on stores.",
            edits=(("mask=inside, other=0.0", "mask=None"),),
            rule="out-of-range",
        ),
        Mutant(
            "twice",
            "Each number is needed once.",
            edits=(("    keep = tl.load", "    x = tl.load(x_ptr + offsets, mask=inside, other=0.0)\n    keep = tl.load"),),
            rule="bytes",
        ),
    ),
)

CHECKS = (ROW_SHARES, DOUBLE_AND_MASK)
