"""Grading material: attention."""

import torch

from course_lib.checks.ch02_attention_cost.inputs import normal, padding, patchy, qkv
from course_lib.checks.ch03_online_softmax.plain import (
    attention,
    attention_by_exp2,
    attention_divided_late,
    attention_key_by_key,
    attention_scaled_first,
)
from course_lib.grading.spec import Check, Mutant, Probe, Property, forbid

FUSED_OPS = (
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_native_multi_head_attention",
    "flex_attention",
)


def _probes(g: torch.Generator) -> list[Probe]:
    two, four = ("query", "feature"), ("batch", "head", "query", "feature")
    q, k, v = qkv(g, n_q=5, n_kv=8, d=6)
    hot = k.clone()
    hot[-1] = 60 * q[2]  # a hidden key that would take all the weight
    seen = torch.ones(5, 8, dtype=torch.bool)
    seen[:, -1] = False
    far = qkv(g, n_q=6, n_kv=9, d=4)
    return [
        Probe("2 queries, 3 keys", qkv(g, n_q=2, n_kv=3, d=4), axes=two, diagnose=False),
        Probe("2 batches, 3 heads, 5 queries, 7 keys", qkv(g, 2, 3, n_q=5, n_kv=7, d=6), axes=four),
        Probe("a mask with an empty row", qkv(g, n_q=6, n_kv=9, d=4), {"mask": patchy(g, 6, 9)}, axes=two),
        Probe(
            "padding: 3 and 8 real keys, scale 0.3",
            qkv(g, 2, 4, n_q=5, n_kv=8, d=6),
            {"mask": padding((3, 8), 8), "scale": 0.3},
            axes=four,
        ),
        Probe("a hidden key with by far the largest score", (q, hot, v), {"mask": seen}, axes=two),
        Probe("scale 0.0, which is not None", (far[0], far[1], far[2]), {"scale": 0.0}, axes=two),
        Probe("scores beyond +-200", (far[0] * 60, far[1] * 3, far[2]), axes=two),
        Probe("more queries than keys", qkv(g, 3, n_q=9, n_kv=4, d=5), axes=("head", "query", "feature"), diagnose=False),
        Probe(
            "not contiguous, one mask a head",
            qkv(g, 2, n_q=5, n_kv=9, d=4),
            {"mask": torch.stack([patchy(g, 5, 9), patchy(g, 5, 9)])},
            layout="transposed",
            axes=("head", "query", "feature"),
            diagnose=False,
        ),
        Probe("float64 in, float64 out", qkv(g, n_q=3, n_kv=10, d=4, dtype=torch.float64), axes=two, diagnose=False),
    ]


def _ones_stay_ones(call, g: torch.Generator) -> str | None:
    q, k, v = qkv(g, n_q=4, n_kv=10, d=3)
    apart = (call(q, k, torch.ones_like(v)) - 1).abs().max().item()
    if apart < 1e-5:
        return None
    return f"with V = 1 everywhere the output must be 1: it is a weighted average. Yours is off by up to {apart:.2g}: the weights do not sum to 1."


def _hidden_keys_do_not_matter(call, g: torch.Generator) -> str | None:
    q, k, v = qkv(g, n_q=4, n_kv=9, d=3)
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[:, 6:] = False
    other_k, other_v = k.clone(), v.clone()
    other_k[6:], other_v[6:] = normal(g, 3, 3), normal(g, 3, 3)
    apart = (call(q, k, v, mask=mask) - call(q, other_k, other_v, mask=mask)).abs().max().item()
    return None if apart < 1e-5 else f"changing keys that the mask hides changed the output by up to {apart:.2g}; nothing of them may be seen."


_PLAIN = """def attention(q, k, v, mask=None, scale=None):
    if scale is None:
        scale = q.shape[-1] ** -0.5
    scores = q @ k.mT * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    return weights @ v
"""
_FILL = "scores.masked_fill(~mask, -torch.inf)"
_EMPTY = " (Rows without any key are not right yet either.)"


_GUARDED = _PLAIN.replace(
    "    return weights @ v\n",
    "    if mask is not None:\n        weights = torch.where(mask.any(-1, keepdim=True), weights, 0.0)\n    return weights @ v\n",
)


_REPAIRED = _PLAIN.replace("return weights @ v", "return torch.nan_to_num(weights) @ v")  # the same numbers, until a mistake makes NaN elsewhere


