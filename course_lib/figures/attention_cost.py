"""The figures of chapter 02: attention's three steps, which keys a query sees, and the bytes it stores and moves.

Numbers come from the caller or from shapes, never from here.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from course_lib.figures.core import (
    CARD,
    COLOURS,
    FAINT,
    INK,
    LABEL_SIZE,
    MUTED,
    SMALL_SIZE,
    WIDTH,
    Card,
    Picture,
    arrow,
    label_ends,
    many,
    number,
    rounded,
    say,
    size,
    text_width,
    tint,
    word_colour,
)
from course_lib.figures.rows import whole
from course_lib.roofline import Machine, Work, attainable, ridge
from course_lib.words import plural

Q, K, V, OUTPUT, MEMORY, MASKED = (COLOURS[name] for name in ("Q", "K", "V", "output", "memory", "masked"))
MOST_CELLS = 16


def _matrix(x, name: str, most: int = 8) -> np.ndarray:
    """A tensor, array or nested list as a small float64 matrix; a sentence where it is none."""
    x = x.detach().cpu().double().numpy() if hasattr(x, "detach") else np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or not 0 < max(x.shape) <= most or min(x.shape) < 1:
        raise ValueError(f"{name} must be a matrix of at most {most} by {most} numbers; this has shape {list(x.shape)}")
    return x


# ---------------------------------------------------------------- the three steps on small numbers


def three_steps(scores, weights, output, title: str | None = None) -> Picture:
    """S, P and O of a small example with their numbers; every row of P sums to 1. A hidden score is -inf."""
    s, p, o = _matrix(scores, "scores"), _matrix(weights, "weights"), _matrix(output, "output")
    if s.shape != p.shape or o.shape[0] != s.shape[0]:
        raise ValueError(f"scores {list(s.shape)}, weights {list(p.shape)} and output {list(o.shape)} do not belong together")
    hidden = int((s == -math.inf).sum())
    title = title or f"{s.shape[0]} {plural('query', s.shape[0])} and {many(s.shape[1], 'key')}: each row of P shares out 1" + (
        f" over the keys it may see ({hidden} of {s.size} scores are hidden)" if hidden else " over the keys"
    )
    title += "; a row without any is 0" if bool((s == -math.inf).all(1).any()) and not p[(s == -math.inf).all(1)].any() else ""
    columns = 2 * s.shape[1] + o.shape[1]
    wide, high = min(0.62, (WIDTH - 2.6) / columns), 0.36
    with Card(title, height=high * s.shape[0] + 0.82) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, high * s.shape[0] + 0.82, bare=True)
        x = 0.55
        for name, values, colour, below in (
            ("S = Q K\u1d40, scaled", s, K, "keys"),
            ("P = softmax(S)", p, K, "keys"),
            ("O = P V", o, OUTPUT, "features"),
        ):
            _numbers(ax, values, x, 0.4, wide, high, colour, share=name[0] == "P")
            span = wide * values.shape[1]
            say(ax, x + span / 2, 0.5 + high * s.shape[0], name, "center bottom", word_colour(colour), LABEL_SIZE, fontweight="bold")
            say(ax, x + span / 2, 0.3, below, "center top", MUTED)
            x += span
            if name[0] != "O":
                arrow(ax, (x + 0.12, 0.4 + high * s.shape[0] / 2), (x + 0.68, 0.4 + high * s.shape[0] / 2))
                x += 0.8
        say(ax, 0.4, 0.4 + high * s.shape[0] / 2, "queries", "center center", word_colour(Q), rotation=90)
        rows = [f"Row {i}: scores {_told(a)}; weights {_told(b)}; output {_told(c)}." for i, (a, b, c) in enumerate(zip(s, p, o, strict=True))]
        return card.picture(f"Three matrices. {' '.join(rows)}")


def _told(row: np.ndarray) -> str:
    return ", ".join(number(x, 2) for x in row)


def _numbers(ax: Axes, values: np.ndarray, left: float, bottom: float, wide: float, high: float, colour: str, share: bool) -> None:
    """A grid of numbers; where they are shares, darker is more."""
    rows = values.shape[0]
    for r, row in enumerate(values):
        for c, x in enumerate(row):
            hidden = x == -math.inf
            face = tint(MASKED, 0.2) if hidden else tint(colour, 0.1 + 0.5 * min(1.0, max(0.0, x))) if share else tint(colour, 0.12)
            box = Rectangle((left + c * wide, bottom + (rows - 1 - r) * high), wide, high, facecolor=face, edgecolor=CARD, linewidth=1.5)
            ax.add_patch(box)
            words = "\u2212inf" if hidden else f"{x:.2f}".replace("-", "\u2212")
            fit = SMALL_SIZE * min(1.0, (wide - 0.06) / text_width(words, SMALL_SIZE))
            say(ax, left + (c + 0.5) * wide, bottom + (rows - 0.5 - r) * high, words, "center center", MUTED if hidden else INK, fit)


# ---------------------------------------------------------------- masks


def masks(kept: Mapping[str, object], title: str | None = None, note: str = "") -> Picture:
    """Bool masks side by side: {name: [n_q, n_kv]}; True = keep. One to three of them, at most 16 rows and columns."""
    grids = {name: _matrix(mask, name, MOST_CELLS) != 0 for name, mask in kept.items()}
    if not 1 <= len(grids) <= 3:
        raise ValueError(f"masks draws one to three masks, and there are {len(grids)}")
    panel = (WIDTH - 0.4) / len(grids)
    cell = min(0.36, *((panel - 0.75) / grid.shape[1] for grid in grids.values()), *(3.4 / grid.shape[0] for grid in grids.values()))
    tall = cell * max(grid.shape[0] for grid in grids.values())
    title = title or "; ".join(f"{name}: {int(grid.sum())} of {many(grid.size, 'score')} seen" for name, grid in grids.items())
    with Card(title, height=tall + 0.95, note=note) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, tall + 0.95, bare=True)
        for i, (name, grid) in enumerate(grids.items()):
            left = i * panel + 0.5 + max(0.0, (panel - 0.75 - cell * grid.shape[1]) / 2)
            draw_mask(ax, grid, left, 0.55 + tall - cell * grid.shape[0], cell)
            say(ax, left + cell * grid.shape[1] / 2, 0.62 + tall, name, "center bottom", INK, LABEL_SIZE, fontweight="bold")
        _mask_key(ax, 0.1)
        told = [f"{name}: the queries see {', '.join(str(int(n)) for n in grid.sum(1))} of {grid.shape[1]} keys." for name, grid in grids.items()]
        return card.picture(" ".join(told))


def draw_mask(ax: Axes, kept: np.ndarray, left: float, bottom: float, cell: float) -> None:
    """A mask as a grid in inches; a query that sees nothing is marked at its row's end."""
    n_q, n_kv = kept.shape
    for r in range(n_q):
        for c in range(n_kv):
            keep = bool(kept[r, c])
            face, edge = (tint(K, 0.55), CARD) if keep else (CARD, tint(MASKED, 0.7))
            box = Rectangle((left + c * cell, bottom + (n_q - 1 - r) * cell), cell, cell, facecolor=face, edgecolor=edge, linewidth=0.9)
            ax.add_patch(box)
        if not kept[r].any():
            say(ax, left + n_kv * cell + 0.06, bottom + (n_q - 0.5 - r) * cell, "empty", "left center", MUTED, min(SMALL_SIZE, 40 * cell))
    say(ax, left - 0.1, bottom + n_q * cell / 2, "queries", "right center", word_colour(Q), rotation=90)
    say(ax, left + n_kv * cell / 2, bottom - 0.06, "keys", "center top", word_colour(K))


