"""Plain PyTorch ways to the results of chapter 04: the float64 references, and the baselines that the tolerance is measured on."""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps) * _wide(weight)).to(x.dtype)


def rms_norm_by_division(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    wide = _wide(x)
    return (_wide(weight) * (wide / (wide.square().sum(dim=-1, keepdim=True) / x.shape[-1] + eps).sqrt())).to(x.dtype)


def rms_norm_rounded_before_the_weight(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """As transformers' Llama does it: back to the input's dtype, then times the weight."""
    wide = _wide(x)
    return (wide * torch.rsqrt((wide * wide).mean(dim=-1, keepdim=True) + eps)).to(x.dtype) * weight


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return (torch.nn.functional.silu(_wide(gate)) * _wide(up)).to(gate.dtype)


def swiglu_by_division(gate: Tensor, up: Tensor) -> Tensor:
    g = _wide(gate)
    return (g / (1 + torch.exp(-g)) * _wide(up)).to(gate.dtype)


def swiglu_by_sigmoid(gate: Tensor, up: Tensor) -> Tensor:
    g = _wide(gate)
    return (_wide(up) * g * torch.sigmoid(g)).to(gate.dtype)


def swiglu_in_two_steps(gate: Tensor, up: Tensor) -> Tensor:
    return torch.nn.functional.silu(_wide(gate)).to(gate.dtype) * up


def matmul(a: Tensor, b: Tensor) -> Tensor:
    return (_wide(a) @ _wide(b)).to(a.dtype)


def matmul_in_pieces(a: Tensor, b: Tensor) -> Tensor:
    """Along K, 32 at a time: the order in which tiles are added."""
    acc = torch.zeros(a.shape[0], b.shape[1], dtype=_wide(a).dtype)
    for start in range(0, a.shape[1], 32):
        acc = acc + _wide(a[:, start : start + 32]) @ _wide(b[start : start + 32])
    return acc.to(a.dtype)


def matmul_one_by_one(a: Tensor, b: Tensor) -> Tensor:
    acc = torch.zeros(a.shape[0], b.shape[1], dtype=_wide(a).dtype)
    for k in range(a.shape[1]):
        acc = acc + _wide(a[:, k, None]) * _wide(b[k])
    return acc.to(a.dtype)


def softmax_in_pieces(x: Tensor) -> Tensor:
    """Online, 64 scores at a time."""
    row_max = torch.full_like(x[:, :1], -torch.inf)
    row_sum = torch.zeros_like(row_max)
    for tile in x.split(64, dim=-1):
        new_max = torch.maximum(row_max, tile.amax(dim=-1, keepdim=True))
        shift = _finite(new_max)
        row_sum = row_sum * torch.exp(row_max - shift) + torch.exp(tile - shift).sum(dim=-1, keepdim=True)
        row_max = new_max
    return torch.exp(x - _finite(row_max)) / torch.where(row_sum == 0, 1.0, row_sum)


def _finite(row_max: Tensor) -> Tensor:
    return torch.where(row_max == -torch.inf, 0.0, row_max)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
