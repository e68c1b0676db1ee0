"""Mistakes that both backward kernels can make, as edits of their solutions, which are alike in these lines."""

from course_lib.grading.spec import Mutant

DS = "ds = p * (dp - delta[:, None])"
P = "p = tl.where(visible, tl.exp(scores - lse[:, None]), 0.0)"
SCORES = 'scores = tl.dot(q, k.T, input_precision="ieee") * scale'
HOST_SCALE = "scale = D**-0.5 if scale is None else scale"


def score_gradient() -> list[Mutant]:
    return [
        Mutant(
            "no-delta",
            "dS is not P * dP: the weights of a row add up to 1, so what one score gains the others lose. That is what delta is for.",
            edits=((DS, "ds = p * dp"),),
        ),
        Mutant("delta-added", "delta was added to dP; it has to be subtracted.", edits=((DS, "ds = p * (dp + delta[:, None])"),)),
        Mutant(
            "delta-of-one-tile",
            "delta was made anew from P and dP of the tile in hand. Its sum runs over *all* keys of a query, and the tile holds a few of them: right where one "
            "tile holds all, wrong elsewhere. Use the delta you were given.",
            edits=((DS, "ds = p * (dp - tl.sum(p * dp, axis=1)[:, None])"),),
        ),
        Mutant(
            "p-missing",
            "dS lacks the factor P: a score whose weight is near 0 hardly changes anything, so its gradient is near 0.",
            edits=((DS, "ds = tl.where(visible, dp - delta[:, None], 0.0)"),),
        ),
        Mutant(
            "delta-scaled-away",
            "delta was multiplied by P twice, or dP not at all: both stand inside the bracket, P * (dP - delta).",
            edits=((DS, "ds = p * (dp - p * delta[:, None])"),),
        ),
    ]


def weights() -> list[Mutant]:
    return [
        Mutant(
            "lse-ignored",
            "The exponentials were not divided by their row's sum: P = exp(scores - lse), and lse is what makes a row add up to 1.",
            edits=((P, "p = tl.where(visible, tl.exp(scores), 0.0)"),),
        ),
        Mutant(
            "scores-not-scaled",
            "P was made from scores without the scale: it is not the P of the forward pass, whose lse you were given.",
            edits=((SCORES, SCORES.removesuffix(" * scale")),),
        ),
        Mutant(
            "scale-ignored", "Right with the default scale, wrong with scale=0.3: the argument is not used.", edits=((HOST_SCALE, "scale = D**-0.5"),)
        ),
        Mutant(
            "hidden-before-exp",
            "Right, except where a query sees no key: its lse is -inf, a hidden score is -inf too, and -inf - -inf is NaN. Take the exponential first and hide "
            "afterwards: tl.where(visible, ..., 0.0).",
            edits=((P, 'p = tl.exp(tl.where(visible, scores, -float("inf")) - lse[:, None])'),),
        ),
    ]


def masks(visible: str, bound: str, no_bound: str) -> list[Mutant]:
    """The causal mask: `bound` is where the loop begins or ends, `no_bound` the same for all tiles."""
    return [
        Mutant(
            "causal-ignored",
            "Right without causal, wrong with causal=True: the argument is not used.",
            edits=((" CAUSAL=causal,", " CAUSAL=False,"),),
        ),
        Mutant(
            "top-left",
            "Right where N_Q = N_KV or nothing is masked, wrong elsewhere: the mask is aligned top left. Query i sees key j where j <= i + N_KV - N_Q.",
            edits=(("shift = N_KV - N_Q", "shift = 0"),),
        ),
        Mutant(
            "strict",
            "Under causal=True a query does not see its own key: `<` where `<=` was meant.",
            edits=((visible, visible.replace("<=", "<")), (bound, no_bound)),
        ),
    ]


def outside(*edits: tuple[str, str]) -> Mutant:
    return Mutant(
        "no-mask",
        "On a GPU this reads or overwrites whatever lies there. The usual causes: rows >= N_Q not masked in the loads of Q, dout, lse or delta, keys >= N_KV not "
        "masked in the loads of K and V or in the stores, dims >= D not masked in any of them, or an index multiplied by the wrong stride.",
        edits=edits,
        rule="out-of-range",
    )


def copied() -> Mutant:
    return Mutant(
        "copied",
        "That is what `.contiguous()`, `.float()` or `.to(...)` in the host function does.",
        edits=((f"    {HOST_SCALE}\n", f"    {HOST_SCALE}\n    q, dout = q.contiguous(), dout.contiguous()\n"),),
        rule="copied",
    )


def nothing_skipped(edit: tuple[str, str], instead: str) -> Mutant:
    return Mutant("nothing-skipped", f"Hidden tiles were read, multiplied and then masked away. {instead}", edits=(edit,), rule="tiles")
