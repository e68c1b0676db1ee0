"""The arithmetic behind chapter 03's figures: one row of scores read tile by tile, in float64. Draws nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Step:
    """One tile read: the state before and after, and what joins them. Plain floats; acc is one number (D = 1)."""

    start: int
    stop: int
    tile_max: float
    old_max: float
    new_max: float
    factor: float  # what everything counted so far is multiplied by
    old_sum: float
    added_sum: float
    new_sum: float
    old_acc: float
    added_acc: float
    new_acc: float


def row(values, name: str = "scores", most: int | None = None) -> np.ndarray:
    """A list, array or tensor as one float64 row; a sentence where it is none."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    try:
        out = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"{name} must be a row of numbers, and {values!r:.80} is not") from problem
    if out.ndim != 1 or out.size == 0:
        raise ValueError(f"{name} must be one row of at least one number; this has shape {list(out.shape)}")
    if np.isnan(out).any() or (out == np.inf).any():
        raise ValueError(f"{name} may hold numbers and -inf (a hidden key); this row has a nan or an infinity in it")
    if most is not None and out.size > most:
        raise ValueError(f"{name}: {out.size} numbers cannot be drawn one by one; give at most {most}, for example the first {most}")
    return out


def whole(value, name: str, least: int = 1) -> int:
    """A whole number of at least `least`; a sentence where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, and {value!r} is not")
    return int(value)


def walk(scores, tile: int, values=None) -> list[Step]:
    """Every step of the online softmax over one row, in float64. `values` (one number a key) feeds acc; None means 1 each."""
    scores, tile = row(scores), whole(tile, "tile")
    values = np.ones_like(scores) if values is None else row(values, "values")
    if values.size != scores.size:
        raise ValueError(f"there are {scores.size} scores and {values.size} values: each key has one of both")
    steps, row_max, row_sum, acc = [], -math.inf, 0.0, 0.0
    for start in range(0, scores.size, tile):
        part = scores[start : start + tile]
        new_max = max(row_max, float(part.max()))
        shift = 0.0 if new_max == -math.inf else new_max
        terms, factor = np.exp(part - shift), math.exp(row_max - shift)
        added_sum, added_acc = float(terms.sum()), float(terms @ values[start : start + tile])
        new_sum, new_acc = row_sum * factor + added_sum, acc * factor + added_acc
        steps.append(
            Step(start, start + part.size, float(part.max()), row_max, new_max, factor, row_sum, added_sum, new_sum, acc, added_acc, new_acc)
        )
        row_max, row_sum, acc = new_max, new_sum, new_acc
    return steps


def exp_limits(dtype: str) -> tuple[float, float]:
    """(the largest x whose exp is finite, the smallest x whose exp is not 0) for a dtype's name, found by trying on this machine."""
    import torch

    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ValueError(f"{dtype!r} is not a floating-point dtype; try float16, bfloat16, float32 or float64")

    def edge(fine: Callable[[float], bool], good: float, bad: float) -> float:
        for _ in range(60):
            middle = (good + bad) / 2
            good, bad = (middle, bad) if fine(middle) else (good, middle)
        return float(torch.tensor(good, dtype=kind))

    def exp(x: float) -> float:
        return float(torch.exp(torch.tensor([x], dtype=kind)))

    return edge(lambda x: math.isfinite(exp(x)), 0.0, 1000.0), edge(lambda x: exp(x) > 0, 0.0, -1000.0)


def softmax_passes(n: int) -> dict[str, list[tuple[str, str, int]]]:
    """What three ways of reading a row of n scores move: {algorithm: [(read or write, what for, elements)]}."""
    n = whole(n, "n")
    return {
        "safe softmax": [("read", "maximum", n), ("read", "sum", n), ("read", "weights", n), ("write", "weights", n)],
        "online softmax": [("read", "maximum and sum", n), ("read", "weights", n), ("write", "weights", n)],
        "weighted sum": [("read", "maximum, sum and acc", n)],
    }


def padded(values: np.ndarray, length: int) -> np.ndarray:
    """The row with hidden keys added up to that length: they change nothing."""
    return np.concatenate([values, np.full(length - values.size, -math.inf)])


Summary = tuple[float, float]  # (row_max, row_sum)


def _summary(part: np.ndarray) -> Summary:
    top = part.max()
    return top, np.exp(part - (0 if top == -np.inf else top)).sum(dtype=part.dtype)


def _merged(a: Summary, b: Summary) -> Summary:
    top = max(a[0], b[0])
    shift = top if top > -np.inf else type(top)(0)
    return top, a[1] * np.exp(a[0] - shift) + b[1] * np.exp(b[0] - shift)


def merge_orders(scores, tile: int, dtype: str = "float32") -> dict[str, list[tuple]]:
    """Three orders of merging the tiles' states, in that dtype: {order: [(left, right, summary)]}; leaves have left = None."""
    part = row(scores).astype(dtype)
    leaves = [_summary(part[i : i + tile]) for i in range(0, part.size, whole(tile, "tile"))]
    orders = {"one after another": _fold, "in pairs": _pairs, "from the end": lambda count: _fold(count, backwards=True)}
    out = {}
    for name, plan in orders.items():
        nodes = [(None, None, leaf) for leaf in leaves]
        for a, b in plan(len(leaves)):
            nodes.append((a, b, _merged(nodes[a][2], nodes[b][2])))
        out[name] = nodes
    return out


def _fold(count: int, backwards: bool = False) -> list[tuple[int, int]]:
    order = list(range(count))[:: -1 if backwards else 1]
    at, plan = order[0], []
    for i, leaf in enumerate(order[1:]):
        plan.append((leaf, at) if backwards else (at, leaf))
        at = count + i
    return plan


def _pairs(count: int) -> list[tuple[int, int]]:
    level, plan, nxt = list(range(count)), [], count
    while len(level) > 1:
        above = []
        for i in range(0, len(level) - 1, 2):
            plan.append((level[i], level[i + 1]))
            above.append(nxt)
            nxt += 1
        level = above + ([level[-1]] if len(level) % 2 else [])
    return plan
