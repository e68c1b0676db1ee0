"""The figures of chapter 06: store or recompute, the products of both passes, kept and requested bytes, gradients of scores, memory over a step, losses.

Numbers come from the caller, never from here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from course_lib.figures.core import (
    CARD,
    COLOURS,
    INK,
    LABEL_SIZE,
    MUTED,
    SMALL_SIZE,
    WIDTH,
    Card,
    Picture,
    arrow,
    label_ends,
    number,
    power_of_ten,
    rounded,
    say,
    size,
    text_width,
    tint,
    word_colour,
)

Q, K, V, OUTPUT, MEMORY, MASKED = (COLOURS[name] for name in ("Q", "K", "V", "output", "memory", "masked"))
PARTS = {
    "Q": Q,
    "K": K,
    "V": V,
    "N x N": MEMORY,
    "output": OUTPUT,
    "dout": tint(OUTPUT, 0.6),
    "lse, delta": tint(OUTPUT, 0.3),
    "gradients": MASKED,
    "others": tint(MASKED, 0.4),
}
T, DOT, CIRC = "\u1d40", "\u00b7", "\u2218"


# ---------------------------------------------------------------- store, or make again


def store_or_recompute() -> Picture:
    """What lies in memory between the forward and the backward pass, both ways."""
    title = "Backward needs P again: keep N x N numbers, or one number a row and make P again tile by tile"
    with Card(title, height=2.75) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, 2.75, bare=True)
        for left, name, kept in ((0.35, "store", "P"), (4.55, "recompute", "lse")):
            say(ax, left, 2.6, f"{name}:", "left top", INK, LABEL_SIZE, fontweight="bold")
            small = kept == "lse"
            said = "1 number a row is kept" if small else "N numbers a row are kept"
            say(ax, left + text_width(f"{name}: ", LABEL_SIZE, "bold") + 0.05, 2.6, said, "left top", INK, LABEL_SIZE)
            for x, words in ((left, "forward"), (left + 2.45, "backward")):
                rounded(ax, x, 0.55, 1.05, 0.72, tint(OUTPUT, 0.1), OUTPUT, linewidth=1.2)
                say(ax, x + 0.525, 1.08, words, "center center", INK, LABEL_SIZE)
            ax.add_patch(Rectangle((left + 2.7, 0.63), 0.24, 0.24, facecolor=tint(K, 0.5), edgecolor=K, linewidth=1))
            again = "a tile of P, made again" if small else "a tile of P, read"
            say(ax, left + 2.975, 0.4, again, "center center", MUTED)
            say(ax, left + 3.1, 0.75, "P", "center center", INK)
            w = 0.09 if small else 0.8
            x = left + 1.75 - w / 2
            ax.add_patch(Rectangle((x, 1.48), w, 0.8, facecolor=tint(MEMORY, 0.75), edgecolor=MEMORY, linewidth=1))
            if small:
                say(ax, x + 0.16, 1.88, "lse, N x 1", "left center", INK)
            else:
                say(ax, left + 1.75, 1.88, "P, N x N", "center center", CARD, fontweight="bold")
            arrow(ax, (left + 0.85, 1.3), (x - 0.05, 1.7), MEMORY)
            arrow(ax, (left + 1.75 + 0.45, 1.7), (left + 2.75, 1.3), MEMORY)
        ax.plot([4.2, 4.2], [0.3, 2.6], color=MASKED, linewidth=0.8, linestyle=(0, (4, 3)))
        say(ax, 0.35, 0.08, "both also keep Q, K, V and the output: N x d numbers each", "left center", MUTED)
        return card.picture(
            "Two ways from forward to backward. Store: forward writes P, N by N, to memory and backward reads its tiles. Recompute: forward writes lse, one "
            "number a row, and backward makes each tile of P again from Q, K and lse. Both also keep Q, K, V and the output."
        )


# ---------------------------------------------------------------- the products of both passes

_TALL, _WIDE, _THIN = 0.52, 0.52, 0.2
_MATRICES = {
    "Q": (Q, False), "K": (K, False), "V": (V, False), "O": (OUTPUT, False), "dO": (OUTPUT, False), "S": (K, True), "P": (K, True), "dP": (K, True),
    "dS": (K, True), "dQ": (Q, False), "dK": (K, False), "dV": (V, False),
}  # fmt: skip
_FORWARD = (("S", "Q", f"K{T}", "scores, scaled"), ("P", None, None, "softmax of each row of S"), ("O", "P", "V", "the output"))
_BACKWARD = (
    ("S", "Q", f"K{T}", "scores again; then P = exp(S \u2212 lse)"),
    ("dV", f"P{T}", "dO", "every query adds to every value"),
    ("dP", "dO", f"V{T}", "what each weight does to the loss"),
    ("dS", None, None, f"P {CIRC} (dP \u2212 delta)"),
    ("dQ", "dS", "K", "scaled"),
    ("dK", f"dS{T}", "Q", "scaled"),
)


def products() -> Picture:
    """The lines of the forward and of the backward pass as rectangles to scale: what is N x N, what is N x d."""
    title = "Forward has 2 matrix products, backward 5; nothing N x N goes in, nothing N x N comes out"
    with Card(title, height=4.15) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, 4.15, bare=True)
        for left, heading, lines in ((0.1, "forward", _FORWARD), (4.2, "backward", _BACKWARD)):
            say(ax, left, 4.1, heading, "left top", INK, LABEL_SIZE, fontweight="bold")
            for row, (result, a, b, words) in enumerate(lines):
                _line(ax, left, 3.28 - row * 0.63, result, a, b, words)
        ax.plot([4.0, 4.0], [0.1, 4.0], color=MASKED, linewidth=0.8, linestyle=(0, (4, 3)))
        say(ax, 0.1, 0.9, "square: N x N, lives tile by tile on the chip", "left center", MUTED)
        say(ax, 0.1, 0.65, "narrow: N x d, lives in memory", "left center", MUTED)
        told = "; ".join(f"{r} = {a} {b}" if a else f"{r}: {words}" for r, a, b, words in (*_FORWARD, *_BACKWARD))
        return card.picture(f"The lines of both passes, N by N matrices drawn square, N by d ones narrow: {told}.")


def _line(ax, left: float, bottom: float, result: str, a: str | None, b: str | None, words: str) -> None:
    x = _matrix(ax, left, bottom, result) + 0.1
    say(ax, x + 0.05, bottom + _TALL / 2, "=", "center center", INK, LABEL_SIZE)
    x += 0.2
    if a is not None:
        x = _matrix(ax, x, bottom, a) + 0.08
        x = _matrix(ax, x, bottom, b) + 0.14
    say(ax, x, bottom + _TALL / 2, words, "left center", INK)


def _matrix(ax, x: float, bottom: float, name: str) -> float:
    """One matrix; a transposed narrow one lies on its side. Returns where it ends."""
    colour, square = _MATRICES[name.removesuffix(T)]
    flat = name.endswith(T) and not square
    w, h = (_WIDE, _TALL) if square else (_WIDE, _THIN) if flat else (_THIN + 0.06, _TALL)
    y = bottom + (_TALL - h) / 2
    gradient = name.startswith("d")
    ax.add_patch(Rectangle((x, y), w, h, facecolor=tint(colour, 0.18 if gradient else 0.5), edgecolor=colour, linewidth=1))
    say(ax, x + w / 2, y + h / 2, name, "center center", INK, SMALL_SIZE)
    return x + w


# ---------------------------------------------------------------- bytes by tensor


def stacked(ways: Mapping[str, Mapping[str, float]], xlabel: str, title: str | None = None, note: str = "") -> Picture:
    """Bytes of several ways as stacked bars, a colour for each tensor: {way: {"Q": bytes, "N x N": ..., "lse, delta": ...}}."""
    if not ways or any(not parts or set(parts) - set(PARTS) or min(parts.values()) < 0 for parts in ways.values()):
        raise ValueError(f"stacked needs at least one way, each {{tensor: bytes}} with tensors among {', '.join(PARTS)}")
    totals = {way: sum(parts.values()) for way, parts in ways.items()}
    most, least = max(totals, key=totals.get), min(totals, key=totals.get)
    if title is None:
        more = f", {number(totals[most] / totals[least], 2)} times as much as {least}" if totals[most] > totals[least] else ""
        title = f"{_upper(most)}: {size(totals[most])}{more}"
    left = 0.45 + max(text_width(way, LABEL_SIZE) for way in ways)
    used = [name for name in PARTS if any(parts.get(name) for parts in ways.values())]
    tall = 0.46 * len(ways)
    with Card(title, height=tall + 1.15, note=note) as card:
        ax = card.axes(left, 0.55, WIDTH - left - 1.15, tall)
        top = max(totals.values()) or 1.0
        for y, (way, parts) in enumerate(ways.items()):
            x = 0.0
            for name in used:
                ax.barh(y, parts.get(name, 0), left=x, height=0.6, color=PARTS[name], edgecolor=CARD, linewidth=0.6)
                x += parts.get(name, 0)
            say(ax, x, y, f"  {size(totals[way])}", "left center", INK, clip_on=False)
            say(ax, 0, y, f"{way}  ", "right center", INK, LABEL_SIZE, clip_on=False)
        ax.set_ylim(len(ways) - 0.5, -0.5)
        unit, word = _unit(top)
        ax.set_xlim(0, top * 1.02)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x / unit, 3)))
        step = next(s for s in (m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5)) if top / unit / s <= 6) * unit
        ax.xaxis.set_major_locator(FixedLocator(np.arange(0, top * 1.02, step)))
        ax.set_xlabel(f"{xlabel} ({word})")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        x = left
        for name in used:
            box = (x / card.width, (tall + 0.78) / card.height)
            swatch = Rectangle(box, 0.14 / card.width, 0.14 / card.height, facecolor=PARTS[name], transform=card.figure.transFigure)
            card.figure.add_artist(swatch)
            card.text(x + 0.2, tall + 0.85, name, size=SMALL_SIZE, va="center")
            x += 0.42 + text_width(name, SMALL_SIZE)
        told = " ".join(
            f"{way}: {size(totals[way])}, of it {', '.join(f'{name} {size(n)}' for name, n in parts.items() if n)}." for way, parts in ways.items()
        )
        return card.picture(f"{xlabel[:1].upper()}{xlabel[1:]}. {told}")


def _upper(words: str) -> str:
    return words if words[1:2].isupper() else words[:1].upper() + words[1:]  # dK stays dK


def _unit(top: float) -> tuple[int, str]:
    return next((u, w) for u, w in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes")) if top >= u or u == 1)


# ---------------------------------------------------------------- the gradient of the scores


def score_gradients(p, dp, ds, title: str | None = None) -> Picture:
    """P, dP and dS of a few queries and keys as maps of numbers, each row's sum beside it. All [queries, keys]."""
    maps = {name: np.asarray(x, dtype=float) for name, x in (("P", p), ("dP", dp), ("dS", ds))}
    shapes = {x.shape for x in maps.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2 or max(next(iter(shapes))) > 6:
        raise ValueError("score_gradients needs three matrices of one shape, at most 6 queries and 6 keys")
    rows, keys = maps["P"].shape
    largest = np.abs(maps["dS"].sum(axis=1)).max()
    if title is None:
        title = f"Every row of dS sums to 0 (to {number(largest, 1)}): what one score gains, the others lose"
    cell = min(0.4, 1.95 / keys)
    tall = rows * cell
    with Card(title, height=tall + 0.95) as card:
        ax = card.axes(0, 0, WIDTH, tall + 0.95, bare=True)
        for i, (name, values) in enumerate(maps.items()):
            left, top = 0.5 + i * (keys * cell + 0.78), max(np.abs(values).max(), 1e-12)
            say(ax, left + keys * cell / 2, tall + 0.85, name, "center top", INK, LABEL_SIZE, fontweight="bold")
            say(ax, left + keys * cell + 0.34, tall + 0.85, "sum", "center top", MUTED)
            for r in range(rows):
                y = 0.4 + (rows - 1 - r) * cell
                for j in range(keys):
                    x = values[r, j]
                    face = tint(K if x >= 0 else Q, 0.85 * abs(x) / top)
                    ax.add_patch(Rectangle((left + j * cell, y), cell, cell, facecolor=face, edgecolor=CARD, linewidth=1))
                    say(ax, left + (j + 0.5) * cell, y + cell / 2, _short(x), "center center", INK, 7)
                total = values[r].sum()
                say(ax, left + keys * cell + 0.34, y + cell / 2, _short(0.0 if abs(total) < 5e-3 else total), "center center", INK)
            say(ax, left + keys * cell / 2, 0.32, "keys", "center top", MUTED)
        say(ax, 0.32, 0.4 + tall / 2, "queries", "center center", MUTED, rotation=90)
        sums = {name: ", ".join(_short(0.0 if abs(t) < 5e-3 else t) for t in x.sum(axis=1)) for name, x in maps.items()}
        told = "; ".join(f"{name} {said}" for name, said in sums.items())
        return card.picture(f"Three maps of {rows} queries by {keys} keys: P, dP, dS. Sums of their rows: {told}. Orange is above 0, blue below.")


def _short(x: float) -> str:
    return f"{x:.2f}".replace("-", "\u2212") if abs(x) >= 5e-3 else "0"


# ---------------------------------------------------------------- errors of gradients


def gradient_errors(errors: Mapping[str, Mapping[str, float]], title: str | None = None) -> Picture:
    """Largest errors against float64 on a log axis: {way: {"dq": error, "dk": ..., "dv": ...}}, a row a way, a dot a gradient."""
    colours = {"dq": Q, "dk": K, "dv": V}
    if not errors or any(set(each) != set(colours) or min(each.values()) <= 0 for each in errors.values()):
        raise ValueError('gradient_errors needs at least one way, each {"dq": error, "dk": error, "dv": error}, all above 0')
    worst = {way: max(each.values()) for way, each in errors.items()}
    if title is None:
        title = "Largest error of a gradient: " + "; ".join(f"{way}: {number(e, 2)}" for way, e in worst.items())
    left = 0.45 + max(text_width(way, LABEL_SIZE) for way in errors)
    tall = 0.46 * len(errors)
    with Card(title, height=tall + 1.1) as card:
        ax = card.axes(left, 0.6, WIDTH - left - 0.5, tall)
        values = [e for each in errors.values() for e in each.values()]
        ax.set_xscale("log")
        ax.set_xlim(min(values) / 3, max(values) * 3)
        ax.set_ylim(len(errors) - 0.5, -0.5)
        ax.xaxis.set_major_locator(LogLocator(numticks=9))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(power_of_ten))
        ax.grid(axis="x")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("largest error against float64")
        for y, (way, each) in enumerate(errors.items()):
            say(ax, min(values) / 3, y, f"{way}  ", "right center", INK, LABEL_SIZE, clip_on=False)
            for up, (name, error) in zip((-0.22, 0.0, 0.22), each.items(), strict=True):
                ax.plot(error, y + up, "o", color=colours[name], markersize=6)
        x = left
        for name, colour in colours.items():
            card.text(x, tall + 0.85, f"\u25cf {name}", size=SMALL_SIZE, va="center", colour=word_colour(colour))
            x += 0.6
        told = " ".join(f"{way}: {', '.join(f'{name} {number(e, 2)}' for name, e in each.items())}." for way, each in errors.items())
        return card.picture(f"Largest errors of the gradients against float64, log axis. {told}")


