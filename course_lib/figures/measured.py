"""Figures of what was measured: errors against float64, peaks of memory, errors after each tile. Lines over a log axis.

Numbers come from the caller, never from here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from course_lib.figures.core import COLOURS, INK, MUTED, WIDTH, Card, Picture, label_ends, many, number, power_of_ten
from course_lib.figures.rows import row

OUTPUT = COLOURS["output"]
_DASHED = (0, (4, 2))
_OTHERS = ((MUTED, "^"), (MUTED, "D"), (MUTED, "v"), (MUTED, "P"))


def error_vs_float64(
    lengths: Sequence[int], errors: Mapping[str, Sequence[float]], title: str | None = None, ylabel: str = "largest error against float64"
) -> Picture:
    """Errors over the row's length, one line each, log axes. nan and inf are drawn at the top edge; an exact 0 at the bottom edge."""
    n, lines = _checked("error_vs_float64", lengths, errors)
    last = {name: v[-1] for name, v in lines.items() if np.isfinite(v[-1]) and v[-1] > 0}
    if title is None and len(last) > 1:
        worst, best = max(last, key=last.get), min(last, key=last.get)
        title = f"At {int(n[-1]):,} scores a row, {worst} is {number(last[worst] / last[best], 2)} times as wrong as {best}"
    told = f"{ylabel.capitalize()}, for rows of {int(n[0]):,} to {int(n[-1]):,} scores."
    return _over_lengths(n, lines, title or "Errors against float64", "scores in a row", ylabel, told)


def peak_memory(lengths: Sequence[int], peaks: Mapping[str, Sequence[float]], title: str | None = None) -> Picture:
    """Peak memory over N keys and queries, one line a way of computing, log axes. peaks in MiB: {name: [one number a length]}."""
    n, lines = _checked("peak_memory", lengths, peaks)
    if any(not np.isfinite(v).all() for v in lines.values()):
        raise ValueError("peak_memory: a peak is a finite number of MiB; one of these is not")
    most, least = (choose(lines, key=lambda name: lines[name][-1]) for choose in (max, min))
    told = f"At N = {int(n[-1]):,} the {most} way allocates"
    if title is None and lines[most][-1] > lines[least][-1] > 0:
        title = f"{told} {number(lines[most][-1] / lines[least][-1], 2)} times what the {least} way does"
    title = title or f"{told} {number(lines[most][-1])} MiB at its peak" + (", as much as the others" if len(lines) > 1 and least == most else "")
    alt = f"Peak of what one call allocates, in MiB, for N = {int(n[0]):,} to {int(n[-1]):,} keys and queries."
    return _over_lengths(n, lines, title, "N, keys and queries", "peak of what one call allocates (MiB)", alt)