def _in_both(id: str, message: str, *edits: str) -> tuple[Mutant, Mutant]:
    """The same mistake in an answer that guards empty rows, and in one that does not. edits: old, new, old, new ..."""
    guarded, plain = (_with(id, form, edits) for form in (_GUARDED, _PLAIN))
    return Mutant(id, message, body=guarded), Mutant(f"{id}-no-guard", message + _EMPTY, body=plain)


def _repaired(id: str, message: str, *edits: str) -> Mutant:
    """The same mistake in an answer that turns every NaN into 0, and with it some that were not meant."""
    return Mutant(f"{id}-repaired", message, body=_with(id, _REPAIRED, edits))


def _with(id: str, form: str, edits: tuple[str, ...]) -> str:
    for old, new in zip(edits[::2], edits[1::2], strict=True):
        if form.count(old) != 1:
            raise ValueError(f"mutant {id}: {old!r} does not stand once in the form")
        form = form.replace(old, new)
    return form


_SOFTMAX = "torch.softmax(scores, dim=-1)"
_INVERTED = "The mask was read the wrong way round: True means keep."
_OVER_QUERIES = "The softmax ran over the queries: the columns of the weights sum to 1, not the rows. Each query shares out 1 over the keys: dim=-1."
_OVER_ONE = (
    "Right for [N, D], wrong with leading dimensions: the softmax ran over dimension 1, which is the heads there. Count dimensions from the end: "
    "the keys are the last, dim=-1."
)
_OVER_ZERO = "The softmax ran over the first dimension. Each query shares out 1 over the keys, which are the last: dim=-1."
_SINGLE = (
    "Right for float32. With float64 inputs the result is right to seven digits only: somewhere on the way it was turned into float32 (`.float()`, or "
    "a dtype written in). Compute in the inputs' own dtype."
)