def _mask_key(ax: Axes, y: float) -> None:
    for x, face, edge, words in ((2.9, tint(K, 0.55), CARD, "seen"), (4.3, CARD, tint(MASKED, 0.7), "hidden")):
        ax.add_patch(Rectangle((x, y - 0.08), 0.16, 0.16, facecolor=face, edgecolor=edge, linewidth=0.9))
        say(ax, x + 0.24, y, words, "left center", MUTED)


# ---------------------------------------------------------------- heads


def head_groups(heads: int, kv_heads: Sequence[int], title: str | None = None) -> Picture:
    """Which K/V head each query head reads, for several numbers of K/V heads side by side."""
    heads, groups = whole(heads, "heads"), [whole(n, "kv_heads") for n in kv_heads]
    if heads > MOST_CELLS or not 1 <= len(groups) <= 3 or any(heads % n for n in groups):
        raise ValueError(f"head_groups draws at most {MOST_CELLS} heads and one to three divisors of them; got {heads} and {list(kv_heads)}")
    title = title or (
        f"{heads} query heads on {' or '.join(f'{n}' for n in groups)} K/V head{'s' * (groups != [1])}: "
        f"K and V shrink up to {number(heads / min(groups))} times, S not at all"
    )
    with Card(title, height=2.15) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, 2.15, bare=True)
        panel = (WIDTH - 0.4) / len(groups)
        for i, n in enumerate(groups):
            left, step = i * panel + 0.2, (panel - 0.4) / heads
            box = min(0.3, step * 0.8)
            name = "multi-head" if n == heads else "multi-query" if n == 1 else "grouped-query"
            say(ax, i * panel + panel / 2, 1.98, f"{name}: {n} K/V", "center center", INK, LABEL_SIZE, fontweight="bold")
            for g in range(n):
                middle = left + step * heads / n * (g + 0.5)
                for h in range(g * heads // n, (g + 1) * heads // n):
                    ax.plot([left + step * (h + 0.5), middle], [1.36, 0.75], color=MUTED, linewidth=1, zorder=1)
                rounded(ax, middle - box / 2, 0.45, box, 0.3, tint(K, 0.45), K, radius=0.04, linewidth=1, zorder=2)
                rounded(ax, middle - box / 2, 0.12, box, 0.3, tint(V, 0.45), V, radius=0.04, linewidth=1, zorder=2)
            for h in range(heads):
                x = left + step * (h + 0.5)
                rounded(ax, x - box / 2, 1.36, box, 0.3, tint(Q, 0.3), Q, radius=0.04, linewidth=1, zorder=2)
                say(ax, x, 1.51, str(h), "center center", INK, zorder=3)
            if i:
                ax.plot([i * panel] * 2, [0.1, 2.05], color=FAINT, linewidth=1)
        for y, word, colour in ((1.51, "Q", Q), (0.6, "K", K), (0.27, "V", V)):
            say(ax, 0.02, y, word, "left center", word_colour(colour), fontweight="bold")
        told = [f"With {many(n, 'K/V head')}, each is read by {many(heads // n, 'query head')}." for n in groups]
        return card.picture(f"{heads} query heads. {' '.join(told)} Neighbouring heads share.")


# ---------------------------------------------------------------- bytes moved

_LOOKS = {"Q": Q, "K": K, "V": V, "S": tint(K, 0.45), "P": tint(K, 0.22), "O": OUTPUT}


def step_bytes(n_q: int, n_kv: int, d: int, heads: int = 1, bytes_each: int = 2) -> dict[str, list[tuple[str, str, int]]]:
    """What each step of naive attention moves, and what one fused kernel must: {step: [(matrix, read or write, bytes)]}."""
    sizes = {"Q": n_q * d, "K": n_kv * d, "V": n_kv * d, "S": n_q * n_kv, "P": n_q * n_kv, "O": n_q * d}
    steps = {"S = Q K\u1d40": ("QK", "S"), "P = softmax(S)": ("S", "P"), "O = P V": ("PV", "O"), "all in one": ("QKV", "O")}
    each = heads * bytes_each
    return {
        step: [(name, "read", sizes[name] * each) for name in reads] + [(name, "write", sizes[name] * each) for name in writes]
        for step, (reads, writes) in steps.items()
    }


def step_ledger(n_q: int, n_kv: int, d: int, heads: int = 1, bytes_each: int = 2, title: str | None = None) -> Picture:
    """Bytes that each step of naive attention reads and writes, to scale; below, what a single kernel would have to move."""
    n_q, n_kv, d, heads = (whole(n, name) for n, name in ((n_q, "n_q"), (n_kv, "n_kv"), (d, "d"), (heads, "heads")))
    steps = step_bytes(n_q, n_kv, d, heads, whole(bytes_each, "bytes_each"))
    totals = {step: sum(count for _, _, count in parts) for step, parts in steps.items()}
    naive = sum(totals.values()) - totals["all in one"]
    middle = sum(count for step, parts in steps.items() if step != "all in one" for name, _, count in parts if name in "SP")
    title = title or (
        f"Naive attention moves {size(naive)} where Q, K, V and O are {size(totals['all in one'])}: {100 * middle / naive:.0f} % of it is S and P"
    )
    most = max(totals.values())
    note = f"{n_q:,} {plural('query', n_q)}, {n_kv:,} {plural('key', n_kv)}, d = {d}, {many(heads, 'head')}, {bytes_each} bytes a number."
    with Card(title, height=3.5, note=note) as card:
        _matrix_key(card, 1.5, 3.36)
        ax = card.axes(1.5, 0.62, WIDTH - 2.75, 2.6)
        ax.set_xlim(0, most)
        ax.set_ylim(-0.6, 3.6)
        for lane, (step, parts) in enumerate(reversed(steps.items())):
            at = 0.0
            for name, kind, count in parts:
                hatch = {"hatch": "///"} if kind == "write" else {}
                ax.barh(lane, count, left=at, height=0.62, facecolor=_LOOKS[name], edgecolor=CARD, linewidth=0.8, **hatch)
                words = f"{kind} {name}"
                if (WIDTH - 2.75) * count / most > text_width(words, SMALL_SIZE) + 0.14:
                    say(ax, at + count / 2, lane, words, "center center", INK if name in "SP" else CARD).set_bbox(
                        {"facecolor": _LOOKS[name], "edgecolor": "none", "pad": 1.5}
                    )
                at += count
            label_ends(ax, [(at, lane, size(totals[step]), MEMORY)])
        ax.axhline(0.5, color=FAINT, linewidth=1)
        ax.set_yticks(range(4), list(reversed(steps)))
        ax.tick_params(axis="y", length=0, labelsize=LABEL_SIZE)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(_binary_ticks(most))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
        ax.set_xlabel("bytes moved, every matrix once a step (hatched: written)")
        told = [f"{step}: {', '.join(f'{kind} {name} {size(count)}' for name, kind, count in parts)}." for step, parts in steps.items()]
        return card.picture(f"Bytes of each step. {' '.join(told)} The three steps together move {size(naive)}.")


def _matrix_key(card: Card, x: float, y: float) -> None:
    """Which colour is which matrix: most of them are too thin for a name."""
    ax = card.axes(x, y - 0.1, 4.5, 0.2, bare=True)
    for i, (name, colour) in enumerate(_LOOKS.items()):
        ax.add_patch(Rectangle((0.55 * i, 0.03), 0.14, 0.14, facecolor=colour, edgecolor="none"))
        say(ax, 0.55 * i + 0.21, 0.1, name, "left center")


def _binary_ticks(most: float):
    from matplotlib.ticker import MultipleLocator

    return MultipleLocator(2.0 ** math.floor(math.log2(most / 3)))


def requested_by_tile(tiles: Sequence[int], requested: Sequence[float], compulsory: float, result: float, title: str | None = None) -> Picture:
    """Bytes asked for by a tiled product over its tile's side, counted; with the step's compulsory bytes and its result's size."""
    tiles, asked = np.asarray(tiles, dtype=float), np.asarray(requested, dtype=float)
    if tiles.ndim != 1 or tiles.shape != asked.shape or tiles.size < 2 or (tiles <= 0).any() or (asked <= 0).any():
        raise ValueError("requested_by_tile needs two tile sizes or more, and as many counts, all above 0")
    if not 0 < result <= compulsory:
        raise ValueError(f"the result ({result}) is part of what is compulsory ({compulsory}), and above 0")
    title = (
        title
        or f"Tiles of {int(tiles[-1])} ask for {number(asked[0] / asked[-1])} times less than tiles of {int(tiles[0])}; no tile asks for less than the result"
    )
    with Card(title, height=3.3) as card:
        ax = card.axes(1.0, 0.62, WIDTH - 3.3, 2.6)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        ax.set_xlim(tiles.min() / 1.2, tiles.max())
        ax.set_ylim(result / 2.2, asked.max() * 2)
        ax.plot(tiles, asked, color=MEMORY, marker="o", markersize=4.5, clip_on=False, zorder=3)
        ax.axhline(compulsory, color=INK, linestyle=(0, (4, 2)), linewidth=1.2)
        ax.axhline(result, color=K, linestyle=(0, (1.2, 1.6)), linewidth=1.4)
        label_ends(
            ax,
            [
                (tiles.max(), asked[-1] * 1.6, "requested, counted", MEMORY),
                (tiles.max(), compulsory, f"compulsory: {size(compulsory)}", INK),
                (tiles.max(), result, f"S alone: {size(result)}", K),
            ],
            gap=0.22,
        )
        ax.set_xticks(tiles)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x):,}"))
        ax.yaxis.set_major_locator(LogLocator(base=4, numticks=8))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        ax.set_xlabel("side of a tile of S (scores)")
        ax.set_ylabel("bytes requested")
        ax.grid(axis="y")
        told = ", ".join(f"{size(y)} with tiles of {int(x)}" for x, y in zip(tiles, asked, strict=True))
        return card.picture(
            f"Bytes requested by the product Q times K transposed: {told}. Compulsory {size(compulsory)}, of which S is {size(result)}."
        )


