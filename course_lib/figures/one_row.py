"""Figures of one row of scores: walked tile by tile, past the limits of exp, moved through memory, rescaled.

The arithmetic is in `rows`. Numbers come from the caller or from the data, never from here.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter

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
    many,
    number,
    say,
    times,
    tint,
    word_colour,
    wrapped,
)
from course_lib.figures.rows import exp_limits, padded, row, softmax_passes, walk

K, OUTPUT, MEMORY, MASKED = (COLOURS[name] for name in ("K", "output", "memory", "masked"))
MOST_SCORES = 48  # more would not be readable one by one


def tile_walk(scores, tile: int, title: str | None = None) -> Picture:
    """A row of scores cut in tiles; under it row_sum after every tile: what was kept of the old sum, and what the tile added."""
    scores = row(scores, most=MOST_SCORES)
    steps = walk(scores, tile)
    rises = [i for i, step in enumerate(steps) if i and step.new_max > step.old_max > -math.inf]
    title = title or (
        f"One pass over {many(scores.size, 'score')}: the maximum rose {times(len(rises))} after the first tile, "
        f"and {'each time' if len(rises) != 1 else 'then'} one multiplication put the old sum right"
        if rises
        else f"One pass over {many(scores.size, 'score')}: no tile after the first raised the maximum, so nothing had to be rescaled"
    )
    place = np.arange(scores.size) + 0.5 * (np.arange(scores.size) // tile)  # a gap between tiles
    seen = scores[scores > -math.inf]
    low, high = (min(0.0, seen.min()), max(0.0, seen.max())) if seen.size else (0.0, 1.0)
    span = (high - low) or 1.0
    with Card(title, height=4.35) as card:
        top, below = card.axes(0.85, 2.4, WIDTH - 2.15, 1.9), card.axes(0.85, 0.35, WIDTH - 2.15, 1.55)
        largest = max(step.new_sum for step in steps) or 1.0
        for ax in (top, below):
            ax.set_xlim(-0.9, place[-1] + 0.9)
            ax.set_xticks([])
            ax.spines["bottom"].set_visible(False)
        top.set_ylim(low - 0.06 * span, high + 0.2 * span)
        below.set_ylim(0, largest * 1.32)
        top.set_ylabel("score")
        below.set_ylabel("row_sum")
        for i, step in enumerate(steps):
            left, right = place[step.start] - 0.62, place[step.stop - 1] + 0.62
            for ax in (top, below):
                ax.axvspan(left, right, color=tint(MASKED, 0.13), zorder=0, linewidth=0)
            say(below, (left + right) / 2, -0.07, f"tile {i + 1}", "center top", MUTED, transform=below.get_xaxis_transform())
            if step.new_max > -math.inf:
                top.plot([left, right], [step.new_max] * 2, color=OUTPUT, solid_capstyle="butt", zorder=4)
                if i and step.old_max > -math.inf and step.new_max > step.old_max:
                    top.plot([left, left], [step.old_max, step.new_max], color=OUTPUT, linewidth=1, linestyle=(0, (2, 1.5)), zorder=4)
            kept = step.old_sum * step.factor
            middle, half = (left + right) / 2, (right - left) * 0.3
            below.bar(middle, kept, width=2 * half, color=tint(OUTPUT, 0.45), zorder=3)
            below.bar(middle, step.added_sum, bottom=kept, width=2 * half, color=K, zorder=3)
            say(below, middle, step.new_sum + largest * 0.05, number(step.new_sum, keep=True), "center bottom", INK)
            if i in rises:
                gap = (place[steps[i - 1].stop - 1] + place[step.start]) / 2
                say(
                    below,
                    gap,
                    1.15,
                    f"old sum \u00d7 {number(step.factor, keep=True)}",
                    "center center",
                    word_colour(OUTPUT),
                    transform=below.get_xaxis_transform(),
                )
                below.plot(
                    [gap, gap], [0, 1.06], transform=below.get_xaxis_transform(), color=OUTPUT, linewidth=1, linestyle=(0, (2, 1.5)), clip_on=False
                )
        hidden = scores == -math.inf
        top.bar(place[~hidden], scores[~hidden], width=0.78, color=K, zorder=3)
        top.bar(
            place[hidden],
            [high - low] * int(hidden.sum()),
            bottom=low,
            width=0.78,
            facecolor="none",
            edgecolor=MASKED,
            hatch="////",
            linewidth=0.8,
            zorder=3,
        )
        for first, last_hidden in _runs(hidden):
            middle = (place[first] + place[last_hidden]) / 2
            words = {"rotation": 90} if last_hidden - first < 2 else {}
            say(top, middle, (low + high) / 2, "hidden", "center center", word_colour(MASKED), zorder=6, **words).set_bbox(
                {"facecolor": tint(MASKED, 0.13), "edgecolor": "none", "pad": 1.5}
            )
        top.axhline(0, color=MUTED, linewidth=0.8, zorder=5)
        last = steps[-1]
        ends = [(place[-1] + 0.62, last.new_max, f"row_max {number(last.new_max)}", OUTPUT)] if seen.size else []
        label_ends(top, ends)
        kept, bar_end = last.old_sum * last.factor, place[-1] + 0.62
        marks = [(bar_end, kept + last.added_sum / 2, "this tile's terms", K)]
        marks += [(bar_end, kept / 2, "kept, rescaled", OUTPUT)] if kept > 0 else []
        label_ends(below, marks, gap=0.2)
        alt = (
            f"{scores.size} scores in {many(len(steps), 'tile')} of {tile}. row_max after each tile: {', '.join(number(s.new_max) for s in steps)}. "
            f"row_sum after each tile: {', '.join(number(s.new_sum) for s in steps)}. "
            + (
                "The old sum is multiplied by " + ", ".join(f"{number(steps[i].factor)} at tile {i + 1}" for i in rises) + "."
                if rises
                else "No tile after the first raises the maximum."
            )
        )
        return card.picture(alt)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def overflow_cliff(scores=None, dtypes: Sequence[str] = ("float16", "bfloat16", "float32"), title: str | None = None) -> Picture:
    """Where exp overflows and where it rounds to 0, by dtype; with `scores`, where they lie before and after their maximum is subtracted."""
    limits = {dtype: exp_limits(dtype) for dtype in dtypes}
    if not limits:
        raise ValueError("overflow_cliff needs at least one dtype")
    first = min(limits, key=lambda name: limits[name][0])
    rows = []
    if scores is not None:
        scores = row(scores)
        scores = scores[scores > -math.inf]
        rows = [("scores", scores), ("scores \u2212 maximum", scores - scores.max())] if scores.size else []
    past = int((rows[0][1] > limits[first][0]).sum()) if rows else 0
    finding = "; ".join(f"above {number(high)} in {dtype}" for dtype, (high, _) in limits.items())
    title = title or (
        f"{past} of {rows[0][1].size} scores are past {number(limits[first][0])}, where exp overflows in {first}; minus their maximum, none is"
        if rows
        else f"exp overflows {finding}"
    )
    reach = [x for pair in limits.values() for x in pair] + [float(f(values)) for _, values in rows for f in (np.min, np.max)]
    low, high = min(reach) * 1.12, max(reach) * 1.16
    lanes = len(rows) + len(limits)
    with Card(title, height=0.5 * lanes + 0.68) as card:
        ax = card.axes(1.75, 0.6, WIDTH - 2.05, 0.5 * lanes)
        ax.set_xlim(low, high)
        ax.set_ylim(-0.6, lanes - 0.45)
        ax.set_xlabel("x, the number given to exp")
        names = []
        for lane, (dtype, (top, bottom)) in enumerate(reversed(limits.items())):
            names.append(dtype)
            ax.barh(lane, bottom - low, left=low, height=0.56, facecolor=tint(MASKED, 0.18), edgecolor=tint(MASKED, 0.8), hatch="////", linewidth=0)
            ax.barh(lane, top - bottom, left=bottom, height=0.56, color=tint(OUTPUT, 0.22))
            ax.barh(lane, high - top, left=top, height=0.56, color=INK)
            inches = (WIDTH - 2.05) / (high - low)
            say(ax, top + 0.08 / inches, lane, f"inf above {number(top)}" if (high - top) * inches > 1.25 else "inf", "left center", CARD)
            if (high - top) * inches <= 1.25:
                say(ax, top - 0.08 / inches, lane, f"finite up to {number(top)}", "right center", INK)
            words = f"0 below {number(bottom)}"
            label = ax.text(
                bottom - 0.08 / inches if (bottom - low) * inches > 1.25 else bottom + 0.08 / inches,
                lane,
                words,
                va="center",
                fontsize=SMALL_SIZE,
                color=INK,
            )
            label.set_ha("right" if (bottom - low) * inches > 1.25 else "left")
            if label.get_ha() == "right":
                label.set_bbox({"facecolor": CARD, "edgecolor": "none", "pad": 1.5})
        for lane, (name, values) in enumerate(reversed(rows), start=len(limits)):
            names.append(name)
            ax.plot(values, np.full(values.size, lane), linestyle="none", marker="|", markersize=15, markeredgewidth=1.3, color=K)
        ax.axvline(0, color=MUTED, linewidth=0.8)
        ax.set_yticks(range(lanes), names)
        ax.tick_params(axis="y", length=0, labelsize=LABEL_SIZE)
        ax.spines["left"].set_visible(False)
        alt = "Where exp leaves the numbers that a dtype can hold. " + " ".join(
            f"{dtype}: infinite above {number(top)}, 0 below {number(bottom)}." for dtype, (top, bottom) in limits.items()
        )
        if rows:
            own = rows[0][1]
            alt += f" The scores run from {number(own.min())} to {number(own.max())}; {past} of {own.size} overflow in {first}."
            alt += " Minus their maximum they end at 0."
        return card.picture(alt)


def passes(moves: Mapping[str, Sequence[tuple[str, str, int]]] | int, title: str | None = None) -> Picture:
    """How often each way moves a row through slow memory: one lane each, reads and writes in order. `moves` as `softmax_passes(n)`, or n."""
    moves = softmax_passes(moves) if isinstance(moves, int | np.integer) and not isinstance(moves, bool) else moves
    if not isinstance(moves, Mapping) or not moves or any(kind not in ("read", "write") for lane in moves.values() for kind, _, _ in lane):
        raise ValueError('passes takes {algorithm: [("read" or "write", what for, elements), ...]}, as softmax_passes(4096) returns it')
    reads = {name: sum(count for kind, _, count in lane if kind == "read") for name, lane in moves.items()}
    totals = {name: sum(count for _, _, count in lane) for name, lane in moves.items()}
    unit = min(count for lane in moves.values() for _, _, count in lane if count > 0)
    told = ", ".join(f"{name}{' reads each score' if i == 0 else ''} {times(reads[name] / unit)}" for i, name in enumerate(moves))
    title = title or told[0].upper() + told[1:]
    most = max(totals.values())
    with Card(title, height=0.78 * len(moves) + 0.68) as card:
        ax = card.axes(1.55, 0.6, WIDTH - 2.85, 0.78 * len(moves))
        ax.set_xlim(0, most)
        ax.set_ylim(-0.55, len(moves) - 0.45)
        ax.set_xlabel(f"elements moved, for a row of {unit:,} scores")
        for lane, (name, parts) in enumerate(reversed(moves.items())):
            at = 0
            for kind, what, count in parts:
                face = tint(K, 0.25) if kind == "read" else OUTPUT
                ax.barh(lane, count, left=at, height=0.74, color=face, edgecolor=CARD, linewidth=2)
                lines = "\n".join([f"{kind}:", *wrapped(what, SMALL_SIZE, (WIDTH - 2.85) * count / most - 0.1)])
                say(ax, at + count / 2, lane, lines, "center center", INK if kind == "read" else CARD, linespacing=1.3)
                at += count
            written = totals[name] - reads[name]
            label_ends(ax, [(at, lane, f"{reads[name]:,} read" + (f"\n{written:,} written" if written else ""), MEMORY)])
        ax.set_yticks(range(len(moves)), list(reversed(moves)))
        ax.set_xticks([unit * i for i in range(round(most / unit) + 1)])
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x):,}"))
        ax.tick_params(axis="y", length=0, labelsize=LABEL_SIZE)
        ax.spines["left"].set_visible(False)
        alt = f"Elements moved for a row of {unit:,} scores. " + " ".join(
            f"{name}: {', '.join(f'{kind} for {what}' for kind, what, _ in parts)}; {reads[name]:,} read, {totals[name] - reads[name]:,} written."
            for name, parts in moves.items()
        )
        return card.picture(alt)


def rescaling(old, new, title: str | None = None) -> Picture:
    """One step in three stacked bars: the old sum, the same sum counted from the new maximum, and with the new terms on top."""
    old, new = row(old, "old", most=16), row(new, "new", most=16)
    if old.max() == -math.inf or new.max() == -math.inf:
        raise ValueError("rescaling draws a step between two tiles that each hold a score; one of these is all -inf")
    step = walk(np.concatenate([padded(old, max(old.size, new.size)), new]), max(old.size, new.size))[1]
    before, after, added = np.exp(old - step.old_max), np.exp(old - step.new_max), np.exp(new - step.new_max)
    direct = float(np.exp(np.concatenate([old, new]) - step.new_max).sum())
    title = title or (
        f"The maximum rises from {number(step.old_max)} to {number(step.new_max)}: "
        f"the old sum times {number(step.factor)}, plus the new terms, is the sum over all"
        if step.new_max > step.old_max
        else f"The maximum stays at {number(step.old_max)}: the old sum keeps its scale, and the new terms are added"
    )
    with Card(title, height=3.4) as card:
        ax = card.axes(0.85, 0.55, WIDTH - 1.25, 2.75)
        most = max(before.sum(), step.new_sum, direct)
        ax.set_xlim(-0.55, 3.62)
        ax.set_ylim(0, most * 1.16)
        ax.set_ylabel("sum of exp(score \u2212 maximum)")
        stacks = [
            (0, [(before, tint(OUTPUT, 0.45))], f"old sum,\ncounted from {number(step.old_max)}"),
            (1, [(after, tint(OUTPUT, 0.45))], f"the same,\ncounted from {number(step.new_max)}"),
            (2, [(after, tint(OUTPUT, 0.45)), (added, K)], "plus the terms\nof the new tile"),
            (3.1, [(np.exp(np.concatenate([old, new]) - step.new_max), tint(MASKED, 0.45))], "all scores at once,\nfor comparison"),
        ]
        for x, parts, _ in stacks:
            at = 0.0
            for terms, face in parts:
                for term in terms:
                    ax.bar(x, term, bottom=at, width=0.52, color=face, edgecolor=CARD, linewidth=1)
                    at += term
            say(ax, x, at + most * 0.025, number(at, 4, keep=True), "center bottom", INK, LABEL_SIZE)
        arrow(ax, (0.31, float(before.sum()) / 2), (0.69, float(after.sum()) / 2), OUTPUT)
        say(
            ax,
            0.54,
            float(before.sum() + after.sum()) / 4 + most * 0.01,
            f"\u00d7 {number(step.factor)}",
            "left bottom",
            word_colour(OUTPUT),
            LABEL_SIZE,
        )
        arrow(ax, (1.31, float(after.sum()) / 2), (1.69, float(after.sum()) / 2), OUTPUT)
        say(ax, 1.5, float(after.sum()) / 2 + most * 0.03, f"+ {number(added.sum(), 4, keep=True)}", "center bottom", word_colour(K), LABEL_SIZE)
        say(ax, 2.55, most * 0.4, "=", "center center", MUTED, 16)
        ax.set_xticks([x for x, _, _ in stacks], [words for _, _, words in stacks])
        ax.tick_params(axis="x", length=0)
        return card.picture(
            f"Stacked bars. The old sum {number(before.sum(), 4)}, counted from {number(step.old_max)}, becomes {number(after.sum(), 4)} "
            f"when multiplied by {number(step.factor)}. "
            f"With the new tile's {number(added.sum(), 4)} it is {number(step.new_sum, 4)}; all scores at once give {number(direct, 4)}."
        )
