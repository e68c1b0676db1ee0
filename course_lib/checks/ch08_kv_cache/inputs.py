"""Inputs of chapter 08's probes: rotation tables, caches with stale numbers behind their tokens, distributions."""

import torch
from torch import Tensor

HEADS = ("batch", "head", "token", "feature")


def normal(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float32).to(dtype)


def whole(g: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (1,), generator=g))


def table(positions: Tensor, d: int, theta: float = 100.0) -> tuple[Tensor, Tensor]:
    """cos and sin [..., N, d], both halves equal; theta is small, so that every pair turns visibly."""
    angles = positions[..., None].double() * theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().float(), angles.sin().float()


def stale_cache(g: torch.Generator, lengths: Tensor, h_kv: int, n_max: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """(k_cache, v_cache) [B, h_kv, n_max, d]: real numbers up to each length, large stale ones behind it, an offset a head in V."""
    k, v = normal(g, len(lengths), h_kv, n_max, d), normal(g, len(lengths), h_kv, n_max, d) + 4 * torch.arange(h_kv)[:, None, None]
    behind = (torch.arange(n_max) >= lengths[:, None])[:, None, :, None]
    return torch.where(behind, 3 * k + 2, k).to(dtype), torch.where(behind, 40 + 5 * v, v).to(dtype)