def _checked(figure: str, lengths: Sequence[int], values: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(lengths, lines) as arrays; ValueError in a sentence."""
    n = row(lengths, "lengths")
    if (n <= 0).any() or not isinstance(values, Mapping) or not values:
        raise ValueError(f"{figure} needs lengths above 0 and at least one line: {{name: [one number a length]}}")
    lines = {}
    for name, given in values.items():
        try:
            lines[name] = np.asarray([float(x) for x in given], dtype=float)
        except (TypeError, ValueError):
            raise ValueError(f"{figure}: {name!r} must be a list of numbers, one a length") from None
        if lines[name].size != n.size or (lines[name] < 0).any():
            raise ValueError(f"{figure}, {name!r}: {n.size} numbers of at least 0 are needed, one a length; there are {lines[name].size}")
    return n, lines


def _over_lengths(n: np.ndarray, lines: dict[str, np.ndarray], title: str, xlabel: str, ylabel: str, told: str) -> Picture:
    """One line each over the lengths, labelled where it ends; told: how the alt text begins."""
    known = np.concatenate([v[np.isfinite(v) & (v > 0)] for v in lines.values()])
    low, high = (known.min() / 4, known.max() * 4) if known.size else (1e-9, 1.0)
    if any((~np.isfinite(v)).any() for v in lines.values()):
        high *= 8
    with Card(title, height=3.35) as card:
        ax = card.axes(0.95, 0.6, WIDTH - 3.05, 2.65)
        ax.set_xscale("log", base=2)
        _log_axis(ax, low, high, ylabel)
        ax.set_xlim(n.min() / 1.15, n.max() if n.size > 1 else n.max() * 1.15)
        ax.set_xlabel(xlabel)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(n if n.size <= 8 else n[:: -(-n.size // 8)])
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x):,}"))
        looks, ends = _looks(list(lines)), []
        for name, values in lines.items():
            colour, dash, marker = looks[name]
            drawn = np.where(np.isfinite(values), np.maximum(values, low * 1.3), high / 1.6)
            lost = ~np.isfinite(values)
            ax.plot(n, drawn, color=colour, linestyle=dash, zorder=3, label=name)
            ax.plot(n[~lost], drawn[~lost], color=colour, linestyle="none", marker=marker, markersize=4.5, zorder=3, clip_on=False)
            ax.plot(n[lost], drawn[lost], linestyle="none", marker="X", markersize=8, color=colour, zorder=4, clip_on=False)
            words = name if np.isfinite(values[-1]) else f"{name}: {'inf' if np.isinf(values[-1]) else 'nan'}"
            ends.append((n[-1], drawn[-1], words, colour))
        label_ends(ax, ends)
        return card.picture(f"{told} " + " ".join(f"{name} ends at {number(v[-1], 2)}." for name, v in lines.items()))


def _log_axis(ax, low: float, high: float, label: str) -> None:
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    ax.set_ylabel(label)
    ax.grid(axis="y")
    ax.yaxis.set_major_locator(LogLocator(numticks=7))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(power_of_ten))


def _looks(names: Sequence[str]) -> dict[str, tuple[str, object, str]]:
    """Colour, dash and marker of each line. Tiled ways have the output's colour, naive ones ink, all others grey with a marker each.

    A label of the form "name, dtype" says the dtype by its dash: float32 and float64 solid, the half precisions dashed.
    """
    parts = {name: (name.rpartition(", ")[0], name.rpartition(", ")[2]) for name in names}
    parts = {name: (way, dtype) if way and dtype in _DTYPES else (name, "") for name, (way, dtype) in parts.items()}
    others = [way for way in dict.fromkeys(way for way, _ in parts.values()) if not _role(way)]
    looks = {}
    for name, (way, dtype) in parts.items():
        colour, marker = _role(way) or _OTHERS[others.index(way) % len(_OTHERS)]
        looks[name] = (colour, _DTYPES.get(dtype, "-"), marker)
    return looks


_DTYPES = {"float64": "-", "float32": "-", "bfloat16": _DASHED, "float16": _DASHED}


def _role(way: str) -> tuple[str, str] | None:
    words = way.lower().split()
    return (OUTPUT, "o") if "tiled" in words else (INK, "s") if "naive" in words else None


def bug_hunt_error(errors: Mapping[str, Sequence[float]], title: str | None = None, wrong_above: float = 1e-3) -> Picture:
    """The largest error after each tile, one line a loop: {name: [error after tile 1, after tile 2, ...]}, log scale."""
    lines = {name: np.asarray([float(e) for e in values], dtype=float) for name, values in errors.items()}
    if not lines or any(v.size == 0 for v in lines.values()) or len({v.size for v in lines.values()}) != 1:
        raise ValueError("bug_hunt_error needs the same number of errors for every loop, one a tile")
    if any((~np.isfinite(v)).any() or (v < 0).any() for v in lines.values()):
        raise ValueError("bug_hunt_error: an error is a number of at least 0; one of these is not")
    tiles = np.arange(1, next(iter(lines.values())).size + 1)
    wrong = {name: v for name, v in lines.items() if v.max() > wrong_above}
    right = [name for name in lines if name not in wrong]
    if title is None and wrong:
        name, values = next(iter(wrong.items()))
        first = int(np.argmax(values > wrong_above)) + 1
        start = f"exact after {many(first - 1, 'tile')}" if first > 1 else "wrong from the first tile"
        title = f"{name[0].upper()}{name[1:]} is {start}, off by {number(values[first - 1], 2)} after {first}"
        title += f" and by {number(values[-1], 2)} after {tiles[-1]}" if first < tiles[-1] else ""
    title = title or f"Every loop stays within {number(max(v.max() for v in lines.values()), 2)} of float64"
    positive = np.concatenate([v[v > 0] for v in lines.values()] or [np.array([1e-9])])
    low, high = (positive.min() / 6, positive.max() * 6) if positive.size else (1e-9, 1.0)
    with Card(title, height=3.2) as card:
        ax = card.axes(0.95, 0.6, WIDTH - 3.25, 2.5)
        _log_axis(ax, low, high, "largest error against float64")
        ax.set_xlim(0.7, tiles[-1])
        ax.set_xlabel("tiles of keys read")
        ax.set_xticks(tiles if tiles.size <= 16 else tiles[:: -(-tiles.size // 16)])
        looks = _looks([*right, *wrong])
        for name in wrong:
            looks[name] = (INK, "-", "X")
        for name in lines:
            colour, dash, marker = looks[name]
            ax.plot(
                tiles,
                np.maximum(lines[name], low * 1.5),
                color=colour,
                linestyle=dash,
                marker=marker,
                markersize=7 if name in wrong else 4.5,
                zorder=3,
                clip_on=False,
            )
        label_ends(ax, [(tiles[-1], max(lines[name][-1], low * 1.5), name, looks[name][0]) for name in lines])
        alt = f"Largest error after each of {many(len(tiles), 'tile')}. " + " ".join(
            f"{name}: {', '.join(number(e, 2) for e in v)}." for name, v in lines.items()
        )
        return card.picture(alt)
