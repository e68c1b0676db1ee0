"""Grading material: merge_partial_attention."""

import torch
from torch import Tensor

from course_lib.grading.spec import Check, Mutant, Probe, Property

INF = torch.inf
AXES = ("batch", "head", "feature")
_BASE = "base = torch.where(largest == -torch.inf, 0.0, largest)  # -inf - -inf is NaN"
_PARTS = "parts = torch.where(empty[..., None], 0.0, outs)  # 0 times NaN is NaN"
_WEIGHTS = "weights = torch.exp(lses - base)  # [S, B, H], 0 for a part without keys"
_TOTAL = "total = weights.sum(dim=0)"
_LARGEST = "largest = lses.amax(dim=0)"
_HEAD = "def merge_partial_attention(outs, lses):\n    "
_DIVIDED = " / torch.where(total == 0, 1.0, total)[..., None]"
_AVERAGED = "The parts were averaged as if each had seen the same: a part with larger scores weighs more. Its weight is exp of its log-sum-exp."
_LOGARITHMS = "The outputs were weighted by the log-sum-exps themselves. They are logarithms: the weights are their exponentials."
_OVERFLOWS = "Right for small log-sum-exps: nothing was subtracted before exp, and exp(300) does not fit float32, exp(-300) rounds to 0."
_EMPTY = (
    "Parts without keys need two lines: the NaN that one may hold is weighed with 0, and 0 times NaN is NaN, so leave its output out; and a row that no part "
    "has keys for has weights 0 / 0, where 0 is due."
)


