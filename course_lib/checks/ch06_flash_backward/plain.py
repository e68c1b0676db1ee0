"""Plain PyTorch ways to the results of chapter 06: float64 references, and the baselines that the tolerance is measured on.

Masks are aligned bottom right. `pair_*` are given lse and delta, as the kernels are; `whole_*` start from q, k, v and dout.
"""

import torch
from torch import Tensor

from course_lib.checks.ch05_flash_forward.plain import LOG2_E, attend, seen

Grads = tuple[Tensor, Tensor, Tensor]


def _scale(q: Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


# ---------------------------------------------------------------- from q, k, v and dout, any leading dimensions


def whole(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, scale: float | None = None) -> Grads:
    """Line by line backwards, the row sums from P and dP."""
    p = torch.softmax(q @ k.mT * _scale(q, scale), dim=-1)
    dp = dout @ v.mT
    ds = p * (dp - (p * dp).sum(dim=-1, keepdim=True))
    return ds @ k * _scale(q, scale), ds.mT @ q * _scale(q, scale), p.mT @ dout


def whole_by_delta(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, scale: float | None = None) -> Grads:
    """The scale folded into q and k, the row sums from the output."""
    s = (q * _scale(q, scale)) @ k.mT
    p = torch.exp(s - s.logsumexp(dim=-1, keepdim=True))
    delta = (dout * (p @ v)).sum(dim=-1, keepdim=True)
    ds = p * (dout @ v.mT - delta)
    return ds @ (k * _scale(q, scale)), ds.mT @ (q * _scale(q, scale)), p.mT @ dout


def whole_by_autograd(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, scale: float | None = None) -> Grads:
    """What PyTorch itself does."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    with torch.enable_grad():
        out = torch.softmax(leaves[0] @ leaves[1].mT * _scale(q, scale), dim=-1) @ leaves[2]
    return torch.autograd.grad(out, leaves, dout)


WHOLE = (whole, whole_by_delta, whole_by_autograd)


# ---------------------------------------------------------------- from lse and delta too


def _p_and_ds(q, k, v, dout, lse, delta, scale, causal, base_2: bool = False) -> tuple[Tensor, Tensor]:
    hidden = ~seen(q, k, causal)
    if base_2:
        p = torch.exp2(q @ k.mT * (scale * LOG2_E) - lse[..., None] * LOG2_E)
    else:
        p = torch.exp(q @ k.mT * scale - lse[..., None])
    p = p.masked_fill(hidden, 0.0)
    return p, p * (dout @ v.mT - delta[..., None])


def pair(q, k, v, dout, lse, delta, scale=None, causal=False) -> Grads:
    """(dq, dk, dv): P from lse, whole."""
    scale = _scale(q, scale)
    p, ds = _p_and_ds(q, k, v, dout, lse, delta, scale, causal)
    return ds @ k * scale, ds.mT @ q * scale, p.mT @ dout


def pair_by_exp2(q, k, v, dout, lse, delta, scale=None, causal=False) -> Grads:
    """Exponentials in base 2, as kernels do it; the scale on ds."""
    scale = _scale(q, scale)
    p, ds = _p_and_ds(q, k, v, dout, lse, delta, scale, causal, base_2=True)
    ds = ds * scale
    return ds @ k, ds.mT @ q, p.mT @ dout


def pair_scaled_first(q, k, v, dout, lse, delta, scale=None, causal=False) -> Grads:
    """The scale folded into q."""
    scale = _scale(q, scale)
    p, ds = _p_and_ds(q * scale, k, v, dout, lse, delta, 1.0, causal)
    return ds @ (k * scale), ds.mT @ (q * scale), p.mT @ dout


def pair_by_tiles(q, k, v, dout, lse, delta, scale=None, causal=False) -> Grads:
    """16 queries and 16 keys at a time."""
    scale, keep = _scale(q, scale), seen(q, k, causal)
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for j in range(0, k.shape[2], 16):
        for i in range(0, q.shape[2], 16):
            rows, keys = slice(i, i + 16), slice(j, j + 16)
            p = torch.exp(q[:, :, rows] @ k[:, :, keys].mT * scale - lse[:, :, rows, None]).masked_fill(~keep[rows, keys], 0.0)
            ds = p * (dout[:, :, rows] @ v[:, :, keys].mT - delta[:, :, rows, None])
            dv[:, :, keys] += p.mT @ dout[:, :, rows]
            dk[:, :, keys] += ds.mT @ q[:, :, rows] * scale
            dq[:, :, rows] += ds @ k[:, :, keys] * scale
    return dq, dk, dv


PAIRS = (pair, pair_by_exp2, pair_scaled_first, pair_by_tiles)


def _only(way, part):
    def plain(q, k, v, dout, lse, delta, scale=None, causal=False):
        return way(q, k, v, dout, lse, delta, scale, causal)[part]

    return plain


DKDV = tuple(_only(way, slice(1, 3)) for way in PAIRS)
DQ = tuple(_only(way, 0) for way in PAIRS)


# ---------------------------------------------------------------- the whole step, output and gradients


def _step(way):
    """The call of the harness of FlashAttention: (out, dq, dk, dv), None for what is not wanted, dout of ones where none is given."""

    def plain(q, k, v, dout=None, scale=None, causal=False, wanted="qkv", **_):
        out, lse = attend(q, k, v, scale, causal)
        dout = torch.ones_like(out) if dout is None else dout
        grads = way(q, k, v, dout, lse.to(q.dtype), (dout * out).sum(dim=-1), scale, causal)
        return out, *(grad if name in wanted else None for name, grad in zip("qkv", grads, strict=True))

    return plain


STEPS = tuple(_step(way) for way in PAIRS)


# ---------------------------------------------------------------- delta


def delta(out: Tensor, dout: Tensor) -> Tensor:
    """Products and sums in float32, or in float64 where the inputs are."""
    wide = torch.float64 if out.dtype == torch.float64 else torch.float32
    return (out.to(wide) * dout.to(wide)).sum(dim=-1)


def delta_by_product(out: Tensor, dout: Tensor) -> Tensor:
    wide = torch.float64 if out.dtype == torch.float64 else torch.float32
    return (out.to(wide)[..., None, :] @ dout.to(wide)[..., :, None])[..., 0, 0]


def delta_by_steps(out: Tensor, dout: Tensor) -> Tensor:
    """One feature after the other."""
    wide = torch.float64 if out.dtype == torch.float64 else torch.float32
    total = torch.zeros(out.shape[:-1], dtype=wide)
    for d in range(out.shape[-1]):
        total = total + out[..., d].to(wide) * dout[..., d].to(wide)
    return total


DELTAS = (delta, delta_by_product, delta_by_steps)
