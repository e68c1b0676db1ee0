"""Grading material: attention_grads."""

import torch

from course_lib.checks.ch05_flash_forward.inputs import hot_last, qkv, rising, very_negative
from course_lib.checks.ch06_flash_backward.inputs import with_dout
from course_lib.checks.ch06_flash_backward.plain import WHOLE
from course_lib.grading.spec import Check, Mutant, Probe, Property, forbid

AXES = ("sequence", "head", "row", "feature")
DS = "ds = p * (dp - (p * dp).sum(dim=-1, keepdim=True))"


def _normal(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=g, dtype=dtype)


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("one query, one key, D = 2", tuple(_normal(g, 1, 2) for _ in range(4)), axes=("row", "feature")),
        Probe(
            "4 queries, 3 keys, D = 5, values of 6",
            (_normal(g, 4, 5), _normal(g, 3, 5), _normal(g, 3, 6), _normal(g, 4, 6)),
            axes=("row", "feature"),
        ),
        Probe("2 sequences of 3 heads, scale = 0.3", with_dout(g, qkv(g, 2, 3, 7, 11, 8)), {"scale": 0.3}, axes=AXES),
        Probe("all keys alike but the last", with_dout(g, hot_last(qkv(g, 1, 1, 5, 13, 8))), axes=AXES),
        Probe("rising scores", with_dout(g, rising(qkv(g, 1, 2, 6, 17, 12))), axes=AXES),
        Probe("as many queries as keys, all scores near -300", with_dout(g, very_negative(qkv(g, 1, 1, 9, 9, 16))), axes=AXES),
        Probe("transposed in memory", with_dout(g, qkv(g, 1, 2, 6, 10, 7)), layout="transposed", axes=AXES, diagnose=False),
        Probe("float64", with_dout(g, qkv(g, 1, 1, 5, 6, 4, dtype=torch.float64)), axes=AXES, diagnose=False),
    ]


def _rows_of_ds(call, g: torch.Generator) -> str | None:
    """Adding the same vector to every key moves all scores of a row alike, so the loss does not move: dk sums to 0 over the keys."""
    q, k, v, dout = (_normal(g, 6, 8) for _ in range(4))
    total = call(q, k, v, dout)[1].sum(dim=0).abs().max().item()
    return None if total < 1e-4 else f"adding one vector to all keys changes no weight, so dk must sum to 0 over the keys; it sums to {total:.3g}"


