"""Grading material: safe_softmax."""

import torch

from course_lib.checks.ch03_online_softmax.inputs import normal, with_hidden
from course_lib.checks.ch03_online_softmax.plain import softmax, softmax_by_hand, softmax_by_lse, softmax_by_running_lse, softmax_times_inverse
from course_lib.checks.ch03_online_softmax.rules import SOFTMAX_OPS
from course_lib.grading.spec import Check, Mutant, Probe, Property, forbid


def _safe_softmax_probes(g: torch.Generator) -> list[Probe]:
    axes = ("row", "column")
    large = normal(g, 12, 7) * 3
    large[1::3] += 200
    large[2::3] -= 200
    hidden = with_hidden(g, 6, 11, 4)
    three = normal(g, 2, 3, 5) + torch.arange(3.0)[:, None]
    return [
        Probe("2 rows of 3 scores", (normal(g, 2, 3),), axes=axes),
        Probe("rows around +200, rows around -200", (large,), axes=axes),
        Probe("rows with hidden keys, one of them empty", (hidden,), axes=axes),
        Probe("three dimensions [2, 3, 5]", (three,), axes=("batch", "row", "column")),
        Probe("one score a row", (normal(g, 5, 1),), axes=axes),
        Probe("not contiguous", (normal(g, 9, 6) * 4,), layout="transposed", axes=axes),
        Probe("float64 in, float64 out", (normal(g, 3, 13, dtype=torch.float64),), axes=axes, diagnose=False),
    ]


def _same_after_a_shift(call, g: torch.Generator) -> str | None:
    x = torch.randint(-8, 8, (4, 9), generator=g).float()
    apart = (call(x) - call(x + 64.0)).abs().max().item()
    if apart <= 1e-6:
        return None
    return (
        f"adding 64 to every score of a row changed its softmax by up to {apart:.2g}; it must not change at all: exp(x + c) / "
        f"sum exp(x + c) has exp(c) above and below."
    )