# ---------------------------------------------------------------- memory along a step, losses


def over_a_step(traces: Mapping[str, Sequence[float]], title: str | None = None) -> Picture:
    """Bytes kept for the backward pass after each event (a tensor kept, a tensor let go): {way: [bytes, ...]}, one panel a way."""
    lines = {way: np.asarray(trace, dtype=float) for way, trace in traces.items()}
    if not lines or any(line.size < 2 or (line < 0).any() for line in lines.values()):
        raise ValueError("over_a_step needs at least two numbers of bytes for every way, none below 0")
    peaks = {way: line.max() for way, line in lines.items()}
    if title is None:
        title = "At the worst moment: " + ", ".join(f"{way} {size(peak)}" for way, peak in peaks.items())
    top, n = max(peaks.values()), len(lines)
    unit, word = _unit(top)
    each = (WIDTH - 1.15 - 0.25 * (n - 1)) / n
    with Card(title, height=2.75) as card:
        for i, (way, line) in enumerate(lines.items()):
            ax = card.axes(0.85 + i * (each + 0.25), 0.6, each, 1.75)
            ax.fill_between(np.arange(line.size), line, step="post", color=tint(MEMORY, 0.45), linewidth=0)
            ax.plot(np.arange(line.size), line, color=MEMORY, linewidth=1.4, drawstyle="steps-post")
            ax.set_ylim(0, top * 1.08)
            ax.set_xlim(0, line.size - 1)
            ax.yaxis.set_major_locator(FixedLocator(MaxNLocator(4).tick_values(0, top / unit) * unit))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _, left=not i: number(x / unit, 3) if left else ""))
            ax.xaxis.set_major_locator(NullLocator())
            ax.grid(axis="y")
            ax.set_xlabel("a step, from left to right")
            if not i:
                ax.set_ylabel(f"kept bytes ({word})")
            card.text(0.85 + i * (each + 0.25), 2.58, f"{way}: {size(peaks[way])}", size=LABEL_SIZE, va="center")
        told = " ".join(f"{way}: at most {size(peak)}, {size(lines[way][-1])} at the end." for way, peak in peaks.items())
        return card.picture(f"Bytes kept for the backward pass, along one training step. {told}")


