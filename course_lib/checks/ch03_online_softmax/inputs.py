"""Inputs that separate right from nearly right: rising maxima, far tiles, hidden keys. Used by the exercises of chapter 03."""

import torch
from torch import Tensor

INF = torch.inf


def normal(g: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float32).to(dtype)


def rising(g: torch.Generator, rows: int, columns: int) -> Tensor:
    """Every score larger than the one before: the maximum moves at each tile. [rows, columns]"""
    return torch.linspace(-6, 6, columns) + 0.3 * torch.rand(rows, columns, generator=g)


def hot_last(g: torch.Generator, rows: int, columns: int) -> Tensor:
    """Ordinary scores and one last key 12 above them: whatever was summed before must shrink. [rows, columns]"""
    x = normal(g, rows, columns)
    x[:, -1] += 12
    return x


def far_below(g: torch.Generator, rows: int, columns: int, width: int) -> Tensor:
    """The second tile lies 95 below the first: exp(95) does not fit float32, exp(-95) is nearly 0. [rows, columns]"""
    x = normal(g, rows, columns)
    x[:, width : 2 * width] -= 95
    return x


def with_hidden(g: torch.Generator, rows: int, columns: int, width: int) -> Tensor:
    """Row 0 sees nothing, row 1 nothing in its first tile, row 2 nothing in its last, others miss single keys. [rows, columns]"""
    x = normal(g, rows, columns)
    x[3:][torch.rand(rows - 3, columns, generator=g) < 0.3] = -INF
    x[3:, -1] = 0.5  # no other row is empty by chance
    x[0] = -INF
    x[1, :width] = -INF
    x[2, (columns - 1) // width * width :] = -INF
    return x
