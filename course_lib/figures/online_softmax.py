"""The figures of chapter 03: a softmax computed tile by tile, what it reads, and how wrong it can be.

The arithmetic is in `rows`. Numbers come from the caller or from the data, never from here.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
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
    power_of_ten,
    rounded,
    say,
    size,
    times,
    tint,
    word_colour,
    wrapped,
)
from course_lib.figures.rows import exp_limits, merge_orders, padded, row, softmax_passes, walk, whole

Q, K, V, OUTPUT, MEMORY, MASKED = (COLOURS[name] for name in ("Q", "K", "V", "output", "memory", "masked"))
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


def merge_tree(scores, tile: int, dtype: str = "float32", title: str | None = None) -> Picture:
    """Three orders of merging the same tiles: the trees, the state each ends with, and its error against float64."""
    scores = row(scores)
    if dtype not in ("float16", "float32", "float64"):
        raise ValueError(f"merge_tree draws float16, float32 or float64, and {dtype!r} is none of them")
    leaves = -(-scores.size // whole(tile, "tile"))
    if not 2 <= leaves <= 6:
        raise ValueError(f"merge_tree draws 2 to 6 tiles; {scores.size} scores in tiles of {tile} make {leaves}")
    if scores.max() == -math.inf:
        raise ValueError("merge_tree: every score is hidden, so there is nothing to compare")
    exact = float(np.exp(scores - scores.max()).sum())
    orders = merge_orders(scores, tile, dtype)
    finals = {name: float(nodes[-1][2][1]) for name, nodes in orders.items()}
    spread = (max(finals.values()) - min(finals.values())) / exact
    title = title or f"Three orders of merging {leaves} tiles " + (
        f"agree to {number(spread, 2)} of the sum in {dtype}" if spread else f"end with the same sum, to the last bit of {dtype}"
    )
    with Card(title, height=3.45, note="Each box is a state: row_max above, row_sum below. Orange: one tile. Purple: tiles merged.") as card:
        ax = card.axes(0.25, 0, WIDTH - 0.5, 3.45, bare=True)
        panel = (WIDTH - 0.5) / 3
        for p, (name, nodes) in enumerate(orders.items()):
            _tree(ax, nodes, leaves, p * panel + 0.12, panel - 0.24)
            error = abs(finals[name] - exact) / exact
            middle = (p + 0.5) * panel
            say(ax, middle, 3.28, name, "center center", INK, LABEL_SIZE, fontweight="bold")
            say(ax, middle, 0.33, f"row_sum {number(finals[name], 7)}", "center center", word_colour(OUTPUT))
            say(ax, middle, 0.11, f"relative error {number(error, 2)}", "center center", MUTED)
            if p:
                ax.plot([p * panel] * 2, [0.05, 3.35], color=FAINT, linewidth=1)
        alt = f"Three trees over {leaves} tiles of {tile} scores. " + " ".join(
            f"Merged {name}: row_sum {number(finals[name], 7)}, relative error {number(abs(finals[name] - exact) / exact, 2)}." for name in finals
        )
        return card.picture(alt + f" In float64 it is {number(exact, 7)}.")


def _tree(ax, nodes, leaves: int, left: float, width: float) -> None:
    """One tree: leaves along the top, the result at the bottom."""
    depth = [0] * len(nodes)
    across = [left + (i + 0.5) * width / leaves for i in range(leaves)] + [0.0] * (len(nodes) - leaves)
    for i, (a, b, _) in enumerate(nodes):
        if a is not None:
            depth[i], across[i] = max(depth[a], depth[b]) + 1, (across[a] + across[b]) / 2
    tallest = max(depth)
    up = [2.88 - d * 2.12 / tallest for d in depth]
    half_width, half_height = min(0.31, width / leaves * 0.46), 0.19
    for i, (a, b, _) in enumerate(nodes):
        for child in (a, b) if a is not None else ():
            ax.plot([across[child], across[i]], [up[child] - half_height, up[i] + half_height], color=MUTED, linewidth=1.1, zorder=1)
    for i, (a, _, (top, total)) in enumerate(nodes):
        face = tint(K, 0.25) if a is None else tint(OUTPUT, 0.2 if i < len(nodes) - 1 else 0.42)
        rounded(
            ax,
            across[i] - half_width,
            up[i] - half_height,
            2 * half_width,
            2 * half_height,
            face,
            K if a is None else OUTPUT,
            radius=0.05,
            linewidth=0.8,
            zorder=2,
        )
        say(
            ax,
            across[i],
            up[i],
            f"{number(top)}\n{number(total, keep=True)}",
            "center center",
            INK,
            8 if leaves < 6 else 7,
            linespacing=1.15,
            zorder=3,
        )


def state_boxes(a: Sequence, b: Sequence, merged: Sequence | None = None, names: Sequence[str] = ("a", "b"), title: str | None = None) -> Picture:
    """Two states (row_max, row_sum, acc) and the one they merge into, with the two factors. `merged` draws somebody's answer instead."""
    a, b = _state(a, names[0]), _state(b, names[1])
    if a[2].size != b[2].size:
        raise ValueError(f"the two states have acc of {a[2].size} and {b[2].size} numbers; they must agree")
    top = max(a[0], b[0])
    shift = top if top > -math.inf else 0.0
    factors = math.exp(a[0] - shift), math.exp(b[0] - shift)
    right = (top, a[1] * factors[0] + b[1] * factors[1], a[2] * factors[0] + b[2] * factors[1])
    result = right if merged is None else _state(merged, "merged")
    title = title or (
        f"Counted from the larger maximum {number(top)}, the sums {number(a[1])} and {number(b[1])} make {number(result[1])}"
        if top > -math.inf
        else "Two empty states merge into the empty state"
    )
    with Card(title, height=2.45) as card:
        ax = card.axes(0.25, 0, WIDTH - 0.5, 2.45, bare=True)
        width, high = 2.35, 1.02
        draw_state(ax, 0.05, 1.33, width, high, names[0], _lines(a))
        draw_state(ax, 0.05, 0.12, width, high, names[1], _lines(b))
        draw_state(ax, WIDTH - 0.55 - width, 0.72, width, high, f"merge_states({names[0]}, {names[1]})", _lines(result), share=0.2)
        for y, target, factor, state in ((1.84, 1.4, factors[0], a), (0.63, 1.08, factors[1], b)):
            arrow(ax, (0.05 + width + 0.08, y), (WIDTH - 0.63 - width, target), OUTPUT)
            words = f"\u00d7 exp({number(state[0])} \u2212 {_bracket(top)}) = {number(factor)}" if top > -math.inf else "\u00d7 1 of nothing"
            ax.text(
                (WIDTH - 0.58) / 2,
                (y + target) / 2 + (0.17 if y > 1 else -0.17),
                words,
                ha="center",
                va="bottom" if y > 1 else "top",
                fontsize=SMALL_SIZE,
                color=word_colour(OUTPUT),
            )
        told = [f"row_max {number(s[0])}, row_sum {number(s[1])}, acc {_vector(s[2])}" for s in (a, b, result)]
        return card.picture(
            f"State {names[0]}: {told[0]}, scaled by {number(factors[0])}. State {names[1]}: {told[1]}, scaled by {number(factors[1])}. "
            f"Merged: {told[2]}."
        )