def memory_powers(lengths: Sequence[int], peaks: Mapping[str, Sequence[float]], powers: Mapping[str, float], title: str | None = None) -> Picture:
    """Peaks of a training step in bytes over N, log axes, one line a way, labelled with the power of N it grows by."""
    n = np.asarray(lengths, dtype=float)
    lines = {way: np.asarray(values, dtype=float) for way, values in peaks.items()}
    if n.size < 2 or not lines or set(lines) != set(powers) or any(line.size != n.size or (line <= 0).any() for line in lines.values()):
        raise ValueError("memory_powers needs at least two lengths, a peak above 0 for each of them and every way, and a power for every way")
    if title is None:
        title = "The peak of a training step grows as N to the power of " + ", ".join(f"{p:.2f} ({way})" for way, p in powers.items())
    with Card(title, height=3.2) as card:
        ax = card.axes(0.95, 0.6, WIDTH - 3.2, 2.5)
        ends = []
        for way, line in lines.items():
            colour = OUTPUT if "flash" in way else INK if way == "naive" else MASKED
            ax.plot(n, line, color=colour, marker="o", clip_on=False)
            ends.append((n[-1], line[-1], f"{way}: N to the {powers[way]:.2f}", colour))
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=4)
        ax.set_xlim(n[0] / 1.1, n[-1])
        ax.xaxis.set_major_locator(FixedLocator(n))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x):,}"))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
        ax.grid(axis="y")
        ax.set_xlabel("N, queries and keys")
        ax.set_ylabel("peak of a training step")
        label_ends(ax, ends)
        told = " ".join(f"{way}: {size(line[0])} to {size(line[-1])}, N to the power {powers[way]:.2f}." for way, line in lines.items())
        return card.picture(f"Peak memory of a training step for N = {round(n[0]):,} to {round(n[-1]):,}. {told}")


