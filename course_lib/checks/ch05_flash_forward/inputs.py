"""Q, K and V whose scores separate right from nearly right: rising maxima, far tiles, hot keys. Used by the exercises of chapter 05."""

import torch
from torch import Tensor

Qkv = tuple[Tensor, Tensor, Tensor]


def qkv(g: torch.Generator, b: int, h: int, n_q: int, n_kv: int, d: int, h_kv: int | None = None, dtype: torch.dtype = torch.float32) -> Qkv:
    """Random q [b, h, n_q, d], k and v [b, h_kv, n_kv, d]. Every head of V has its own offset, so that a wrong head shows."""
    h_kv = h if h_kv is None else h_kv
    q, k, v = (torch.randn(b, heads, n, d, generator=g) for heads, n in ((h, n_q), (h_kv, n_kv), (h_kv, n_kv)))
    offset = torch.arange(b * h_kv, dtype=torch.float32).reshape(b, h_kv, 1, 1)
    return q.to(dtype), k.to(dtype), (v + 0.75 * offset).to(dtype)


def lifted(given: Qkv, lift: Tensor) -> Qkv:
    """The same with lift[j] added to every (default-scaled) score of key j: the first feature of Q is 1, that of K carries it. lift [n_kv]."""
    q, k, v = given
    q, k = q.clone(), k.clone()
    q[..., 0] = 1
    k[..., 0] = lift.to(k.dtype) * q.shape[-1] ** 0.5
    return q, k, v


def rising(given: Qkv) -> Qkv:
    """Scores that rise from key to key: every tile brings a larger maximum."""
    return lifted(given, torch.linspace(-7, 7, given[1].shape[2]))


def hot_last(given: Qkv) -> Qkv:
    """The last key lies 12 above the others: whatever was summed before must shrink."""
    lift = torch.zeros(given[1].shape[2])
    lift[-1] = 12
    return lifted(given, lift)


def very_negative(given: Qkv) -> Qkv:
    """All scores near -300: exp of them is 0, and 0 is a larger maximum than any of them."""
    return lifted(given, torch.full((given[1].shape[2],), -300.0))


def far_below(given: Qkv, first: int) -> Qkv:
    """Keys before `first` near 100, the others near 5: neither exp(100) nor exp(95) fits float32."""
    lift = torch.full((given[1].shape[2],), 100.0)
    lift[first:] = 5
    return lifted(given, lift)