def _state(state: Sequence, name: str) -> tuple[float, float, np.ndarray]:
    """(row_max, row_sum, acc) of one row as numbers."""
    try:
        row_max, row_sum, acc = state
        top, total = (float(np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, dtype=float).reshape(())) for x in (row_max, row_sum))
        acc = np.atleast_1d(np.asarray(acc.detach().cpu() if hasattr(acc, "detach") else acc, dtype=float))
    except (TypeError, ValueError) as problem:
        raise ValueError(f"state {name} must be (row_max, row_sum, acc) of one row: two numbers and a short list") from problem
    if acc.ndim != 1 or not 1 <= acc.size <= 4:
        raise ValueError(f"state {name}: acc must be a list of 1 to 4 numbers, and its shape is {list(acc.shape)}")
    return top, total, acc


def _bracket(x: float) -> str:
    return f"({number(x)})" if x < 0 else number(x)


def _vector(values: np.ndarray) -> str:
    return "[" + ", ".join(number(x) for x in values) + "]"


def _lines(state) -> tuple[str, str, str]:
    return number(state[0]), number(state[1]), _vector(state[2])


def draw_state(ax, x: float, y: float, width: float, height: float, name: str, lines: Sequence[str], share: float = 0.07) -> None:
    """One state as a box under its name; `lines` are row_max, row_sum and acc as words. The axes are bare: inches."""
    rounded(ax, x, y, width, height, tint(OUTPUT, share), OUTPUT, linewidth=1.2)
    say(ax, x + 0.12, y + height - 0.17, name, "left center", word_colour(OUTPUT), fontweight="bold")
    for i, (label, words) in enumerate(zip(("row_max", "row_sum", "acc"), lines, strict=True)):
        at = y + height - 0.4 - i * (height - 0.42) / 2.55
        say(ax, x + 0.12, at, label, "left center", MUTED)
        say(ax, x + width - 0.12, at, words, "right center", INK, LABEL_SIZE)


