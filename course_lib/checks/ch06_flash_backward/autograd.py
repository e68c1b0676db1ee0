"""Grading material: FlashAttention, an autograd function: values and gradients, what it keeps, what it computes twice."""

import torch

from course_lib.checks.ch05_flash_forward.inputs import qkv, rising
from course_lib.checks.ch06_flash_backward.autograd_right import RIGHT
from course_lib.checks.ch06_flash_backward.inputs import with_dout
from course_lib.checks.ch06_flash_backward.plain import STEPS
from course_lib.grading.kernel_rules import size
from course_lib.grading.spec import Check, Evidence, Mutant, Probe, Property, Rule, forbid

AXES = ("sequence", "head", "row", "feature")
SAVE, KEEP = "ctx.save_for_backward(q, k, v, out, lse)", "q, k, v, out, lse = ctx.saved_tensors"
DELTA = "delta = attention_delta(out, dout)"
DKDV = "dk, dv = flash_backward_dkdv(q, k, v, dout, lse, delta, ctx.scale, ctx.causal)"
RETURN = "return dq, dk, dv, None, None"

# Runs in the answer's process, in the answer's place.
HARNESS = """
import torch

def run(function, q, k, v, dout=None, scale=None, causal=False, wanted="qkv", report=False, meddle=False):
    if not (isinstance(function, type) and issubclass(function, torch.autograd.Function)):
        raise TypeError("FlashAttention must be a class that inherits from torch.autograd.Function")
    given = [(x.clone() if meddle else x.detach()).requires_grad_(name in wanted) for name, x in zip("qkv", (q, k, v))]
    if report:
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
            out = function.apply(*given, scale, causal)
        on_ctx = [x for x in vars(out.grad_fn).values() if isinstance(x, torch.Tensor)] if hasattr(out.grad_fn, "__dict__") else []
        unique = {(x.data_ptr(), x.numel()): x.numel() * x.element_size() for x in (*saved, *on_ctx) if x.numel() > 1}
        return {"bytes": sum(unique.values()), "largest": max((x.numel() for x in (*saved, *on_ctx)), default=0)}
    out = function.apply(*given, scale, causal)
    if meddle:
        with torch.no_grad():
            given[0].mul_(0.5)
    leaves = [x for x in given if x.requires_grad]
    try:
        found = iter(torch.autograd.grad(out if dout is not None else out.sum(), leaves, dout, allow_unused=True))
    except RuntimeError as error:
        if meddle and "modified by an inplace operation" in str(error):
            return "refused"
        raise
    return (out.detach(), *(next(found) if x.requires_grad else None for x in given))
"""


def _probes(g: torch.Generator) -> list[Probe]:
    causal = {"causal": True}
    return [
        Probe("20 queries, 35 keys", with_dout(g, qkv(g, 1, 1, 20, 35, 16)), axes=AXES),
        Probe("2 sequences of 2 heads, 20 queries and keys, causal", with_dout(g, qkv(g, 2, 2, 20, 20, 20)), causal, axes=AXES),
        Probe("33 queries and keys, scale = 0.3", with_dout(g, rising(qkv(g, 1, 1, 33, 33, 24))), {"scale": 0.3}, axes=AXES),
        Probe("out.sum(): dout is one number, 10 queries, 17 keys", qkv(g, 1, 1, 10, 17, 20), axes=AXES),
        Probe("only k and v want gradients", with_dout(g, qkv(g, 1, 1, 12, 20, 16)), {"wanted": "kv"}, axes=AXES),
        Probe("50 queries, 30 keys, causal: 20 queries see nothing", with_dout(g, qkv(g, 1, 1, 50, 30, 17)), causal, axes=AXES),
        Probe("only q wants a gradient", with_dout(g, qkv(g, 1, 1, 12, 20, 16)), {"wanted": "q"}, axes=AXES, diagnose=False),
        Probe("transposed in memory, dout too", with_dout(g, qkv(g, 1, 1, 21, 18, 20)), layout="transposed", axes=AXES, diagnose=False),
        Probe("72 queries and keys, D = 16", with_dout(g, qkv(g, 1, 1, 72, 72, 16)), axes=AXES, diagnose=False),
    ]


def _kept(call, g: torch.Generator) -> str | None:
    q, k, v = qkv(g, 1, 2, 96, 96, 16)
    seen = call(q, k, v, report=True)
    limit = size(q, k, v, q) + 16 * q.shape[1] * q.shape[2]
    if seen["bytes"] <= limit:
        return None
    matrix = q.shape[1] * q.shape[2] * k.shape[2]
    whose = f"; the largest tensor has {seen['largest']:,} numbers, as many as P" if seen["largest"] >= matrix else ""
    return (
        f"between forward and backward {seen['bytes']:,} bytes are kept for 2 heads of 96 queries and keys, D = 16; q, k, v, out and lse take "
        f"{limit - 12 * q.shape[1] * q.shape[2]:,}{whose}"
    )


def _noticed(call, g: torch.Generator) -> str | None:
    """q is changed in place between forward and backward: autograd refuses what was saved with save_for_backward; a copy does no harm either."""
    q, k, v, dout = with_dout(g, qkv(g, 1, 1, 12, 14, 16))
    found = call(q, k, v, dout, meddle=True)
    if isinstance(found, str):
        return None
    wanted = STEPS[0](q, k, v, dout)
    if all((a - b).abs().max().item() < 1e-4 for a, b in zip(found[1:], wanted[1:], strict=True)):
        return None
    return "q was halved in place between forward and backward, and backward used the new numbers without a word: its gradients are wrong"