def _given(g: torch.Generator, s: int, b: int, h: int, d: int, spread: float = 1.0, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    return torch.randn(s, b, h, d, generator=g) + torch.arange(s)[:, None, None, None], torch.randn(s, b, h, generator=g) * spread + shift


def _some_empty(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Row 0: no part has keys. Row 1: the first part has none, and NaN stands in its output. Row 2: all have."""
    outs, lses = _given(g, 3, 1, 3, 5)
    lses[:, 0, 0], lses[0, 0, 1] = -INF, -INF
    outs[0, 0, 1] = torch.nan
    return outs, lses


def _far_apart(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each row has a base of its own, hundreds from the next: relative to the largest of all rows nothing would be left of the others."""
    outs, lses = _given(g, 4, 2, 3, 5, 2.0)
    return outs, lses + torch.tensor([[-300.0, 0.0, 300.0], [300.0, -300.0, 0.0]])


def by_logsumexp(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    lse = torch.logsumexp(lses, 0)
    share = torch.where(lses == -INF, 0.0, torch.exp(lses - torch.where(lse == -INF, 0.0, lse)))
    return (share[..., None] * torch.where(lses[..., None] == -INF, 0.0, outs)).sum(0), lse


def by_softmax(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    share = torch.softmax(lses, 0).nan_to_num(0.0)
    clean = torch.where(lses[..., None] == -INF, 0.0, outs)
    return torch.einsum("sbh,sbhd->bhd", share, clean), torch.logsumexp(lses, 0)


def one_after_the_other(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    out, lse = torch.zeros_like(outs[0]), torch.full_like(lses[0], -INF)
    for o, new in zip(outs, lses, strict=True):
        both = torch.logaddexp(lse, new)
        base = torch.where(both == -INF, 0.0, both)
        old, fresh = torch.exp(lse - base), torch.exp(new - base)
        out = out * old[..., None] + torch.where(new == -INF, 0.0, fresh)[..., None] * torch.where(new[..., None] == -INF, 0.0, o)
        lse = both
    return out, lse


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("2 parts of 2 heads", _given(g, 2, 1, 2, 3), axes=AXES),
        Probe("5 parts, 2 sequences, 3 heads", _given(g, 5, 2, 3, 7, 3.0), axes=AXES),
        Probe("rows without keys: in one part, in all", _some_empty(g), axes=AXES),
        Probe("log-sum-exps around +300", _given(g, 4, 1, 3, 5, 2.0, 300.0), axes=AXES),
        Probe("rows at log-sum-exps of -300, 0 and 300", _far_apart(g), axes=AXES),
        Probe("one part", _given(g, 1, 2, 2, 4), axes=AXES),
        Probe("log-sum-exps 200 apart", _given(g, 3, 2, 2, 5, 100.0), axes=AXES, diagnose=False),
        Probe("float64 in, float64 out", tuple(x.double() for x in _given(g, 3, 1, 2, 4)), axes=AXES, diagnose=False),
        Probe("40 parts", _given(g, 40, 1, 2, 6, 4.0), axes=AXES, diagnose=False),
    ]


def _in_any_order(call, g: torch.Generator) -> str | None:
    outs, lses = _given(g, 5, 1, 3, 4, 3.0)
    order = torch.tensor([3, 0, 4, 2, 1])
    (out, lse), (again, lse_again) = call(outs, lses), call(outs[order], lses[order])
    fine = torch.allclose(out, again, atol=1e-5) and torch.allclose(lse, lse_again, atol=1e-5)
    return None if fine else "the order of the parts changes the result by more than rounding"


def _in_two_steps(call, g: torch.Generator) -> str | None:
    outs, lses = _given(g, 4, 1, 3, 4, 3.0)
    first, second = call(outs[:2], lses[:2]), call(outs[2:], lses[2:])
    out, lse = call(torch.stack([first[0], second[0]]), torch.stack([first[1], second[1]]))
    whole, whole_lse = call(outs, lses)
    fine = torch.allclose(out, whole, atol=1e-5) and torch.allclose(lse, whole_lse, atol=1e-5)
    return None if fine else "merging two merged halves differs from merging all parts by more than rounding"


MERGE_PARTIAL_ATTENTION = Check(
    exercise="merge_partial_attention",
    probes=_probes,
    reference=by_logsumexp,
    baselines=(by_logsumexp, by_softmax, one_after_the_other),
    returns="a pair (out, lse)",
    properties=(Property("parts in another order", _in_any_order), Property("merged in two steps", _in_two_steps)),
    mutants=(
        Mutant(
            "plain-average",
            _AVERAGED,
            edits=(
                (_WEIGHTS, "weights = torch.where(empty, 0.0, torch.ones_like(lses))"),
                ("base + torch.log(total)", "torch.logsumexp(lses, dim=0)"),
            ),
        ),
        Mutant("mean", _AVERAGED, body=f"{_HEAD}return outs.mean(dim=0), torch.logsumexp(lses, dim=0)\n"),
        Mutant(
            "weights-not-exp",
            _LOGARITHMS,
            edits=(
                ("out = (weights[..., None]", "out = (torch.where(empty, 0.0, lses)[..., None]"),
                (_DIVIDED, " / torch.where(empty, 0.0, lses).sum(dim=0)[..., None]"),
            ),
        ),
        Mutant(
            "weights-not-exp-nor-empty",
            _LOGARITHMS,
            body=f"{_HEAD}return (lses[..., None] * outs).sum(dim=0) / lses.sum(dim=0)[..., None], torch.logsumexp(lses, dim=0)\n",
        ),
        Mutant(
            "not-divided",
            "The output was not divided by the sum of the weights: relative to the largest they do not add up to 1.",
            edits=((_DIVIDED, ""),),
        ),
        Mutant(
            "no-shift",
            _OVERFLOWS,
            edits=((_BASE, "base = torch.zeros_like(largest)"),),
        ),
        Mutant(
            "no-shift-nor-empty",
            f"{_OVERFLOWS} {_EMPTY}",
            edits=((_BASE, "base = torch.zeros_like(largest)"), (_PARTS, "parts = outs"), (_DIVIDED, " / total[..., None]")),
        ),
        Mutant(
            "largest-of-all",
            "Right where all rows lie alike: the largest was taken over all rows at once, and next to it the exponentials of a row far below round to 0. Every "
            "row has a largest of its own: over dimension 0 alone.",
            edits=((_LARGEST, "largest = lses.max().expand_as(lses[0])"),),
        ),
        Mutant(
            "exp2-of-natural",
            "The weights are powers of 2: the log-sum-exps are natural logarithms, so it is exp that undoes them.",
            edits=((_WEIGHTS, _WEIGHTS.replace("torch.exp(", "torch.exp2(")),),
        ),
        Mutant(
            "lse-forgets-shift",
            "The output is right; in lse the largest log-sum-exp is missing, relative to which the weights were summed.",
            edits=(("base + torch.log(total)", "torch.log(total)"),),
        ),
        Mutant(
            "lse-is-largest",
            "The output is right, and what stands in lse is the largest of the parts'. log(sum of the weights) is missing.",
            edits=(("base + torch.log(total)", "largest"),),
        ),
        Mutant(
            "lse-summed",
            "The output is right; the log-sum-exps were added. It is their exponentials that add up.",
            edits=(("base + torch.log(total)", "lses.sum(dim=0)"),),
        ),
        Mutant(
            "lse-without-log",
            "The output is right; in lse stands the sum of the weights. Its logarithm is due, and the largest, relative to which they were summed.",
            edits=(("base + torch.log(total)", "total"),),
        ),
        Mutant(
            "lse-base-2",
            "The output is right; the logarithm in lse is to base 2. The course's lse is natural.",
            edits=(("torch.log(total)", "torch.log2(total)"),),
        ),
        Mutant(
            "empty-is-nan",
            "Right, except where no part has keys: largest is -inf there, and -inf - -inf is NaN. Subtract 0 instead; what should a total of 0 be divided by?",
            edits=((_BASE, "base = largest"), (_DIVIDED, " / total[..., None]")),
        ),
        Mutant(
            "divides-by-zero",
            "Right, except where no part has keys: the sum of the weights is 0, and 0 / 0 is NaN. Such a row is 0.",
            edits=((_DIVIDED, " / total[..., None]"),),
        ),
        Mutant(
            "reads-empty-part",
            "Right, except where a part without keys holds NaN: its weight is 0, and 0 times NaN is NaN. Leave its output out.",
            edits=((_PARTS, "parts = outs"),),
        ),
        Mutant(
            "empty-parts-count",
            f"Right, except for parts without keys. {_EMPTY}",
            edits=((_PARTS, "parts = outs"), (_DIVIDED, " / total[..., None]")),
        ),
        Mutant(
            "nan-replaced-last",
            "Right, except where a part without keys holds NaN: NaN was replaced when the sum was made, and the shares of the other parts went with it. "
            "Replace what stands in the empty part before it is weighed.",
            edits=((_PARTS, "parts = outs"), (_DIVIDED, f"{_DIVIDED}\n    out = out.nan_to_num(0.0)")),
        ),
        Mutant(
            "empty-lse",
            "Right, except where no part has keys: its lse is -inf, the logarithm of a sum of 0. Only the division has to be spared from the 0.",
            edits=(("base + torch.log(total)", "base + torch.log(torch.where(total == 0, 1.0, total))"),),
        ),
        Mutant(
            "empty-lse-finite",
            "Right, except where no part has keys: its lse has to be -inf, not a very large negative number. Whoever merges further must see that it is empty.",
            edits=((_BASE, "base = largest.clamp(min=-1e30)"), ("torch.log(total)", "torch.log(total.clamp(min=1e-9))")),
        ),
        Mutant(
            "softmax-over-heads",
            "The shares add up to 1 over the heads, not over the parts: the parts are dimension 0.",
            body=f"{_HEAD}return (torch.softmax(lses, dim=-1)[..., None] * outs).sum(dim=0), torch.logsumexp(lses, dim=0)\n",
        ),
        Mutant(
            "over-heads",
            "The sums ran over the heads, not over the parts: the parts are dimension 0.",
            edits=((_TOTAL, "total = weights.sum(dim=2, keepdim=True).expand_as(weights)[0]"),),
        ),
    ),
    right=(
        """\
def merge_partial_attention(outs, lses):
    lse = torch.logsumexp(lses, dim=0)
    share = torch.exp(lses - lse).nan_to_num(0.0)
    out = (share.unsqueeze(-1) * outs.masked_fill((lses == float("-inf")).unsqueeze(-1), 0.0)).sum(0)
    return out, lse
""",
        """\
def merge_partial_attention(outs, lses):
    out = torch.zeros_like(outs[0])
    lse = torch.full_like(lses[0], -float("inf"))
    for s in range(outs.shape[0]):
        new = torch.logaddexp(lse, lses[s])
        safe = torch.where(torch.isinf(new), torch.zeros_like(new), new)
        a, b = torch.exp(lse - safe), torch.exp(lses[s] - safe)
        part = torch.where((lses[s] == -float("inf"))[..., None], torch.zeros_like(out), outs[s])
        out, lse = out * a[..., None] + part * b[..., None], new
    return out, lse
""",
        """\
from course_lib.earlier import merge_states
from course_lib.states import SoftmaxState

def merge_partial_attention(outs, lses):
    state = None
    for out, lse in zip(outs, lses):
        empty = lse == -torch.inf
        part = SoftmaxState(lse, (~empty).to(lse.dtype), torch.where(empty[..., None], 0.0, out))
        state = part if state is None else SoftmaxState(*merge_states(state, part))
    total = torch.where(state.row_sum == 0, 1.0, state.row_sum)
    return state.acc / total[..., None], state.row_max + torch.log(total)
""",
        """\
def merge_partial_attention(outs, lses):
    weights = torch.softmax(lses.masked_fill(lses == -torch.inf, -1e30), dim=0)
    weights = weights * (lses != -torch.inf)
    clean = torch.where((lses == -torch.inf)[..., None], torch.zeros((), dtype=outs.dtype), outs)
    return torch.einsum("sbh,sbhd->bhd", weights, clean), lses.logsumexp(0)
""",
    ),
)
