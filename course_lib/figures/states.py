"""Figures of softmax states: two that merge, and trees of merges. `draw_state` is the box that stands for one.

The arithmetic is in `rows`. Numbers come from the caller or from the data, never from here.
"""

import math
from collections.abc import Sequence

import numpy as np

from course_lib.figures.core import (
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
    number,
    rounded,
    say,
    tint,
    word_colour,
)
from course_lib.figures.rows import merge_orders, row, whole

K, OUTPUT = (COLOURS[name] for name in ("K", "output"))


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