SAFE_SOFTMAX = Check(
    exercise="safe_softmax",
    probes=_safe_softmax_probes,
    reference=softmax,
    baselines=(softmax, softmax_by_hand, softmax_by_lse, softmax_times_inverse, softmax_by_running_lse),
    properties=(Property("the same after adding a constant to a row", _same_after_a_shift, "not-shift-invariant"),),
    rules=(forbid(SOFTMAX_OPS, "The exercise is to build it from amax, exp and sum."),),
    mutants=(
        Mutant(
            "no-max",
            (
                "This is what comes out when `exp` gets the scores as they are: exp(89) no longer fits float32. What can you subtract "
                "from a whole row without changing its softmax?"
            ),
            edits=(("torch.exp(x - shift)", "torch.exp(x)"),),
        ),
        Mutant(
            "no-max-no-guard",
            (
                "This is what comes out when `exp` gets the scores as they are (exp(89) no longer fits float32), and an empty row is "
                "divided by its sum 0. Take the overflow first: what can you subtract from a whole row without changing its softmax?"
            ),
            body="""\
def safe_softmax(x):
    weights = torch.exp(x)
    return weights / weights.sum(dim=-1, keepdim=True)
""",
        ),
        Mutant(
            "global-max",
            (
                "This is what comes out when one maximum is taken over the whole tensor: rows far below it underflow to nothing. Every "
                "row needs its own maximum: look at `dim`."
            ),
            edits=(("x.amax(dim=-1, keepdim=True)", "x.amax()"),),
        ),
        Mutant(
            "global-max-no-guard",
            (
                "This is what comes out when one maximum is taken over the whole tensor: rows far below it underflow, and their sum is "
                "0. Every row needs its own maximum: look at `dim`."
            ),
            body="""\
def safe_softmax(x):
    weights = torch.exp(x - x.max())
    return weights / weights.sum(dim=-1, keepdim=True)
""",
        ),
        Mutant(
            "empty-row",
            (
                "Right wherever a row has a key left; empty rows are NaN. Their maximum is -inf, and -inf - -inf is NaN; their sum is "
                "0, and 0 / 0 is NaN too. Such a row must give zeros: which number can it subtract, and divide by, instead?"
            ),
            body="""\
def safe_softmax(x):
    weights = torch.exp(x - x.amax(dim=-1, keepdim=True))
    return weights / weights.sum(dim=-1, keepdim=True)
""",
        ),
        Mutant(
            "empty-row-uniform",
            (
                "Only empty rows are wrong: they came out as 1/N. That happens when -inf is replaced by a large negative number: the "
                "row then looks like N equal keys. A row with nothing to see must give zeros."
            ),
            body="""\
def safe_softmax(x):
    x = x.clamp(min=-1e30)
    weights = torch.exp(x - x.amax(dim=-1, keepdim=True))
    return weights / weights.sum(dim=-1, keepdim=True)
""",
        ),
        Mutant(
            "no-divide",
            "The weights are right up to a factor a row: they were never divided by their sum. Each row must sum to 1.",
            edits=(("return weights / torch.where(row_sum == 0, 1.0, row_sum)", "return weights"),),
        ),
        Mutant(
            "global-sum",
            "Each row is too small by its own factor: the sum was taken over the whole tensor. Look at `dim` where you sum.",
            edits=(("weights.sum(dim=-1, keepdim=True)", "weights.sum()"),),
        ),
        Mutant(
            "global-sum-no-guard",
            (
                "The sum was taken over the whole tensor, so the rows together sum to 1. Look at `dim` where you sum; the result has to "
                "keep the row's dimension (`keepdim=True`). Empty rows come after that."
            ),
            body="""\
def safe_softmax(x):
    weights = torch.exp(x - x.amax(dim=-1, keepdim=True))
    return weights / weights.sum()
""",
        ),
        Mutant(
            "first-dim",
            "The columns sum to 1, not the rows: maximum and sum were taken over the first dimension. The keys are in the last: dim=-1.",
            body="""\
def safe_softmax(x):
    weights = torch.exp(x - x.amax(dim=0, keepdim=True))
    return weights / weights.sum(dim=0, keepdim=True)
""",
        ),
        Mutant(
            "epsilon",
            (
                "Every weight is a little too small: a constant was added to the sum before dividing. It is there for the empty row; give only "
                "that row another divisor."
            ),
            edits=(("weights / torch.where(row_sum == 0, 1.0, row_sum)", "weights / (row_sum + 1e-5)"),),
        ),
        Mutant(
            "wrong-dim",
            ("The columns sum to 1, not the rows: the softmax was taken over the wrong dimension. The last dimension is the one with the keys."),
            edits=(
                ("x.amax(dim=-1, keepdim=True)", "x.amax(dim=-2, keepdim=True)"),
                ("weights.sum(dim=-1, keepdim=True)", "weights.sum(dim=-2, keepdim=True)"),
            ),
        ),
        Mutant(
            "clamped",
            (
                "This is what comes out when large scores are clamped so that `exp` does not overflow: scores above the limit become "
                "equal. Subtracting the row's maximum loses nothing."
            ),
            edits=(("torch.exp(x - shift)", "torch.exp(x.clamp(-80, 80))"),),
        ),
        Mutant(
            "base-two",
            "The weights are too even: this is 2 to the power of the score, not e. `exp2` needs scores multiplied by log2(e) = 1.4427.",
            edits=(("torch.exp(x - shift)", "torch.exp2(x - shift)"),),
        ),
        Mutant(
            "shortcut",
            "Writing it once by hand is the point: everything later in this chapter takes it apart.",
            body="""\
def safe_softmax(x):
    return torch.nan_to_num(torch.softmax(x, dim=-1), nan=0.0)
""",
            rule="shortcut",
        ),
    ),
    right=(
        """\
def safe_softmax(x):
    m = x.max(dim=-1, keepdim=True).values
    m = m.masked_fill(m == float('-inf'), 0)
    e = (x - m).exp()
    return e / e.sum(-1, keepdim=True).clamp_min(1e-30)
""",
        """\
def safe_softmax(x):
    m, _ = torch.max(x, dim=-1)
    e = torch.exp(x - m.unsqueeze(-1))
    out = e / e.sum(dim=-1).unsqueeze(-1)
    out[torch.isneginf(m)] = 0
    return out
""",
        """\
import math

def safe_softmax(x):
    x = x.float() if x.dtype is not torch.float64 else x
    e = torch.pow(math.e, x - x.amax(-1, True).nan_to_num(neginf=0.0))
    s = e.sum(-1, True)
    return torch.where(s > 0, e / s, torch.zeros_like(e))
""",
        """\
def safe_softmax(x):
    log2_e = 1.4426950408889634
    m = x.amax(-1, keepdim=True)
    e = torch.exp2((x - torch.where(m.isinf(), torch.zeros_like(m), m)) * log2_e)
    return torch.nan_to_num(e * (1 / e.sum(-1, keepdim=True)))
""",
    ),
)
