"""Grading material: merge_states."""

import torch

from course_lib.checks.ch03_online_softmax.inputs import INF, normal
from course_lib.checks.ch03_online_softmax.plain import merged, merged_by_exp2, merged_by_one_difference, state_of
from course_lib.grading.spec import Check, Mutant, Probe, Property
from course_lib.states import SoftmaxState


def _state(g: torch.Generator, *shape: int, keys: int = 6, width: int = 3, shift: float = 0.0, dtype: torch.dtype = torch.float32) -> SoftmaxState:
    return state_of(normal(g, *shape, keys, dtype=dtype) * 2 + shift, normal(g, *shape, keys, width, dtype=dtype))


def _empty(*shape: int, width: int = 3) -> SoftmaxState:
    return SoftmaxState(torch.full(shape, -INF), torch.zeros(shape), torch.zeros(*shape, width))


def _merge_probes(g: torch.Generator) -> list[Probe]:
    some_empty_a, some_empty_b = _state(g, 5), _state(g, 5)
    for rows, state in (((0, 1), some_empty_a), ((0, 2), some_empty_b)):  # row 0: both empty; row 1: only a; row 2: only b
        for row in rows:
            state.row_max[row], state.row_sum[row], state.acc[row] = -INF, 0, 0
    apart = _state(g, 4), _state(g, 4, shift=3.0)
    return [
        Probe("two states of 2 rows", (_state(g, 2, keys=2, width=3), _state(g, 2, keys=2, width=3)), axes=("row", "feature")),
        Probe("the second maximum 3 higher", apart, axes=("row", "feature")),
        Probe("the second maximum 3 lower", apart[::-1], axes=("row", "feature")),
        Probe("maxima 95 apart, both ways", tuple(_far_states(g)), axes=("row", "feature")),
        Probe("empty states: one side, the other, both", (some_empty_a, some_empty_b), axes=("row", "feature")),
        Probe("dimensions [2, 3] with 5 features", (_state(g, 2, 3, width=5), _state(g, 2, 3, width=5)), axes=("batch", "row", "feature")),
        Probe("no key seen by any row on the left", (_empty(3), _state(g, 3)), axes=("row", "feature"), diagnose=False),
        Probe("maxima around +300", (_state(g, 3, shift=300.0), _state(g, 3, shift=301.0)), axes=("row", "feature"), diagnose=False),
        Probe(
            "float64 in, float64 out", (_state(g, 3, dtype=torch.float64), _state(g, 3, dtype=torch.float64)), axes=("row", "feature"), diagnose=False
        ),
    ]


def _far_states(g: torch.Generator) -> tuple[SoftmaxState, SoftmaxState]:
    """Row 0: b lies 95 above a. Row 1: a lies 95 above b."""
    values = normal(g, 2, 2, 4, 3)
    scores = normal(g, 2, 2, 4) + torch.tensor([[[0.0], [95.0]], [[95.0], [0.0]]])
    return state_of(scores[0], values[0]), state_of(scores[1], values[1])


def _close_states(one, other) -> bool:
    return all(torch.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(one, other, strict=True))


def _associative(call, g: torch.Generator) -> str | None:
    a, b, c = (_state(g, 4, shift=shift) for shift in (0.0, 4.0, -2.0))
    if _close_states(call(SoftmaxState(*call(a, b)), c), call(a, SoftmaxState(*call(b, c)))):
        return None
    return "merge(merge(a, b), c) and merge(a, merge(b, c)) differ by more than rounding: the order of the tiles would change the result."


def _commutative(call, g: torch.Generator) -> str | None:
    a, b = _state(g, 4), _state(g, 4, shift=2.0)
    return None if _close_states(call(a, b), call(b, a)) else "merge(a, b) and merge(b, a) differ by more than rounding."


_MERGE_A, _MERGE_B = "a.acc * a_scale[..., None]", "b.acc * b_scale[..., None]"