ATTENTION_GRADS = Check(
    exercise="attention_grads",
    probes=_probes,
    reference=WHOLE[0],
    baselines=WHOLE,
    returns="three tensors (dq, dk, dv)",
    properties=(Property("one vector added to all keys", _rows_of_ds),),
    rules=(
        forbid(
            ("backward", "grad", "vjp", "vjpfull", "scaled_dot_product_attention", "_softmax_backward_data", "_softmax_backward"),
            "The exercise is the derivation: write down what autograd does.",
        ),
    ),
    mutants=(
        Mutant(
            "no-row-sum",
            "dv is right, dq and dk are not: dS is not P * dP. The weights of a row add up to 1, so what one score gains the others lose: subtract each row's "
            "average of dP under the weights P.",
            edits=((DS, "ds = p * dp"),),
        ),
        Mutant(
            "plain-mean",
            "What was subtracted from dP is its plain row sum. It has to be the average under the weights P: the row sums of P * dP.",
            edits=((DS, "ds = p * (dp - dp.sum(dim=-1, keepdim=True))"),),
        ),
        Mutant(
            "true-mean",
            "What was subtracted from dP is its mean, every key counted alike. It has to be the average under the weights P: the row sums of P * dP.",
            edits=((DS, "ds = p * (dp - dp.mean(dim=-1, keepdim=True))"),),
        ),
        Mutant(
            "own-weight-only",
            "dS = P * (1 - P) * dP counts what a score does to its own weight. It takes from all others of its row as well: the sum over them is missing.",
            edits=((DS, "ds = p * (1 - p) * dp"),),
        ),
        Mutant(
            "mean-not-sum",
            "The row sums of P * dP were divided by the number of keys. P already holds the weights: add, do not average again.",
            edits=((DS, "ds = p * (dp - (p * dp).mean(dim=-1, keepdim=True))"),),
        ),
        Mutant(
            "columns",
            "The sums of P * dP were taken down the columns. Softmax runs along a row, over the keys, and so does its gradient: dim=-1.",
            edits=((DS, "ds = p * (dp - (p * dp).sum(dim=-2, keepdim=True))"),),
        ),
        Mutant(
            "added",
            "The row sums were added where they must be subtracted: a score that rises takes weight away from the others.",
            edits=((DS, "ds = p * (dp + (p * dp).sum(dim=-1, keepdim=True))"),),
        ),
        Mutant(
            "p-missing",
            "dS = dP - average lacks the factor P: a score whose weight is near 0 hardly changes anything, so its gradient is near 0.",
            edits=((DS, "ds = dp - (p * dp).sum(dim=-1, keepdim=True)"),),
        ),
        Mutant(
            "no-scale",
            "dv is right; dq and dk lack the factor `scale`: the scores were q @ k.T times scale, and the chain rule takes every factor along.",
            edits=(("return ds @ k * scale, ds.mT @ q * scale, dv", "return ds @ k, ds.mT @ q, dv"),),
        ),
        Mutant(
            "scale-in-one",
            "dq is right, dk lacks the factor `scale`.",
            edits=(("ds.mT @ q * scale", "ds.mT @ q"),),
        ),
        Mutant(
            "scale-in-the-other",
            "dk is right, dq lacks the factor `scale`.",
            edits=(("return ds @ k * scale", "return ds @ k"),),
        ),
        Mutant(
            "scores-not-scaled",
            "P was made from scores without the scale: it is not the P of the forward pass.",
            edits=(("torch.softmax(q @ k.mT * scale, dim=-1)", "torch.softmax(q @ k.mT, dim=-1)"),),
        ),
        Mutant(
            "scale-ignored",
            "Right with the default scale, wrong with scale=0.3: the argument is not used.",
            edits=(("scale = q.shape[-1] ** -0.5 if scale is None else scale", "scale = q.shape[-1] ** -0.5"),),
        ),
        Mutant(
            "dv-from-ds",
            "dq and dk are right; dv was made from dS. The output is P @ V, so what V gets back is P transposed times dout.",
            edits=(("dv = p.mT @ dout", "dv = (p * (dout @ v.mT - (p * (dout @ v.mT)).sum(dim=-1, keepdim=True))).mT @ dout"),),
        ),
        Mutant(
            "order",
            "The three gradients are right and come in another order: return dq, dk, dv.",
            edits=(("return ds @ k * scale, ds.mT @ q * scale, dv", "return ds.mT @ q * scale, ds @ k * scale, dv"),),
            rule="shape",
        ),
        Mutant(
            "dk-dv-exchanged",
            "dk and dv come in each other's place: return dq, dk, dv.",
            edits=(("return ds @ k * scale, ds.mT @ q * scale, dv", "return ds @ k * scale, dv, ds.mT @ q * scale"),),
        ),
        Mutant(
            "autograd",
            "That is what `.backward()` and `torch.autograd.grad` would do for you.",
            body="""\
def attention_grads(q, k, v, dout, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    with torch.enable_grad():
        out = torch.softmax(leaves[0] @ leaves[1].mT * scale, dim=-1) @ leaves[2]
    return torch.autograd.grad(out, leaves, dout)
""",
            rule="shortcut",
        ),
    ),
    right=(
        """\
def attention_grads(q, k, v, dout, scale=None):
    if scale is None:
        scale = 1 / q.size(-1) ** 0.5
    s = torch.einsum("...id,...jd->...ij", q, k) * scale
    e = torch.exp(s - s.max(dim=-1, keepdim=True).values)
    p = e / e.sum(-1, keepdim=True)
    out = torch.einsum("...ij,...jd->...id", p, v)
    delta = torch.einsum("...id,...id->...i", dout, out)
    ds = scale * p * (torch.einsum("...id,...jd->...ij", dout, v) - delta.unsqueeze(-1))
    return torch.einsum("...ij,...jd->...id", ds, k), torch.einsum("...ij,...id->...jd", ds, q), torch.einsum("...ij,...id->...jd", p, dout)
""",
        """\
def softmax_back(p, dp):
    return p * dp - p * torch.sum(p * dp, -1, True)

def attention_grads(q, k, v, dout, scale=None):
    c = scale or q.shape[-1] ** -0.5
    p = ((q * c) @ k.transpose(-1, -2)).softmax(-1)
    ds = softmax_back(p, dout @ v.transpose(-1, -2))
    return [ds @ k * c, ds.transpose(-1, -2) @ (q * c), p.transpose(-1, -2) @ dout]
""",
        """\
def attention_grads(q, k, v, dout, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for i in range(q.shape[-2]):  # one query at a time, its Jacobian written out
        qi, di = q[..., i : i + 1, :], dout[..., i : i + 1, :]
        p = torch.softmax(qi @ k.mT * scale, dim=-1)
        jacobian = torch.diag_embed(p[..., 0, :]) - p.mT @ p
        ds = di @ v.mT @ jacobian
        dq[..., i : i + 1, :] = ds @ k * scale
        dk += ds.mT @ qi * scale
        dv += p.mT @ di
    return dq, dk, dv
""",
    ),
)