# ---------------------------------------------------------------- measured


def exponent(lengths: Sequence[float], values: Sequence[float], last: int = 3) -> float:
    """The p of values ~ lengths ** p, fitted by least squares in logarithms to the last points."""
    x, y = (np.log(np.asarray(v, dtype=float)[-last:]) for v in (lengths, values))
    if x.size != y.size or x.size < 2:
        raise ValueError(f"exponent needs two points or more, as many lengths as values; got {len(lengths)} and {len(values)}")
    return float(np.polyfit(x, y, 1)[0])


def growth(lengths: Sequence[int], panels: Mapping[str, Mapping[str, Sequence[float]]], title: str | None = None) -> Picture:
    """Measured quantities against N on log axes, a panel each: {"peak memory (MiB)": {"naive": [...]}}; the slope stands at each line."""
    n = np.asarray(lengths, dtype=float)
    if n.ndim != 1 or n.size < 2 or (n <= 0).any() or not 1 <= len(panels) <= 2:
        raise ValueError("growth needs two lengths or more, above 0, and one or two panels")
    for panel, lines in panels.items():
        for name, values in lines.items():
            if len(values) != n.size or not all(v > 0 and math.isfinite(v) for v in values):
                raise ValueError(f"{panel}, {name!r}: {n.size} numbers above 0 are needed, one a length")
    fits = {panel: {name: exponent(n, values) for name, values in lines.items()} for panel, lines in panels.items()}
    first = {panel: next(iter(found.values())) for panel, found in fits.items()}
    title = title or "Per doubling of N, " + " and ".join(f"{panel.split(' (')[0]} grows {number(2**p, 2)} times" for panel, p in first.items())
    wide = (WIDTH - 0.3) / len(panels)
    looks = [(MEMORY, "-", "o"), (K, (0, (4, 2)), "s"), (MUTED, (0, (1.2, 1.6)), "^"), (INK, "-", "D")]
    with Card(title, height=3.4) as card:
        for i, (panel, lines) in enumerate(panels.items()):
            ax = card.axes(i * wide + 0.85, 0.62, wide - 2.35, 2.65)
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.set_xlim(n.min() / 1.1, n.max())
            ends = []
            for (name, values), (colour, dash, marker) in zip(lines.items(), looks, strict=False):
                ax.plot(n, values, color=colour, linestyle=dash, marker=marker, markersize=4.5, clip_on=False, zorder=3)
                ends.append((n[-1], values[-1], f"{name}: N to the {fits[panel][name]:.2f}", colour))
            low, high = min(min(v) for v in lines.values()), max(max(v) for v in lines.values())
            ax.set_ylim(low / 1.6, high * 1.6)
            label_ends(ax, ends, gap=0.2)
            ax.set_xticks(n)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x):,}" if x < 1000 else f"{x / 1024:g}K"))
            ax.yaxis.set_major_locator(LogLocator(numticks=6))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x)))
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_minor_locator(NullLocator())
            ax.set_xlabel("N, queries and keys")
            ax.set_ylabel(panel)
            ax.grid(axis="y")
        told = [
            f"{panel}, {name}: {', '.join(number(v) for v in values)}; it grows as N to the {fits[panel][name]:.2f}."
            for panel, lines in panels.items()
            for name, values in lines.items()
        ]
        return card.picture(f"Measured at N = {', '.join(f'{int(x):,}' for x in n)}. {' '.join(told)}")


