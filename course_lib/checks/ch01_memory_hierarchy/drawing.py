"""Whole numbers and factors drawn from the probes' generator. Used by the exercises of chapter 01."""

import torch


def whole(g: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (1,), generator=g))


def factor(g: torch.Generator) -> float:
    """A factor from 0.5 to 2: a machine twice as fast, or half."""
    return 2.0 ** (2 * float(torch.rand(1, generator=g)) - 1)