ATTENTION = Check(
    exercise="attention",
    probes=_probes,
    reference=attention,
    baselines=(attention, attention_divided_late, attention_scaled_first, attention_by_exp2, attention_key_by_key),
    properties=(
        Property("values of 1 give outputs of 1", _ones_stay_ones, "weights-do-not-sum-to-one"),
        Property("hidden keys change nothing", _hidden_keys_do_not_matter, "hidden-keys-matter"),
    ),
    rules=(forbid(FUSED_OPS, "The exercise is to write its three steps out."),),
    mutants=(
        Mutant(
            "empty-row",
            (
                "Right, except for queries that may see no key: softmax of a row of nothing but -inf is 0 / 0, and the NaN goes through "
                "to the output. The course's rule is that such a row gives zeros."
            ),
            body=_PLAIN,
        ),
        *_in_both(
            "no-scale",
            "The scores were not scaled: with scale=None they are multiplied by 1 / sqrt(D), otherwise by `scale`.",
            "q @ k.mT * scale",
            "q @ k.mT",
        ),
        *_in_both(
            "scale-not-rooted",
            "The scores were divided by D, not by its square root.",
            "q.shape[-1] ** -0.5",
            "1 / q.shape[-1]",
        ),
        *_in_both(
            "scale-upside-down",
            "The scores were multiplied by sqrt(D), where they are divided by it: the weights come out far too peaked.",
            "q.shape[-1] ** -0.5",
            "q.shape[-1] ** 0.5",
        ),
        *_in_both(
            "scale-from-another-dimension",
            (
                "Right for [N, D], wrong with leading dimensions: the width D was read from dimension 1, which is the heads there. Count "
                "dimensions from the end: the width is the last."
            ),
            "q.shape[-1]",
            "q.shape[1]",
        ),
        *_in_both(
            "scale-of-the-keys",
            "The scale was made from the number of queries or keys. It is 1 / sqrt(D), and D is the last dimension of q.",
            "q.shape[-1]",
            "k.shape[-2]",
        ),
        *_in_both(
            "scale-ignored",
            "Right with the default scale, wrong when a scale is given: the argument is not used.",
            "    if scale is None:\n        scale = q",
            "    if True:\n        scale = q",
        ),
        *_in_both(
            "scale-on-top",
            "Right with the default scale. A given scale takes the place of 1 / sqrt(D); here the scores were multiplied by both.",
            "    if scale is None:\n        scale = q.shape[-1] ** -0.5",
            "    scale = q.shape[-1] ** -0.5 * (1.0 if scale is None else scale)",
        ),
        *_in_both(
            "scale-on-top-if-not-zero",
            (
                "Right with the default scale. A given scale takes the place of 1 / sqrt(D); here the scores were multiplied by both, and "
                "scale=0.0 was taken for none (ask whether it `is None`)."
            ),
            "    if scale is None:\n        scale = q.shape[-1] ** -0.5",
            "    scale = q.shape[-1] ** -0.5 * (scale or 1.0)",
        ),
        *_in_both(
            "no-default-scale",
            "Right where a scale is given, wrong where it is None: then the scores are multiplied by 1 / sqrt(D).",
            "        scale = q.shape[-1] ** -0.5",
            "        scale = 1.0",
        ),
        *_in_both(
            "scale-divides",
            "Right with the default scale. A given scale is what the scores are multiplied by; here they were divided by it.",
            "        scale = q.shape[-1] ** -0.5",
            "        scale = q.shape[-1] ** 0.5",
            "q @ k.mT * scale",
            "q @ k.mT / scale",
        ),
        *_in_both(
            "zero-is-not-none",
            (
                "Only scale=0.0 is wrong: 0.0 counts as false in `scale or ...` and `if not scale`, so the default took its place. Ask "
                "whether it `is None`."
            ),
            "if scale is None:",
            "if not scale:",
        ),
        *_in_both(
            "mask-ignored",
            "Right without a mask, wrong with one: the mask is not used. A hidden score becomes -inf before the softmax.",
            _FILL,
            "scores",
        ),
        *_in_both("mask-inverted", _INVERTED, "~mask, -torch.inf", "mask, -torch.inf"),
        _repaired("mask-inverted", _INVERTED, "~mask, -torch.inf", "mask, -torch.inf"),
        *_in_both(
            "mask-zero",
            "Hidden scores were set to 0 (multiplying by the mask does that). A score of 0 still weighs exp(0): only -inf weighs nothing.",
            _FILL,
            "scores.masked_fill(~mask, 0.0)",
        ),
        *_in_both(
            "mask-added",
            "The mask was added to the scores: True counts as 1 and False as 0, so every key stays visible. Hidden scores have to become -inf.",
            _FILL,
            "scores + mask",
        ),
        Mutant(
            "mask-large-negative",
            (
                "Right, except for rows where every key is hidden: a large negative number is there the score of all keys alike, and the row "
                "becomes the mean of V. It must be zeros: such a row needs care of its own."
            ),
            body=_PLAIN.replace("-torch.inf", "-1e9"),
        ),
        Mutant(
            "mask-after-softmax",
            (
                "The weights of hidden keys were set to 0 after the softmax: what is left no longer sums to 1, because hidden keys had "
                "taken their share of the sum. Hide the scores, before the softmax."
            ),
            body=_PLAIN.replace(f"scores = {_FILL}", "pass").replace(
                f"weights = {_SOFTMAX}", f"weights = {_SOFTMAX}\n    if mask is not None:\n        weights = weights * mask"
            ),
        ),
        Mutant(
            "renormalised",
            (
                "Hidden weights were set to 0 after the softmax and the rest divided by its sum. In exact arithmetic that is right. "
                "Here a hidden key had taken all the weight, and 0 / 0 was left. Hide the scores, before the softmax."
            ),
            body=_GUARDED.replace(f"scores = {_FILL}", "pass").replace(
                f"weights = {_SOFTMAX}",
                f"weights = {_SOFTMAX}\n    if mask is not None:\n        weights = weights * mask\n"
                "        weights = weights / weights.sum(-1, keepdim=True)",
            ),
        ),
        Mutant(
            "renormalised-no-guard",
            (
                "Hidden weights were set to 0 after the softmax and the rest divided by its sum. Where a hidden key had taken all the weight, "
                "0 / 0 is left. Hide the scores, before the softmax." + _EMPTY
            ),
            body=_PLAIN.replace(f"scores = {_FILL}", "pass").replace(
                f"weights = {_SOFTMAX}",
                f"weights = {_SOFTMAX}\n    if mask is not None:\n        weights = weights * mask\n"
                "        weights = weights / weights.sum(-1, keepdim=True)",
            ),
        ),
        *_in_both("over-queries", _OVER_QUERIES, "dim=-1)\n", "dim=-2)\n")[:1],  # without the guard it gives the same numbers
        _repaired("over-queries", _OVER_QUERIES, "dim=-1)\n", "dim=-2)\n"),
        *_in_both("over-dimension-1", _OVER_ONE, "dim=-1)\n", "dim=1)\n"),
        _repaired("over-dimension-1", _OVER_ONE, "dim=-1)\n", "dim=1)\n"),
        *_in_both("over-dimension-0", _OVER_ZERO, "dim=-1)\n", "dim=0)\n")[:1],  # without the guard it gives the same numbers
        _repaired("over-dimension-0", _OVER_ZERO, "dim=-1)\n", "dim=0)\n"),
        *_in_both(
            "overflow",
            (
                "Right for ordinary scores; beyond 88 `exp` overflows float32. torch.softmax subtracts the row's maximum first, and so "
                "must a softmax by hand (chapter 03)."
            ),
            _SOFTMAX,
            "scores.exp() / scores.exp().sum(-1, keepdim=True)",
        ),
        _repaired(
            "overflow",
            (
                "Right for ordinary scores; beyond 88 `exp` overflows float32, and the NaN of inf / inf was turned into 0. torch.softmax subtracts the "
                "row's maximum first, and so must a softmax by hand (chapter 03)."
            ),
            _SOFTMAX,
            "scores.exp() / scores.exp().sum(-1, keepdim=True)",
        ),
        Mutant(
            "single-precision", _SINGLE, body=_with("single-precision", _GUARDED, (_SOFTMAX, "torch.softmax(scores.float(), dim=-1).to(q.dtype)"))
        ),
        Mutant(
            "no-softmax",
            "There is no softmax: the output is the sum of the values times the raw scores. Turn each row of scores into weights that sum to 1 first.",
            body=_PLAIN.replace(_SOFTMAX, "scores.masked_fill(scores.isneginf(), 0.0)"),
        ),
        *_in_both(
            "not-normalised",
            "The weights are exponentials that were never divided by their sum: each row has to sum to 1.",
            _SOFTMAX,
            "(scores - scores.amax(-1, keepdim=True)).exp()",
        ),
        Mutant(
            "changes-q",
            "It was q: `q *= scale` (or `/=`, `mul_`) writes into the caller's tensor. `q = q * scale` makes a new one.",
            body=_GUARDED.replace("scores = q @ k.mT * scale", "q *= scale\n    scores = q @ k.mT"),
            rule="mutated-input",
        ),
        Mutant(
            "shortcut",
            "It computes the same, and the rest of the course is about how: write the scores, the softmax and the sum yourself.",
            body="""\
def attention(q, k, v, mask=None, scale=None):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
""",
            rule="shortcut",
        ),
    ),
    right=(
        """\
import math

def attention(q, k, v, mask=None, scale=None):
    s = torch.einsum('...qd,...kd->...qk', q, k)
    s = s / math.sqrt(q.size(-1)) if scale is None else s * scale
    if mask is not None:
        s = torch.where(mask, s, float('-inf'))
    return torch.nan_to_num(s.softmax(-1)) @ v
""",
        """\
def attention(q, k, v, mask=None, scale=None):
    s = torch.matmul(q * (q.shape[-1] ** -0.5 if scale is None else scale), k.transpose(-2, -1))
    bias = torch.zeros_like(s)
    if mask is not None:
        bias = bias.masked_fill(mask.logical_not(), float('-inf'))
    s = s + bias
    top = s.max(dim=-1, keepdim=True).values
    e = torch.exp(s - top.masked_fill(top == float('-inf'), 0))
    return torch.matmul(e, v) / e.sum(-1, keepdim=True).clamp_min(1e-30)
""",
        """\
def attention(q, k, v, mask=None, scale=None):
    if q.dim() > 2:
        lead = q.shape[:-2]
        mask = None if mask is None else mask.expand(*lead, q.shape[-2], k.shape[-2])
        rows = [attention(q[i], k[i], v[i], None if mask is None else mask[i], scale) for i in range(lead[0])]
        return torch.stack(rows)
    out = torch.zeros(q.shape, dtype=q.dtype)
    for i in range(q.shape[0]):
        keep = slice(None) if mask is None else mask[i]
        keys, values = k[keep], v[keep]
        if keys.shape[0]:
            w = (keys @ q[i] * (q.shape[-1] ** -0.5 if scale is None else scale)).softmax(0)
            out[i] = w @ values
    return out
""",
        """\
def attention(q, k, v, mask=None, scale=None):
    d = q.shape[-1]
    s = (q @ k.mT).mul_(d ** -0.5 if scale is None else scale)
    if mask is None:
        return torch.nn.functional.softmax(s, dim=-1) @ v
    s.masked_fill_(~mask, -1e30)
    return (torch.softmax(s, -1) * mask) @ v
""",
    ),
)