def error_vs_float64(
    lengths: Sequence[int], errors: Mapping[str, Sequence[float]], title: str | None = None, ylabel: str = "largest error against float64"
) -> Picture:
    """Errors over the row's length, one line each, log axes. nan and inf are drawn at the top edge; an exact 0 at the bottom edge."""
    n = row(lengths, "lengths")
    if (n <= 0).any() or not errors:
        raise ValueError("error_vs_float64 needs lengths above 0 and at least one line of errors")
    lines = {name: np.asarray([float(e) for e in values], dtype=float) for name, values in errors.items()}
    for name, values in lines.items():
        if values.size != n.size or (values < 0).any():
            raise ValueError(f"errors of {name!r}: {n.size} numbers of at least 0 are needed, one a length; there are {values.size}")
    known = np.concatenate([v[np.isfinite(v) & (v > 0)] for v in lines.values()])
    low, high = (known.min() / 4, known.max() * 4) if known.size else (1e-9, 1.0)
    broken = {name: bool((~np.isfinite(v)).any()) for name, v in lines.items()}
    last = {name: v[-1] for name, v in lines.items() if np.isfinite(v[-1]) and v[-1] > 0}
    if title is None and len(last) > 1:
        worst, best = max(last, key=last.get), min(last, key=last.get)
        title = f"At {int(n[-1]):,} scores a row, {worst} is {number(last[worst] / last[best], 2)} times as wrong as {best}"
    if any(broken.values()):
        high *= 8
    with Card(title or "Errors against float64", height=3.35) as card:
        ax = card.axes(0.95, 0.6, WIDTH - 3.05, 2.65)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xlim(n.min() / 1.15, n.max())
        ax.set_ylim(low, high)
        ax.set_xlabel("scores in a row")
        ax.set_ylabel(ylabel)
        ax.grid(axis="y")
        ax.yaxis.set_major_locator(LogLocator(numticks=7))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(power_of_ten))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(n if n.size <= 8 else n[:: -(-n.size // 8)])
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x):,}"))
        looks = _looks(list(lines))
        ends = []
        for name, values in lines.items():
            colour, dash, marker = looks[name]
            drawn = np.where(np.isfinite(values), np.maximum(values, low * 1.3), high / 1.6)
            lost = ~np.isfinite(values)
            ax.plot(n, drawn, color=colour, linestyle=dash, zorder=3)
            ax.plot(n[~lost], drawn[~lost], color=colour, linestyle="none", marker=marker, markersize=4.5, zorder=3, clip_on=False)
            ax.plot(n[lost], drawn[lost], linestyle="none", marker="X", markersize=8, color=colour, zorder=4, clip_on=False)
            words = name if np.isfinite(values[-1]) else f"{name}: {'inf' if np.isinf(values[-1]) else 'nan'}"
            ends.append((n[-1], drawn[-1], words, colour))
        label_ends(ax, ends)
        alt = f"{ylabel.capitalize()}, for rows of {int(n[0]):,} to {int(n[-1]):,} scores. " + " ".join(
            f"{name} ends at {number(v[-1], 2)}." for name, v in lines.items()
        )
        return card.picture(alt)


def _looks(names: Sequence[str]) -> dict[str, tuple[str, object, str]]:
    """Colour, dash and marker for lines that are ways of computing: shape tells them apart, so colours keep their one meaning."""
    kinds = [
        (OUTPUT, "-", "o"),
        (INK, (0, (4, 2)), "s"),
        (MUTED, (0, (1.2, 1.6)), "^"),
        (OUTPUT, (0, (1.2, 1.6)), "D"),
        (INK, "-", "v"),
        (MUTED, "-", "P"),
    ]
    return {name: kinds[i % len(kinds)] for i, name in enumerate(names)}


def tiled_attention_map(
    n_q: int, n_kv: int, tile: int, tile_q: int | None = None, current: int | None = None, bytes_each: int = 4, title: str | None = None
) -> Picture:
    """The score matrix, of which one tile exists at a time; beside it, the memory of the whole and of the tile.

    tile: keys a tile; tile_q: queries a tile, None means all of them (chapter 03's loop); current: which tile is in hand.
    """
    n_q, n_kv, tile, bytes_each = whole(n_q, "n_q"), whole(n_kv, "n_kv"), min(whole(tile, "tile"), n_kv), whole(bytes_each, "bytes_each")
    tile_q = n_q if tile_q is None else min(whole(tile_q, "tile_q"), n_q)
    down, across = -(-n_q // tile_q), -(-n_kv // tile)
    current = (down // 2) * across + across // 2 if current is None else whole(current, "current", least=0)
    if current >= down * across:
        raise ValueError(f"current is {current}, and there are {down * across} tiles (0 to {down * across - 1})")
    full, part = n_q * n_kv * bytes_each, tile_q * tile * bytes_each
    title = title or f"The full score matrix takes {size(full)}; a tile of {tile} keys takes {size(part)}: {number(full / part)} times less"
    with Card(title, height=3.15, note=f"One head, {bytes_each} bytes a score.") as card:
        side = 2.5
        wide, tall = side * min(1.4, max(0.55, n_kv / n_q)), side * min(1.0, max(0.4, n_q / n_kv * (1 if n_kv <= n_q * 1.4 else 1.4)))
        ax = card.axes(0.7, 0.3, wide + 0.35, side + 0.5, bare=True)
        base = side - tall
        rows_drawn, columns_drawn = min(down, 16), min(across, 16)
        i, j = current // across, current % across
        i, j = min(rows_drawn - 1, i * rows_drawn // down), min(columns_drawn - 1, j * columns_drawn // across)
        for r in range(rows_drawn):
            for c in range(columns_drawn):
                here, done = (r, c) == (i, j), (r, c) < (i, j) if tile_q < n_q else c < j
                x, y = c * wide / columns_drawn, base + (rows_drawn - 1 - r) * tall / rows_drawn
                face = K if here else tint(OUTPUT, 0.16) if done else CARD
                edge = K if here else MASKED
                ax.add_patch(_cell(x, y, wide / columns_drawn, tall / rows_drawn, face, edge, 1.4 if here else 0.5, 3 if here else 2))
        say(
            ax,
            wide / 2,
            side + 0.14,
            f"{n_kv:,} keys, {many(across, 'tile')}" + (" (16 drawn)" if across > 16 else ""),
            "center bottom",
            word_colour(K),
        )
        say(ax, -0.14, base + tall / 2, f"{n_q:,} queries", "right center", word_colour(Q), rotation=90)
        left = wide + 1.55
        for k, (colour, edge, meaning) in enumerate(
            ((K, K, "the tile that exists now"), (tint(OUTPUT, 0.16), MASKED, "already in the state, gone"), (CARD, MASKED, "not computed yet"))
        ):
            y = 0.3 + side - 0.12 - k * 0.3
            mark = card.axes(left, y - 0.08, 0.16, 0.16, bare=True)
            mark.add_patch(_cell(0, 0, 0.16, 0.16, colour, edge, 1.0, 2))
            card.text(left + 0.27, y, meaning, size=SMALL_SIZE, va="center")
        bars = card.axes(left, 0.62, WIDTH - left - 0.95, 1.05)
        bars.set_xscale("log", base=2)
        bars.set_xlim(max(1, part / 8), full * 1.1)
        for lane, (name, count, face) in enumerate((("tile", part, K), ("all of S", full, MEMORY))):
            bars.barh(lane, count, height=0.5, color=face)
            say(bars, count, lane, f" {size(count)}", "left center", INK, clip_on=False)
            say(bars, 0.0, lane + 0.28, name, "left bottom", MUTED, transform=bars.get_yaxis_transform())
        bars.set_ylim(-0.4, 1.75)
        bars.set_yticks([])
        bars.spines["left"].set_visible(False)
        bars.xaxis.set_major_locator(LogLocator(base=2, numticks=5 if wide < 2.6 else 4))
        bars.xaxis.set_minor_locator(NullLocator())
        bars.xaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
        bars.set_xlabel("memory for scores (log scale)")
        return card.picture(
            f"A score matrix of {n_q:,} queries by {n_kv:,} keys in {many(down * across, 'tile')}; one exists at a time. "
            f"The whole takes {size(full)}, a tile {size(part)}: {number(full / part)} times less."
        )


def _cell(x, y, width, height, face, edge, line, order):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=face, edgecolor=edge, linewidth=line, zorder=order, clip_on=False)


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
        ax.set_yscale("log")
        ax.set_ylim(low, high)
        ax.set_xlim(0.7, tiles[-1])
        ax.set_xlabel("tiles of keys read")
        ax.set_ylabel("largest error against float64")
        ax.grid(axis="y")
        ax.set_xticks(tiles if tiles.size <= 16 else tiles[:: -(-tiles.size // 16)])
        ax.yaxis.set_major_locator(LogLocator(numticks=7))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(power_of_ten))
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


def peak_memory(lengths: Sequence[int], peaks: Mapping[str, Sequence[float]], title: str | None = None) -> Picture:
    """Peak memory over the row's length, one line a way of computing, log axes. peaks in MiB: {name: [one number a length]}."""
    (first, most), *others = sorted(((name, list(values)) for name, values in peaks.items()), key=lambda item: -item[1][-1])
    if title is None and others:
        last, least = others[-1]
        title = f"At N = {lengths[-1]:,} the {first} way allocates {number(most[-1] / least[-1], 2)} times what the {last} way does"
    return error_vs_float64(lengths, peaks, title=title, ylabel="peak of what one call allocates (MiB)")
