"""Inputs of chapter 02 that separate right from nearly right: sizes that all differ, heads that differ, rows without a key."""

import torch
from torch import Tensor


def normal(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float32).to(dtype)


def qkv(g: torch.Generator, *lead: int, n_q: int, n_kv: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """q [*lead, n_q, d], k and v [*lead, n_kv, d]; V has an offset a head, so that heads cannot be confused."""
    q, k, v = (normal(g, *lead, n, d, dtype=dtype) for n in (n_q, n_kv, n_kv))
    return q * 1.5, k, v + torch.arange(lead[-1], dtype=dtype)[:, None, None] if lead else v


def patchy(g: torch.Generator, n_q: int, n_kv: int) -> Tensor:
    """A mask [n_q, n_kv]: row 0 keeps nothing, row 1 one key, the others about 60 %."""
    mask = torch.rand(n_q, n_kv, generator=g) < 0.6
    mask[:, -1] = True
    mask[0] = False
    mask[1, :-1] = False
    return mask


def padding(lengths: tuple[int, ...], n_kv: int) -> Tensor:
    """[B, 1, 1, n_kv]: the first `length` keys of each sequence are real."""
    return (torch.arange(n_kv) < torch.tensor(lengths)[:, None])[:, None, None, :]
