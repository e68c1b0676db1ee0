"""The stepper of chapter 03: feed a row of scores to the online softmax one tile at a time and watch its state."""

import math
from collections.abc import Sequence

import numpy as np

from course_lib.figures.core import (
    CARD,
    COLOURS,
    INK,
    LABEL_SIZE,
    MUTED,
    SMALL_SIZE,
    WIDTH,
    Picture,
    arrow,
    many,
    number,
    rounded,
    say,
    text_width,
    tint,
    word_colour,
)
from course_lib.figures.core import Card as Drawing
from course_lib.figures.online_softmax import draw_state
from course_lib.figures.rows import Step, row, walk, whole
from course_lib.widgets.shell import Shell, controls_available, without_controls

HIDDEN = -math.inf
PRESETS = {
    "rising": (-1.0, 0.2, -0.4, 0.5, 0.8, 0.3, 1.2, 0.9, 1.6, 2.1, 1.4, 1.9, 2.4, 3.0, 2.2, 2.7),
    "hot last key": (0.4, -0.3, 1.1, 0.0, 0.7, -0.8, 0.2, 0.9, -0.1, 0.6, 1.0, -0.5, 0.3, 0.8, -0.2, 9.0),
    "masked start": (HIDDEN,) * 5 + (0.7, 1.3, -0.2, 0.4, 1.8, 0.1, -0.6, 2.2, 0.9, 1.5, 0.3),
    "random": (0.6, -1.2, 2.3, 0.1, -0.7, 1.4, 0.8, -0.3, 1.9, 0.2, -1.6, 2.9, 0.5, 1.1, -0.4, 1.7),
}
VALUES = (2.0, 1.0, 4.0, 3.0, 0.0, 5.0, 2.0, 1.0, 3.0, 4.0, 1.0, 2.0, 5.0, 0.0, 3.0, 1.0)
TILES = (1, 2, 4, 8, 16)
MOST = 24


def state(scores: str | Sequence[float] = "rising", tile: int = 4, step: int = 2, values: Sequence[float] | None = None) -> Picture:
    """The picture after `step` tiles. scores: a preset's name or a row of numbers; values: one number a key, for acc."""
    scores, values = _given(scores, values)
    steps = walk(scores, tile, values)
    step = whole(step, "step", least=0)
    if step > len(steps):
        raise ValueError(f"step is {step}, and {scores.size} scores in tiles of {tile} make {many(len(steps), 'step')}")
    now = steps[step - 1] if step else None
    title, words = _said(steps, step)
    with Drawing(title, height=3.42) as card:
        _cells(card, scores, values, tile, now)
        ax = card.axes(0.25, 0, WIDTH - 0.5, 1.98, bare=True)
        _boxes(ax, now)
        card.paragraph(0.25, 0.5, words, WIDTH - 0.5, colour=INK)
        shown = steps[step - 1] if step else None
        final = f" State: row_max {number(shown.new_max)}, row_sum {number(shown.new_sum)}, acc {number(shown.new_acc)}." if shown else ""
        return card.picture(f"Step {step} of {len(steps)}. {title}. {words}{final}")


def stepper(scores: str | Sequence[float] | None = None, tile: int = 4, step: int = 2, values: Sequence[float] | None = None):
    """The same picture with controls: step, tile width, row of scores. `scores`: a preset's name, or your own row."""
    rows = {name: (preset, VALUES) for name, preset in PRESETS.items()}
    chosen = scores if isinstance(scores, str) else "rising"
    if scores is not None and not isinstance(scores, str):
        own, own_values = _given(scores, values)
        rows, chosen = {"your row": (tuple(own), tuple(own_values)), **rows}, "your row"
    first = state(rows[_known(rows, chosen)][0], tile, step, rows[chosen][1])
    if not controls_available():
        return without_controls(first)
    return _shell(rows, chosen, whole(tile, "tile"), step)


