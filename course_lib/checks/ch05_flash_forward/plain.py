"""Plain PyTorch ways to the results of chapter 05: the float64 references, and the baselines that the tolerance is measured on.

Masks are aligned bottom right. In float16 the plain ways round scores and weights to float16, and add weighted values up in float32.
"""

import math

import torch
from torch import Tensor

LOG2_E = 1.4426950408889634


def seen(q: Tensor, k: Tensor, causal: bool) -> Tensor:
    """[N_Q, N_KV], True where a query sees a key."""
    n_q, n_kv = q.shape[2], k.shape[2]
    keep = torch.ones(n_q, n_kv, dtype=torch.bool)
    return keep.tril(n_kv - n_q) if causal else keep


def _scale(q: Tensor, scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def _spread(x: Tensor, q: Tensor) -> Tensor:
    """K or V with one head for every query head."""
    return x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)


def _finished(s: Tensor, v: Tensor, exp=torch.exp) -> tuple[Tensor, Tensor]:
    """(output, log-sum-exp in the units of exp) from masked scores."""
    if not s.shape[-1]:
        return (s @ v).to(v.dtype), s.new_full(s.shape[:-1], -torch.inf)
    row_max = s.amax(dim=-1, keepdim=True)
    base = torch.where(row_max == -torch.inf, 0.0, row_max)
    p = exp(s - base)
    row_sum = p.sum(dim=-1, keepdim=True)
    out = _weighed(p, v) / torch.where(row_sum == 0, 1.0, row_sum)
    return out.to(v.dtype), (row_max + (torch.log if exp is torch.exp else torch.log2)(row_sum))[..., 0]


def _weighed(p: Tensor, v: Tensor) -> Tensor:
    """p @ v, p rounded to v's dtype; in float32 where v is float16, whose sums it could not hold."""
    p = p.to(v.dtype)
    return p.float() @ v.float() if v.dtype == torch.float16 else p @ v


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False) -> tuple[Tensor, Tensor]:
    """Scores, mask, exponentials, product, division."""
    k, v = _spread(k, q), _spread(v, q)
    s = (q @ k.mT * _scale(q, scale)).masked_fill(~seen(q, k, causal), -torch.inf)
    out, lse = _finished(s, v)
    return out, lse.to(_lse_dtype(q))


def attend_scaled_first(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False) -> tuple[Tensor, Tensor]:
    """The scale folded into q, normalised before the second product."""
    k, v = _spread(k, q), _spread(v, q)
    s = ((q * _scale(q, scale)) @ k.mT).masked_fill(~seen(q, k, causal), -torch.inf)
    if not s.shape[-1]:
        return attend(q, k, v, scale, causal)
    row_max = s.amax(dim=-1, keepdim=True)
    base = torch.where(row_max == -torch.inf, 0.0, row_max)
    p = torch.exp(s - base)
    row_sum = p.sum(dim=-1, keepdim=True)
    lse = (row_max + torch.log(row_sum))[..., 0].to(_lse_dtype(q))
    return (p / torch.where(row_sum == 0, 1.0, row_sum)) @ v, lse


def attend_by_exp2(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False) -> tuple[Tensor, Tensor]:
    """Exponentials in base 2, as kernels do it."""
    k, v = _spread(k, q), _spread(v, q)
    s = (q @ k.mT * (_scale(q, scale) * LOG2_E)).masked_fill(~seen(q, k, causal), -torch.inf)
    out, lse = _finished(s, v, torch.exp2)
    return out, (lse * math.log(2)).to(_lse_dtype(q))


def attend_by_tiles(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False) -> tuple[Tensor, Tensor]:
    """Online, 16 keys at a time."""
    k, v = _spread(k, q), _spread(v, q)
    keep, q_scaled = seen(q, k, causal), _scale(q, scale)
    row_max = torch.full_like(q[..., :1], -torch.inf)
    row_sum = torch.zeros_like(row_max)
    acc = torch.zeros_like(q, dtype=torch.float32 if q.dtype == torch.float16 else q.dtype)
    for start in range(0, k.shape[2], 16):
        s = (q @ k[:, :, start : start + 16].mT * q_scaled).masked_fill(~keep[:, start : start + 16], -torch.inf)
        new_max = torch.maximum(row_max, s.amax(dim=-1, keepdim=True))
        base = torch.where(new_max == -torch.inf, 0.0, new_max)
        p, rescale = torch.exp(s - base), torch.exp(row_max - base)
        row_sum = row_sum * rescale + p.sum(dim=-1, keepdim=True)
        acc, row_max = acc * rescale + _weighed(p, v[:, :, start : start + 16]), new_max
    out = acc / torch.where(row_sum == 0, 1.0, row_sum)
    return out.to(v.dtype), (row_max + torch.log(row_sum))[..., 0].to(_lse_dtype(q))


def _lse_dtype(q: Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _only_out(way, causal: bool):
    def plain(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        return way(q, k, v, scale, causal)[0]

    return plain


WAYS = (attend, attend_scaled_first, attend_by_exp2, attend_by_tiles)
FULL = tuple(_only_out(way, causal=False) for way in WAYS)
CAUSAL = tuple(_only_out(way, causal=True) for way in WAYS)