def on_the_roofline(machine: Machine, works: Mapping[str, Work], dtype: str = "fp16", title: str | None = None) -> Picture:
    """Where operators lie under a machine's roofline: FLOPs a byte across, the most FLOP/s they can reach upwards."""
    if not 1 <= len(works) <= 6:
        raise ValueError(f"on_the_roofline draws one to six operators, and there are {len(works)}")
    turn, top = ridge(machine, dtype), machine.rate(dtype)
    below = [name for name, work in works.items() if work.intensity < turn]
    title = title or f"{machine.name}, {dtype}: {len(below)} of {len(works)} lie left of {number(turn)} FLOPs a byte and wait for memory"
    intensities = [work.intensity for work in works.values()]
    low, high = min(*intensities, turn) / 4, max(*intensities, turn) * 4
    with Card(title, height=3.5) as card:
        ax = card.axes(1.0, 0.62, WIDTH - 3.9, 2.75)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlim(low, high)
        floor = min(attainable(work, machine, dtype) for work in works.values())
        ax.set_ylim(floor / 4, top * 4)
        ax.plot([low, turn, high], [low * machine.bandwidth, top, top], color=INK, linewidth=1.6, zorder=2)
        ax.plot([turn, turn], [floor / 4, top], color=MUTED, linewidth=1, linestyle=(0, (1.2, 1.6)))
        for i, ((name, work), mark) in enumerate(zip(works.items(), ("o", "s", "^", "D", "v", "P"), strict=False)):
            colour = OUTPUT if work.intensity >= turn else K
            open_ones = {"markerfacecolor": CARD, "markeredgewidth": 1.6} if i % 2 else {"markeredgecolor": CARD}  # two in one place stay apart
            ax.plot([work.intensity], [attainable(work, machine, dtype)], marker=mark, markersize=11 - 2 * i, color=colour, zorder=4 + i, **open_ones)
            key = card.axes(WIDTH - 2.55, 2.95 - 0.5 * i, 0.2, 0.2)
            key.set_axis_off()
            key.plot([0.5], [0.5], marker=mark, markersize=8, color=colour, **open_ones)
            card.text(WIDTH - 2.25, 3.05 - 0.5 * i, name, size=SMALL_SIZE, va="center", colour=word_colour(colour))
            card.text(WIDTH - 2.25, 2.87 - 0.5 * i, f"{number(work.intensity)} FLOPs a byte", size=SMALL_SIZE, va="center", colour=MUTED)
        say(ax, high / 1.1, top * 1.35, f"{number(top / 1e12)} TFLOP/s", "right bottom", INK)
        say(ax, turn * 1.08, floor / 2.6, f"ridge: {number(turn)}", "left center", MUTED)
        ax.xaxis.set_major_locator(LogLocator(base=4, numticks=9))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x)))
        ax.yaxis.set_major_locator(LogLocator(numticks=6))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{number(y / 1e12)} T" if y >= 1e12 else f"{number(y / 1e9)} G"))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        ax.set_xlabel("FLOPs per byte moved")
        ax.set_ylabel("attainable FLOP/s")
        told = [
            f"{name}: {number(work.intensity)} FLOPs a byte, {'memory' if work.intensity < turn else 'compute'}-bound."
            for name, work in works.items()
        ]
        return card.picture(f"Roofline of {machine.name} in {dtype}; the ridge is at {number(turn)} FLOPs a byte. {' '.join(told)}")