def _shell(rows: dict, chosen: str, tile: int, step: int) -> Shell:
    import ipywidgets as widgets

    def count(name: str, width: int) -> int:
        return -(-len(rows[name][0]) // width)

    def draw(preset: str, tile: int, step: int) -> Picture:
        return state(rows[preset][0], tile, min(step, count(preset, tile)), rows[preset][1])

    style = {"description_width": "initial"}
    preset_box = widgets.Dropdown(options=list(rows), value=chosen, description="Scores", style=style, layout=widgets.Layout(width="220px"))
    tile_box = widgets.Dropdown(
        options=sorted({*TILES, tile}), value=tile, description="Tile width", style=style, layout=widgets.Layout(width="150px")
    )
    slider = widgets.IntSlider(
        value=step, min=0, max=count(chosen, tile), description="Tiles read", style=style, layout=widgets.Layout(width="380px")
    )
    back = widgets.Button(description="Back", tooltip="Give the last tile back", layout=widgets.Layout(width="80px"))
    forward = widgets.Button(description="Next", tooltip="Read the next tile", layout=widgets.Layout(width="80px"))
    for control, name in ((slider, "k-step"), (tile_box, "k-tile"), (preset_box, "k-preset"), (back, "k-back"), (forward, "k-next")):
        control.add_class(name)
    shell = Shell(draw, {"preset": preset_box, "tile": tile_box, "step": slider}, [[preset_box, tile_box], [slider, back, forward]])

    def new_row(_) -> None:
        slider.max = count(preset_box.value, tile_box.value)
        ends()

    def ends(*_) -> None:
        back.disabled, forward.disabled = slider.value == 0, slider.value == slider.max

    def move(by: int) -> None:
        slider.value = min(slider.max, max(0, slider.value + by))

    for box in (preset_box, tile_box):
        box.observe(new_row, names="value")
    slider.observe(ends, names="value")
    back.on_click(lambda _: move(-1))
    forward.on_click(lambda _: move(+1))
    ends()
    return shell


def _known(rows: dict, name: str) -> str:
    if name not in rows:
        raise ValueError(f"there is no row called {name!r}; choose one of {', '.join(rows)}, or give a list of scores")
    return name


def _given(scores, values) -> tuple[np.ndarray, np.ndarray]:
    """The row and its values as arrays: a preset's, or the caller's."""
    if isinstance(scores, str):
        scores = PRESETS[_known(PRESETS, scores)]
    scores = row(scores, most=MOST)
    return scores, row(np.resize(VALUES, scores.size) if values is None else values, "values")


def _said(steps: list[Step], step: int) -> tuple[str, str]:
    """(title, explanation) of one state."""
    if step == 0:
        return (
            "Nothing read yet: row_max is \u2212inf, row_sum and acc are 0",
            "The first tile replaces the empty state: what was counted so far is multiplied by exp(\u2212inf) = 0, and 0 times 0 is 0.",
        )
    now = steps[step - 1]
    if now.new_max == HIDDEN:
        title = f"Tile {step} is hidden: the state stays empty"
        words = (
            "Every key so far is hidden. Subtracting \u2212inf from \u2212inf would give nan, so an empty row subtracts 0 instead and adds nothing."
        )
    elif now.old_max == HIDDEN:
        title = f"Tile {step} is the first with a score: row_max becomes {number(now.new_max)}"
        words = (
            f"Nothing had been counted, so nothing is rescaled. The tile adds {number(now.added_sum)} to row_sum and {number(now.added_acc)} to acc."
        )
    elif now.new_max > now.old_max:
        title = f"Tile {step} raises row_max from {number(now.old_max)} to {number(now.new_max)}: the old sums times {number(now.factor)}"
        words = f"row_sum and acc were counted from {number(now.old_max)}. Multiplied by {_factor(now)} "
        words += f"they are counted from {number(now.new_max)}, like the tile's own terms."
    else:
        title = f"Tile {step} stays below the maximum {number(now.new_max)}: it is added, and nothing is rescaled"
        words = f"The tile's largest score is {number(now.tile_max)}, so the factor is exp(0) = 1. "
        words += f"It adds {number(now.added_sum)} to row_sum and {number(now.added_acc)} to acc."
    if step == len(steps):
        words += (
            f" Last tile: output\u00a0=\u00a0acc\u00a0/\u00a0row_sum\u00a0=\u00a0{number(now.new_acc / now.new_sum, 4)}."
            if now.new_sum
            else " Last tile: row_sum is 0, so the output is 0."
        )
    return title, words


def _factor(now: Step) -> str:
    """`exp(0.5 - 1.2) = 0.497`, kept on one line."""
    new = f"({number(now.new_max)})" if now.new_max < 0 else number(now.new_max)
    return f"exp({number(now.old_max)}\u00a0\u2212\u00a0{new})\u00a0=\u00a0{number(now.factor)}"


def _cells(card: Drawing, scores: np.ndarray, values: np.ndarray, tile: int, now: Step | None) -> None:
    """The row of keys: score above, value below; tiles apart; read, in hand, or still to come."""
    ax = card.axes(0.25, 2.2, WIDTH - 0.5, 1.15, bare=True)
    start, stop = (now.start, now.stop) if now else (0, 0)
    tiles = -(-scores.size // tile)
    gap = 0.1 if tiles <= 16 else 0.04
    wide = min(0.62, (WIDTH - 0.5 - 0.6 - gap * (tiles - 1)) / scores.size)
    widest = max(text_width(number(x, 2), SMALL_SIZE) for x in (*scores, *values))
    text = SMALL_SIZE * min(1.0, (wide - 0.07) / widest)  # the longest number still fits its cell
    say(ax, 0, 0.66, "score", "left center", MUTED)
    say(ax, 0, 0.23, "value", "left center", MUTED)
    for i, (score, value) in enumerate(zip(scores, values, strict=True)):
        x = 0.6 + i * wide + (i // tile) * gap
        hidden, seen, here = score == HIDDEN, i < start, start <= i < stop
        for y, words, colour in ((0.5, number(score, 2) if not hidden else "\u2212inf", COLOURS["K"]), (0.07, number(value, 2), COLOURS["V"])):
            face = tint(colour, 0.3) if here else tint(COLOURS["output"], 0.13) if seen else CARD
            edge = colour if here else tint(COLOURS["output"], 0.45) if seen else tint(COLOURS["masked"], 0.8)
            kind = {"hatch": "////"} if hidden else {}
            rounded(
                ax,
                x + 0.015,
                y,
                wide - 0.03,
                0.33,
                tint(COLOURS["masked"], 0.15) if hidden else face,
                COLOURS["masked"] if hidden else edge,
                radius=0.04,
                linewidth=1.5 if here else 0.8,
                **kind,
            )
            label = say(ax, x + wide / 2, y + 0.165, words, "center center", INK if here else MUTED, text)
            if hidden:
                label.set_bbox({"facecolor": CARD, "edgecolor": "none", "pad": 0.8})
    if now:
        left, right = 0.6 + start * wide + (start // tile) * gap, 0.6 + stop * wide + (start // tile) * gap
        say(
            ax,
            (left + right) / 2,
            0.93,
            f"tile {start // tile + 1}" if right - left < 1.2 else f"tile {start // tile + 1}, in hand",
            "center bottom",
            word_colour(COLOURS["K"]),
        )


def _lines(state: tuple[float, float, float]) -> list[str]:
    return [number(state[0]), number(state[1], keep=True), number(state[2], keep=True)]


def _boxes(ax, now: Step | None) -> None:
    """State before, what happens to it, state after."""
    width, high, base = 1.95, 1.04, 0.8
    right = WIDTH - 0.5 - width - 0.05
    before = (now.old_max, now.old_sum, now.old_acc) if now else None
    after = (now.new_max, now.new_sum, now.new_acc) if now else (HIDDEN, 0.0, 0.0)
    draw_state(ax, right, base, width, high, "state after" if now else "the empty state", _lines(after), share=0.2)
    if before is None:
        return
    draw_state(ax, 0.05, base, width, high, "state before", _lines(before))
    arrow(ax, (0.05 + width + 0.08, base + high / 2), (right - 0.08, base + high / 2), COLOURS["output"])
    middle = (0.05 + width + right) / 2
    if now.new_max == HIDDEN:
        scale, add = "nothing to rescale", "nothing to add"
    else:
        scale = f"\u00d7 {_factor(now)}"
        add = f"+ {number(now.added_sum, keep=True)} to row_sum, + {number(now.added_acc, keep=True)} to acc"
    say(ax, middle, base + high / 2 + 0.12, scale, "center bottom", word_colour(COLOURS["output"]), LABEL_SIZE)
    say(ax, middle, base + high / 2 - 0.13, add, "center top", word_colour(COLOURS["K"]), LABEL_SIZE)