def losses(curves: Mapping[str, Sequence[float]], title: str | None = None) -> Picture:
    """Training losses over steps, one line each: {name: [loss, ...]}. Names with "yours" or "flash" have the output's colour."""
    lines = {name: np.asarray(values, dtype=float) for name, values in curves.items()}
    if not lines or len({line.size for line in lines.values()}) != 1 or any(line.size < 2 or not np.isfinite(line).all() for line in lines.values()):
        raise ValueError("losses needs the same number of finite losses for every curve, at least two")
    steps = np.arange(1, next(iter(lines.values())).size + 1)
    if title is None:
        title = f"After {steps[-1]} steps: " + ", ".join(f"{name} {number(line[-1], 3)}" for name, line in lines.items())
    with Card(title, height=3.1) as card:
        ax = card.axes(0.85, 0.6, WIDTH - 3.1, 2.4)
        ends = []
        for i, (name, line) in enumerate(lines.items()):
            ours = any(word in name for word in ("yours", "flash"))
            colour = OUTPUT if ours else INK if i == 0 else MASKED
            style = {"linestyle": "none", "marker": "o", "markersize": 4} if ours else {"linewidth": 1.6}
            ax.plot(steps, line, color=colour, **style)
            ends.append((steps[-1], line[-1], name, colour))
        ax.set_ylim(0, None)
        ax.set_xlim(1, steps[-1])
        ax.grid(axis="y")
        ax.set_xlabel("training steps")
        ax.set_ylabel("loss (nats a token)")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        label_ends(ax, ends)
        told = " ".join(f"{name}: from {number(line[0], 3)} to {number(line[-1], 3)}." for name, line in lines.items())
        return card.picture(f"Loss over {steps[-1]} training steps. {told}")