MERGE_STATES = Check(
    exercise="merge_states",
    probes=_merge_probes,
    reference=merged,
    baselines=(merged, merged_by_one_difference, merged_by_exp2),
    properties=(
        Property("the order of two states does not matter", _commutative, "not-commutative"),
        Property("the grouping of three states does not matter", _associative, "not-associative"),
    ),
    returns="a SoftmaxState (row_max, row_sum, acc)",
    mutants=(
        Mutant(
            "acc-not-rescaled",
            (
                "`row_max` and `row_sum` are right, `acc` is not: the two were added as they are. `acc` is a sum of the same exponentials "
                "as row_sum, each times a value: what scales the one scales the other."
            ),
            edits=((_MERGE_A, "a.acc"), (_MERGE_B, "b.acc")),
        ),
        Mutant(
            "sum-not-rescaled",
            "`row_max` and `acc` are right, `row_sum` is not: the two were added as they are. Relative to which maximum is each counted?",
            edits=(("a.row_sum * a_scale + b.row_sum * b_scale", "a.row_sum + b.row_sum"),),
        ),
        Mutant(
            "nothing-rescaled",
            ("The sums were added as they are. Each counts its terms relative to its own row_max: bring both to the larger maximum before adding."),
            edits=(("a.row_sum * a_scale + b.row_sum * b_scale", "a.row_sum + b.row_sum"), (_MERGE_A, "a.acc"), (_MERGE_B, "b.acc")),
        ),
        *(
            Mutant(
                f"acc-{name}-not-rescaled",
                f"`row_max` and `row_sum` are right; in `acc` the part of `{name}` was added as it is. Each of the four products needs its own state's factor.",
                edits=((line, f"{name}.acc"),),
            )
            for name, line in (("a", _MERGE_A), ("b", _MERGE_B))
        ),
        *(
            Mutant(
                f"sum-{name}-not-rescaled",
                f"`row_max` and `acc` are right; in `row_sum` the part of `{name}` was added as it is. Each of the four products needs its own state's factor.",
                edits=((f"{name}.row_sum * {name}_scale", f"{name}.row_sum"),),
            )
            for name in ("a", "b")
        ),
        Mutant(
            "only-a-rescaled",
            (
                "Right while the second state has the larger maximum, wrong when the first has it: only `a` was rescaled. Either of "
                "the two can be the one that has to shrink."
            ),
            edits=(("torch.exp(a.row_max - shift), torch.exp(b.row_max - shift)", "torch.exp(a.row_max - shift), torch.ones_like(b.row_max)"),),
        ),
        Mutant(
            "inverted",
            (
                "The state with the smaller maximum was made larger, not smaller: the exponent has the wrong sign. Every factor here "
                "is exp(old - new), at most 1."
            ),
            body="""\
def merge_states(a, b):
    new_max = torch.maximum(a.row_max, b.row_max)
    shift = torch.where(new_max == -torch.inf, 0.0, new_max)
    a_scale = torch.where(a.row_max == -torch.inf, 0.0, torch.exp(shift - a.row_max))
    b_scale = torch.where(b.row_max == -torch.inf, 0.0, torch.exp(shift - b.row_max))
    return SoftmaxState(new_max, a.row_sum * a_scale + b.row_sum * b_scale, a.acc * a_scale[..., None] + b.acc * b_scale[..., None])
""",
        ),
        Mutant(
            "inverted-no-guard",
            (
                "The state with the smaller maximum was made larger, not smaller: the exponent has the wrong sign. Every factor here "
                "is exp(old - new), at most 1."
            ),
            body="""\
def merge_states(a, b):
    new_max = torch.maximum(a.row_max, b.row_max)
    a_scale, b_scale = torch.exp(new_max - a.row_max), torch.exp(new_max - b.row_max)
    return SoftmaxState(new_max, a.row_sum * a_scale + b.row_sum * b_scale, a.acc * a_scale[..., None] + b.acc * b_scale[..., None])
""",
        ),
        Mutant(
            "swapped",
            ("Each state was scaled by the other one's factor. `a` was counted relative to a.row_max, so its factor is exp(a.row_max - new_max)."),
            edits=(("a_scale, b_scale = torch.exp(a", "b_scale, a_scale = torch.exp(a"),),
        ),
        Mutant(
            "normalised",
            (
                "`acc` came out divided by row_sum. The state keeps it undivided, so that it can be merged again; the division comes "
                "once, at the very end."
            ),
            edits=(
                (
                    "acc=a.acc * a_scale[..., None] + b.acc * b_scale[..., None],",
                    (
                        "acc=(a.acc * a_scale[..., None] + b.acc * b_scale[..., None]) / (a.row_sum * a_scale + b.row_sum * "
                        "b_scale).clamp_min(1e-30)[..., None],"
                    ),
                ),
            ),
        ),
        Mutant(
            "weighted-average",
            "`acc` was treated as an average: multiplied by its row_sum before adding. It is a sum already.",
            edits=((_MERGE_A, "a.acc * (a.row_sum * a_scale)[..., None]"), (_MERGE_B, "b.acc * (b.row_sum * b_scale)[..., None]")),
        ),
        Mutant(
            "keeps-a-max",
            ("row_max is the first state's. The merged state is counted relative to the larger of the two, or the smaller one's factor overflows."),
            edits=(("new_max = torch.maximum(a.row_max, b.row_max)", "new_max = a.row_max"),),
        ),
        Mutant(
            "empty",
            (
                "Right, except where both states are empty: -inf - -inf is NaN. Two empty states make an empty state (-inf, 0, 0): "
                "which number can that row subtract instead of its maximum?"
            ),
            body="""\
def merge_states(a, b):
    new_max = torch.maximum(a.row_max, b.row_max)
    a_scale, b_scale = torch.exp(a.row_max - new_max), torch.exp(b.row_max - new_max)
    return SoftmaxState(new_max, a.row_sum * a_scale + b.row_sum * b_scale, a.acc * a_scale[..., None] + b.acc * b_scale[..., None])
""",
        ),
        *(
            Mutant(
                f"{name}-no-guard",
                message,
                body=(
                    """\
def merge_states(a, b):
    new_max = torch.maximum(a.row_max, b.row_max)
    a_scale, b_scale = torch.exp(a.row_max - new_max), torch.exp(b.row_max - new_max)
"""
                    f"    return SoftmaxState(new_max, {row_sum}, {acc})\n"
                ),
            )
            for name, message, row_sum, acc in (
                (
                    "acc-not-rescaled",
                    (
                        "`acc` was added without rescaling. It is a sum of the same exponentials as row_sum, each times a value: what scales "
                        "the one scales the other. (Two empty states are not right yet either: -inf - -inf is NaN.)"
                    ),
                    "a.row_sum * a_scale + b.row_sum * b_scale",
                    "a.acc + b.acc",
                ),
                (
                    "sum-not-rescaled",
                    (
                        "`row_sum` was added without rescaling. Relative to which maximum is each of the two counted? (Two empty states are "
                        "not right yet either: -inf - -inf is NaN.)"
                    ),
                    "a.row_sum + b.row_sum",
                    "a.acc * a_scale[..., None] + b.acc * b_scale[..., None]",
                ),
            )
        ),
    ),
    right=(
        """\
def merge_states(a, b):
    m = torch.max(a.row_max, b.row_max)
    safe = m.masked_fill(m == float('-inf'), 0)
    ca, cb = (a.row_max - safe).exp(), (b.row_max - safe).exp()
    return SoftmaxState(m, ca * a.row_sum + cb * b.row_sum, ca.unsqueeze(-1) * a.acc + cb.unsqueeze(-1) * b.acc)
""",
        """\
def merge_states(a, b):
    am, al, ao = a
    bm, bl, bo = b
    d = torch.nan_to_num(torch.exp(-(am - bm).abs()))
    fa = torch.where(am >= bm, torch.ones_like(d), d)
    fb = torch.where(bm >= am, torch.ones_like(d), d)
    return SoftmaxState(torch.maximum(am, bm), al * fa + bl * fb, ao * fa[..., None] + bo * fb[..., None])
""",
        """\
def merge_states(a, b):
    def rescaled(s, new):
        f = torch.where(s.row_max.isneginf(), torch.zeros_like(new), torch.exp(s.row_max - new))
        return s.row_sum * f, s.acc * f.unsqueeze(-1)
    new = torch.where(a.row_max > b.row_max, a.row_max, b.row_max)
    (la, oa), (lb, ob) = rescaled(a, new), rescaled(b, new)
    return SoftmaxState(new, la + lb, oa + ob)
""",
        """\
def merge_states(a, b):
    maxima = torch.stack([a.row_max, b.row_max])
    new = maxima.amax(0)
    f = torch.exp(maxima - new.nan_to_num(neginf=0.0))
    return SoftmaxState(new, (f * torch.stack([a.row_sum, b.row_sum])).sum(0), (f[..., None] * torch.stack([a.acc, b.acc])).sum(0))
""",
    ),
)
