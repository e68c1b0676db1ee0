"""Where a wrong tensor is wrong, in one or two honest sentences. Knows nothing of exercises or tolerances."""

import math
from typing import Any

import torch
from torch import Tensor

from course_lib.words import plural


def misplaced(got: Tensor, ref: Tensor) -> Tensor:
    """Where NaN or an infinity stands that should not, or does not that should."""
    return (got.isnan() != ref.isnan()) | (got.isposinf() != ref.isposinf()) | (got.isneginf() != ref.isneginf())


MOST_DIGITS = 9  # as many as a float32 has


def number(x: Any, digits: int = 0) -> str:
    """A number as the learner reads it: NaN, inf, four places behind the point. digits: that many significant ones instead."""
    if not isinstance(x, float):
        return str(x)
    x += 0.0  # -0.0 reads 0.0
    if not math.isfinite(x):
        return "NaN" if math.isnan(x) else str(x)
    if digits:
        return f"{x:#.{digits}g}"
    if abs(x) >= 1e6 or 0 < abs(x) < 1e-3:
        return f"{x:.4g}"
    return f"{x:.0f}" if abs(x) >= 1e4 else f"{x:.4f}"


def digits_apart(one: Any, other: Any) -> int:
    """How many significant digits tell two numbers apart that `number` writes alike; 0 where it does not, or none would."""
    if not (isinstance(one, float) and isinstance(other, float)) or one == other or number(one) != number(other):
        return 0
    return next((n for n in range(4, MOST_DIGITS + 1) if number(one, n) != number(other, n)), MOST_DIGITS)


def expected_and_got(expected: Any, got: Any) -> str:
    """`expected 0.41, got 0.88`, with as many digits as it takes to see the difference."""
    digits = digits_apart(expected, got)
    shown = f"expected {number(expected, digits)}, got {number(got, digits)}"
    if digits <= 4:  # too far apart to be called rounding
        return shown
    apart = number(expected, digits) != number(got, digits)
    how = f"they differ in the {_ordinal(digits)} digit" if apart else f"they differ by {abs(expected - got):.1e}"
    return f"{shown}; {how}: rounding, more than plain PyTorch's"


def describe(got: Any, ref: Any, axes: tuple[str, ...] = (), tile: tuple[str, int] | None = None, wrong: Tensor | None = None) -> str:
    """One or two honest sentences on where a tensor is wrong, with the first wrong place as evidence."""
    if not isinstance(got, Tensor) or not isinstance(ref, Tensor):
        said = expected_and_got(ref, got)
        return f"{said[0].upper()}{said[1:]}."
    ref = ref.to(got.dtype) if not got.is_floating_point() else ref.double()
    if wrong is None:
        wrong = (got.double() - ref.double()).abs() > 1e-4 * ref.double().abs().clamp(min=1.0)
        wrong |= misplaced(got.double(), ref.double())
    if not bool(wrong.any()):
        return "Every number is close, and together they are less exact than plain PyTorch's."
    axes = tuple(axes)[: got.dim()] if len(axes) >= got.dim() else tuple(f"dimension {i}" for i in range(got.dim()))
    at = tuple(int(n) for n in wrong.nonzero()[0])
    place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, at, strict=True))
    evidence = f"{place + ': ' if place else ''}{expected_and_got(ref[at].item(), got[at].item())}"
    ratio = _ratio(got, ref) if got.is_floating_point() else None
    where = f"{_where(wrong, axes, tile, got)} ({evidence})."
    return f"{where} Every number is {ratio} times what it should be." if ratio else where


def _where(wrong: Tensor, axes: tuple[str, ...], tile: tuple[str, int] | None, got: Tensor) -> str:
    nans = wrong & got.isnan() if got.is_floating_point() else torch.zeros_like(wrong)
    whole = bool(wrong.all())
    if bool(got.isnan().all()) if got.is_floating_point() and got.numel() else False:
        return "NaN everywhere"
    verb = "NaN" if bool((nans == wrong).all()) else "Wrong"
    if (
        tile
        and tile[0] in axes
        and (text := _by_tile(wrong.movedim(axes.index(tile[0]), 0).flatten(1).any(1) if wrong.dim() > 1 else wrong, tile[1]))
    ):
        return f"{verb} {text}"
    if whole:
        return f"{verb} everywhere"
    for i, axis in enumerate(axes):
        bad = (wrong.movedim(i, 0).flatten(1).any(1) if wrong.dim() > 1 else wrong).nonzero().flatten().tolist()
        if len(bad) < wrong.shape[i]:
            if axis.startswith("dimension "):
                return f"{verb} only at {_ranges(bad)} of {axis}"
            return f"{verb} only in {plural(axis, len(bad))} {_ranges(bad)}"
    return f"{verb} in {int(wrong.sum()):,} of {wrong.numel():,} places"


def _by_tile(bad: Tensor, size: int) -> str | None:
    """A sentence about tiles, where the wrong places follow them. bad [N] along the tiled axis."""
    tiles = [bool(part.any()) for part in bad.split(size)]
    if len(tiles) < 2 or not any(tiles) or all(tiles):
        return None
    first = tiles.index(True)
    if first == len(tiles) - 1:
        kind = ", partial" if bad.shape[0] % size else ""
        return f"only in places {first * size}-{bad.shape[0] - 1}: the last{kind} tile"
    if all(tiles[first:]):
        return f"from the {_ordinal(first + 1)} tile on"
    return None if sum(tiles) > 1 or first else "only in the first tile"


def _ratio(got: Tensor, ref: Tensor) -> str | None:
    """The factor between the two, where it is the same for every number."""
    usable = (
        ref.isfinite()
        & got.double().isfinite()
        & (ref.abs() > 1e-6 * ref[ref.isfinite()].abs().max() if bool(ref.isfinite().any()) else ref.isfinite())
    )
    if int(usable.sum()) < 3 or not bool(got.double().isfinite().eq(ref.isfinite()).all()):
        return None
    ratios = got.double()[usable] / ref[usable]
    middle = float(ratios.median())
    same = bool(((ratios - middle).abs() <= 1e-3 * abs(middle)).all())
    return number(middle) if same and middle and abs(middle - 1) > 1e-2 else None


def _ordinal(n: int) -> str:
    return {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}.get(n, f"{n}th")


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2 and 5"."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    parts = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:5]] + (["..."] if len(runs) > 5 else [])
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