def _no_matrix() -> Rule:
    def broken(probe: Probe, evidence: Evidence) -> str | None:
        q, k = probe.args[:2]
        matrix = q.shape[2] * k.shape[2]
        made = {op: n for op, n in evidence.made.items() if n >= matrix > 2 * size(q, k) // 4}
        if not made:
            return None
        op, n = max(made.items(), key=lambda pair: pair[1])
        return f"torch's `{op.strip('_')}` made {n:,} numbers ({probe.name}): a matrix of N_Q x N_KV. The kernels make it tile by tile, and store none of it."

    return Rule("matrix", broken)


def _once(id: str, kernel: str, what: str) -> Rule:
    def broken(probe: Probe, evidence: Evidence) -> str | None:
        count = sum(launch.get("kernel") == kernel for launch in evidence.launches)
        return f"{what} ran {count} times in one step ({probe.name}); once is enough." if count > 1 else None

    return Rule(id, broken)


_AGAIN = """\
        from course_lib.earlier import flash_forward_lse

        out, lse = flash_forward_lse(q, k, v, ctx.scale, ctx.causal)"""
_SAVES_P = """\
class FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, scale=None, causal=False):
        from course_lib.earlier import flash_forward_lse
        out, lse = flash_forward_lse(q, k, v, scale, causal)
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        keep = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        keep = keep.tril(k.shape[2] - q.shape[2]) if causal else keep
        p = torch.exp(q @ k.mT * scale - lse[..., None]).masked_fill(~keep, 0.0)
        ctx.save_for_backward(q, k, v, p)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, dout):
        q, k, v, p = ctx.saved_tensors
        dp = dout @ v.mT
        ds = p * (dp - (p * dp).sum(-1, keepdim=True)) * ctx.scale
        return ds @ k, ds.mT @ q, p.mT @ dout, None, None
"""

FLASH_ATTENTION = Check(
    exercise="FlashAttention",
    probes=_probes,
    reference=STEPS[0],
    baselines=STEPS,
    returns="the output and the gradients (out, dq, dk, dv)",
    harness=HARNESS,
    properties=(Property("what is kept", _kept, "keeps-too-much"), Property("a change in place", _noticed, "not-noticed")),
    rules=(
        forbid(("scaled_dot_product_attention", "softmax"), "Call your kernels."),
        _no_matrix(),
        _once("delta-twice", "attention_delta_kernel", "attention_delta"),
        _once("forward-twice", "flash_forward_lse_kernel", "The forward kernel"),
    ),
    mutants=(
        Mutant(
            "saves-p",
            "P was kept: N_Q x N_KV numbers a head, which is what flash attention is there to avoid. Keep lse, one number a query: the kernels make P from it.",
            body=_SAVES_P,
        ),
        Mutant(
            "on-ctx",
            "Tensors were kept as attributes of ctx. Autograd then cannot see that one of them was changed, and may keep memory alive for ever: give them to "
            "ctx.save_for_backward. Attributes are for plain values.",
            edits=((SAVE, "ctx.kept = q, k, v, out, lse"), (KEEP, "q, k, v, out, lse = ctx.kept")),
        ),
        Mutant(
            "causal-forgotten",
            "Right without a mask. Under causal=True the output is right and the gradients are not: backward does not know of the mask. Keep it: ctx.causal = causal.",
            edits=((SAVE, f"{SAVE}\n        given, causal = causal, False"),),
        ),
        Mutant(
            "scale-forgotten",
            "Right with the default scale. With scale=0.3 the output is right and the gradients are not: backward does not know of the scale. Keep it: ctx.scale = scale.",
            edits=((SAVE, f"{SAVE}\n        given, scale = scale, None"),),
        ),
        Mutant(
            "dk-dv-exchanged",
            "dk and dv come back in each other's place: backward returns one gradient for each input of forward, in the order of the inputs.",
            edits=((RETURN, "return dq, dv, dk, None, None"),),
        ),
        Mutant(
            "delta-zero",
            "delta is 0, so dq and dk are those of a softmax whose weights need not add up to 1. It is the row sums of dout * out.",
            edits=((DELTA, "delta = torch.zeros_like(lse)"),),
        ),
        Mutant(
            "delta-from-dout",
            "delta was made from dout alone. It is the row sums of dout * out, and out is what forward returned: keep it.",
            edits=((DELTA, "delta = attention_delta(dout, dout)"),),
        ),
        Mutant(
            "too-few",
            "backward must return one thing for every argument that apply was given, scale and causal too: None for what has no gradient.",
            edits=((RETURN, "return dq, dk, dv"),),
            rule="exception",
            said="incorrect number of gradients",
        ),
        Mutant(
            "other-order",
            "A gradient has the shape of another input: backward returns one for each input of forward, in their order, dq, dk, dv.",
            edits=((RETURN, "return dk, dq, dv, None, None"),),
            rule="exception",
            said="returned an invalid gradient at index",
        ),
        Mutant(
            "lse-returned",
            "forward returned more than the output, and autograd then wants a gradient for each of them: lse is kept for backward, not returned.",
            edits=(("        return out\n", "        return out, lse\n"),),
            rule="exception",
            said="tensors and 1 gradients",
        ),
        Mutant(
            "delta-twice",
            "Compute it once, and hand it to both kernels.",
            edits=((DKDV, DKDV.replace("lse, delta,", "lse, attention_delta(out, dout),")),),
            rule="delta-twice",
        ),
        Mutant(
            "forward-twice",
            "Backward ran the forward kernel again to get out and lse. Forward had both in its hands: N x D and N numbers, cheap to keep, 4 N^2 D operations to "
            "make again.",
            edits=(
                (SAVE, "ctx.save_for_backward(q, k, v)"),
                (KEEP, f"q, k, v = ctx.saved_tensors\n{_AGAIN}"),
            ),
            rule="forward-twice",
        ),
    ),
    right=RIGHT,
    allow=("all",),
    seconds=9.0,
)
