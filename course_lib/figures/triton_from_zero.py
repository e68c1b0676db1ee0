"""The figures of chapter 04: who owns which element, what is in a tile's lanes, pointers of a tile, what a matmul reads.

Purple is what happens on the chip, brown is slow memory and what is moved from and to it, grey are lanes that are off.
Numbers come from the caller; nothing here runs a kernel.
"""

import math
from collections.abc import Sequence

from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator
from torch import Tensor

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
    say,
    size,
    tint,
    word_colour,
)
from course_lib.figures.rows import whole

CHIP, MEMORY, OFF, WRONG = COLOURS["output"], COLOURS["memory"], COLOURS["masked"], COLOURS["K"]
MOST_CELLS = 64
_SHADES = (0.62, 0.34)  # of neighbouring programs


def _box(ax, x: float, y: float, wide: float, high: float, face: str, edge: str = CARD, line: float = 1.0, **more) -> None:
    ax.add_patch(Rectangle((x, y), wide, high, facecolor=face, edgecolor=edge, linewidth=line, **more))


def _off(ax, x: float, y: float, wide: float, high: float) -> None:
    """A lane that is turned off: grey outline, hatched, so that it does not depend on colour."""
    _box(ax, x, y, wide, high, CARD, OFF, 0.9, hatch="////", alpha=0.9)


def programs(n: int, block: int, title: str | None = None) -> Picture:
    """n elements, and the program that owns each: tiles of `block`, lanes past the end turned off."""
    n, block = whole(n, "n"), whole(block, "block")
    count = -(-n // block)
    lanes = count * block
    if lanes > MOST_CELLS:
        raise ValueError(
            f"programs draws at most {MOST_CELLS} lanes, and {many(count, 'program')} of {block} are {lanes}; take fewer elements or smaller tiles"
        )
    off = lanes - n
    title = title or (
        f"{many(count, 'program')} of {many(block, 'lane')} cover{'s' * (count == 1)} {many(n, 'element')}: "
        + (f"{many(off, 'lane')}{' of the last' * (count > 1)} {'is' if off == 1 else 'are'} off" if off else "no lane is off")
        + f", {n / lanes:.0%} of the lanes work"
    )
    cell = min(0.5, (WIDTH - 0.7) / lanes)
    with Card(title, height=1.55) as card:
        ax = card.axes(0.35, 0.0, WIDTH - 0.7, 1.5, bare=True)
        left = (WIDTH - 0.7 - lanes * cell) / 2
        digits = cell >= 0.24
        for p in range(count):
            x = left + p * block * cell
            wide = block * cell
            name = f"program {p}" if wide > 0.75 else str(p) if wide > 0.24 else ""
            if name:
                say(ax, x + wide / 2, 1.28, name, colour=word_colour(CHIP))
            ax.plot([x + 0.03, x + wide - 0.03], [1.13, 1.13], color=CHIP, linewidth=1.6, solid_capstyle="butt")
            for lane in range(block):
                i, at = p * block + lane, x + lane * cell
                if i >= n:
                    _off(ax, at, 0.6, cell, 0.42)
                    continue
                _box(ax, at, 0.6, cell, 0.42, tint(CHIP, _SHADES[p % 2]))
                if digits:
                    say(ax, at + cell / 2, 0.81, str(i), colour=INK)
        _box(ax, left, 0.4, n * cell, 0.1, MEMORY)
        narrow = lanes * cell < 3
        say(
            ax, left, 0.2, f"{many(n, 'element')} in memory" + f", {many(off, 'lane')} off" * (narrow and off > 0), "left center", word_colour(MEMORY)
        )
        if off and not narrow:
            say(ax, left + lanes * cell, 0.2, f"{many(off, 'lane')} off", "right center", MUTED)
        last = f"The last has {many(block - off, 'element')} and {many(off, 'lane')} turned off." if off else "Every lane has an element."
        return card.picture(f"{title}. Program p owns the elements from p times {block} on. {last}")


def row_in_lanes(x: Tensor, block: int, title: str | None = None) -> Picture:
    """A row of scores in a tile of `block` lanes: what exp makes of the lanes past its end when they hold -inf, and when they hold 0."""
    values = [float(v) for v in x]
    n, block = len(values), whole(block, "block")
    if not 0 < n <= block <= 16:
        raise ValueError(f"row_in_lanes draws 1 to 16 lanes, and no fewer than the row has scores; got {n} scores in {block} lanes")
    row_max = max(values)
    right = sum(math.exp(v - row_max) for v in values)
    zero_max = max([*values, 0.0]) if block > n else row_max
    wrong = sum(math.exp(v - zero_max) for v in values) + (block - n) * math.exp(-zero_max)
    share, wrong_share = 1 / right, math.exp(row_max - zero_max) / wrong
    title = (
        title or f"Padded with 0 instead of \u2212inf, the largest weight of this row comes out as {number(wrong_share)} instead of {number(share)}"
    )
    cell, left = min(0.72, 5.9 / block), 1.35
    with Card(title, height=2.5) as card:
        ax = card.axes(0.2, 0.0, WIDTH - 0.4, 2.45, bare=True)
        for k, (top, pad, shift, total) in enumerate(((1.85, "\u2212inf", row_max, right), (0.75, "0", zero_max, wrong))):
            say(ax, left - 0.12, top + 0.15, "loaded", "right center", MUTED)
            say(ax, left - 0.12, top - 0.25, "exp(x \u2212 max)", "right center", MUTED)
            say(ax, 0, top + 0.42, f"other = {pad}", "left center", INK if not k else word_colour(WRONG), LABEL_SIZE, fontweight="bold")
            for i in range(block):
                inside, at = i < n, left + i * cell
                value = number(values[i], 2) if inside else pad
                term = math.exp(values[i] - shift) if inside else (math.exp(-shift) if k else 0.0)
                _box(ax, at, top, cell, 0.3, tint(CHIP, 0.34) if inside else CARD, CARD if inside else OFF)
                say(ax, at + cell / 2, top + 0.15, value, colour=INK if inside else MUTED)
                bad = not inside and k == 1
                _box(ax, at, top - 0.4, cell, 0.3, tint(WRONG if bad else CHIP, 0.3 if bad else 0.14), CARD)
                say(ax, at + cell / 2, top - 0.25, number(term, 2), colour=INK)
            say(ax, left + block * cell + 0.12, top - 0.25, f"sum {number(total)}", "left center", INK if not k else word_colour(WRONG), LABEL_SIZE)
        return card.picture(
            f"{title}. {many(n, 'score')} in {many(block, 'lane')}. With minus infinity past the end exp gives 0 there and the sum is {number(right)}; "
            f"with 0 it gives something, and the sum is {number(wrong)}."
        )


def moved(lanes: Sequence[tuple[str, int, int]], title: str | None = None, note: str = "") -> Picture:
    """What steps or kernels load and store, to scale: [(name, bytes loaded, bytes stored)]. A name that starts with '=' is drawn apart, as a whole."""
    if not lanes:
        raise ValueError("moved needs at least one lane: [(name, bytes loaded, bytes stored)]")
    steps, totals = [lane for lane in lanes if not lane[0].startswith("=")], [lane for lane in lanes if lane[0].startswith("=")]
    all_steps = sum(a + b for _, a, b in steps)
    least = min((a + b for _, a, b in (totals or lanes)), default=1)
    title = title or f"{many(len(steps), 'step')} ask for {size(all_steps)}, one kernel for {size(least)}: {number(all_steps / least)} times less"
    widest, step = max(a + b for _, a, b in lanes), 0.36
    gap = 0.16 if totals and steps else 0.0
    long = WIDTH - 4.1
    with Card(title, height=step * len(lanes) + gap + 0.45, note=note) as card:
        ax = card.axes(0.25, 0.05, WIDTH - 0.5, step * len(lanes) + gap + 0.4, bare=True)
        for i, (name, read, write) in enumerate([*steps, *totals]):
            total = i >= len(steps)
            y = 0.35 + step * (len(lanes) - 1 - i) + (0 if total else gap)
            weight = "bold" if total else "normal"
            say(ax, 2.25, y + 0.13, name.lstrip("= "), "right center", word_colour(CHIP) if total else INK, SMALL_SIZE + 0.5, fontweight=weight)
            _box(ax, 2.4, y, long * read / widest, 0.26, MEMORY)
            _box(ax, 2.4 + long * read / widest, y, long * write / widest, 0.26, tint(MEMORY, 0.35))
            say(ax, 2.4 + long * (read + write) / widest + 0.08, y + 0.13, size(read + write), "left center")
        for x, face, words in ((2.4, MEMORY, "loaded"), (3.4, tint(MEMORY, 0.35), "stored")):
            _box(ax, x, 0.06, 0.16, 0.16, face)
            say(ax, x + 0.24, 0.14, words, "left center", MUTED)
        listed = "; ".join(f"{name.lstrip('= ')}: loads {size(a)}, stores {size(b)}" for name, a, b in lanes)
        return card.picture(f"{title}. {listed}.")


def layouts(rows: int, columns: int, title: str | None = None) -> Picture:
    """One matrix as it lies in memory, stored row by row and column by column: the same element at different places, found by two strides."""
    rows, columns = whole(rows, "rows"), whole(columns, "columns")
    if rows * columns > 24:
        raise ValueError(f"layouts draws at most 24 elements, and {rows} x {columns} are {rows * columns}")
    row, column = rows - 1, columns // 2
    places = {"row by row": (columns, 1), "column by column": (1, rows)}
    at = {name: row * m + column * n for name, (m, n) in places.items()}
    title = title or (
        f"Row {row}, column {column} is element {at['row by row']} of one memory and element {at['column by column']} of the other; the strides say which"
    )
    cell = min(0.48, (WIDTH - 0.6) / (rows * columns))
    with Card(title, height=2.15) as card:
        ax = card.axes(0.3, 0.0, WIDTH - 0.6, 2.1, bare=True)
        for top, (name, (m, n)) in zip((1.3, 0.25), places.items(), strict=True):
            say(ax, 0, top + 0.6, f"Stored {name}: strides ({m}, {n})", "left center", INK, LABEL_SIZE, fontweight="bold")
            say(ax, 3.4, top + 0.6, f"{row} x {m} + {column} x {n} = {at[name]}", "left center", word_colour(CHIP), LABEL_SIZE)
            for r in range(rows):
                for c in range(columns):
                    place = r * m + c * n
                    mine = (r, c) == (row, column)
                    _box(ax, place * cell, top, cell, 0.4, CHIP if mine else tint(MEMORY, (0.14, 0.3)[r % 2]))
                    say(ax, (place + 0.5) * cell, top + 0.2, f"{r},{c}", colour=CARD if mine else INK, size=SMALL_SIZE)
        return card.picture(
            f"{title}. A matrix of {rows} rows and {columns} columns. "
            + " ".join(f"{name}: strides {places[name]}, the element lies at {at[name]}." for name in places)
        )


def outer_sum(rows: Sequence[int], columns: Sequence[int], stride_m: int, stride_n: int, title: str | None = None) -> Picture:
    """A tile of pointers: a column of row offsets and a row of column offsets, added."""
    if not rows or not columns or len(rows) * len(columns) > 36:
        raise ValueError(f"outer_sum draws at most 36 pointers, and {len(rows)} rows by {len(columns)} columns were given")
    downs, acrosses = [r * stride_m for r in rows], [c * stride_n for c in columns]
    title = title or (
        f"{len(rows)} row offsets and {len(columns)} column offsets make {len(rows) * len(columns)} pointers: "
        f"rows[:, None] * {stride_m} + columns[None, :] * {stride_n}"
    )
    cell, high = 0.62, 0.38
    with Card(title, height=high * len(rows) + 1.15) as card:
        tall = high * len(rows)
        ax = card.axes(0.3, 0.0, WIDTH - 0.6, tall + 1.1, bare=True)
        left, base = 3.1, 0.15
        say(ax, left - 1.0, base + tall + 0.77, f"rows x {stride_m}", colour=MUTED)
        say(ax, left + cell * len(columns) / 2, base + tall + 0.77, f"columns x {stride_n}", colour=MUTED)
        for j, value in enumerate(acrosses):
            _box(ax, left + j * cell, base + tall + 0.2, cell, high, tint(CHIP, 0.34))
            say(ax, left + (j + 0.5) * cell, base + tall + 0.2 + high / 2, str(value))
        for i, value in enumerate(downs):
            y = base + tall - (i + 1) * high
            _box(ax, left - 1.0 - cell / 2, y, cell, high, tint(CHIP, 0.34))
            say(ax, left - 1.0, y + high / 2, str(value))
            for j, across in enumerate(acrosses):
                _box(ax, left + j * cell, y, cell, high, tint(MEMORY, 0.2))
                say(ax, left + (j + 0.5) * cell, y + high / 2, str(value + across))
        say(ax, left - 0.38, base + tall / 2, "+", colour=MUTED, size=LABEL_SIZE + 3)
        say(ax, left + cell * len(columns) + 0.2, base + tall / 2, "elements from the pointer", "left center", MUTED)
        shown = "; ".join(f"row {r}: {', '.join(str(d + a) for a in acrosses)}" for r, d in zip(rows, downs, strict=True))
        return card.picture(f"{title}. The tile of offsets, {shown}.")


def matmul_tile(
    m: int, n: int, k: int, block_m: int, block_n: int, block_k: int, program: tuple[int, int] = (1, 2), turn: int = 1, title: str | None = None
) -> Picture:
    """What one program of a matmul reads and writes: a strip of a, a strip of b, a tile of each in hand, one tile of the result."""
    m, n, k, block_m, block_n, block_k = (
        whole(v, w) for v, w in zip((m, n, k, block_m, block_n, block_k), ("m", "n", "k", "block_m", "block_n", "block_k"), strict=True)
    )
    grid = (-(-m // block_m), -(-n // block_n))
    i, j, turn = min(program[0], grid[0] - 1), min(program[1], grid[1] - 1), min(turn, -(-k // block_k) - 1)
    title = title or (f"Program ({i}, {j}) needs {many(block_m, 'row')} of a and {many(block_n, 'column')} of b, and holds {block_k} of K at a time")
    scale = 2.0 / max(m, n, k)
    wide_k, wide_n, high_m, high_k = k * scale, n * scale, m * scale, k * scale
    with Card(title, height=high_k + high_m + 0.75) as card:
        ax = card.axes(0.4, 0.0, WIDTH - 0.8, high_k + high_m + 0.7, bare=True)
        x_a, x_c, y_a, y_b = 1.1, 1.1 + wide_k + 0.35, 0.12, 0.12 + high_m + 0.35
        for x, y, w, h, name, place in (
            (x_a, y_a, wide_k, high_m, f"a [{m}, {k}]", (x_a - 0.1, y_a + high_m / 2, "right center")),
            (x_c, y_b, wide_n, high_k, f"b [{k}, {n}]", (x_c - 0.1, y_b + high_k / 2, "right center")),
            (x_c, y_a, wide_n, high_m, f"result [{m}, {n}]", (x_c + wide_n + 0.1, y_a + high_m / 2, "left center")),
        ):
            _box(ax, x, y, w, h, CARD, OFF, 1.0, zorder=1)
            say(ax, place[0], place[1], name, place[2], INK, LABEL_SIZE)
        for step in range(1, grid[0]):
            for x, w in ((x_a, wide_k), (x_c, wide_n)):
                ax.plot([x, x + w], [y_a + high_m - step * block_m * scale] * 2, color=FAINT, linewidth=0.8, zorder=2)
        for step in range(1, grid[1]):
            for y, h in ((y_a, high_m), (y_b, high_k)):
                ax.plot([x_c + step * block_n * scale] * 2, [y, y + h], color=FAINT, linewidth=0.8, zorder=2)
        top, tall = y_a + high_m - i * block_m * scale, min(block_m, m - i * block_m) * scale
        left, across = x_c + j * block_n * scale, min(block_n, n - j * block_n) * scale
        deep = min(block_k, k - turn * block_k) * scale
        _box(ax, x_a, top - tall, wide_k, tall, tint(MEMORY, 0.3), zorder=3)
        _box(ax, left, y_b, across, high_k, tint(MEMORY, 0.3), zorder=3)
        _box(ax, x_a + turn * block_k * scale, top - tall, deep, tall, MEMORY, zorder=4)
        _box(ax, left, y_b + high_k - turn * block_k * scale - deep, across, deep, MEMORY, zorder=4)
        _box(ax, left, top - tall, across, tall, CHIP, zorder=4)
        arrow(ax, (x_a + 0.05, top - tall - 0.07), (x_a + wide_k - 0.05, top - tall - 0.07), word_colour(MEMORY))
        arrow(ax, (left + across + 0.07, y_b + high_k - 0.05), (left + across + 0.07, y_b + 0.05), word_colour(MEMORY))
        at = x_c + wide_n + 0.35
        for row, (face, words) in enumerate(
            ((MEMORY, "the two tiles in hand"), (tint(MEMORY, 0.3), "read in other turns"), (CHIP, "acc, stored once"))
        ):
            y = y_b + high_k - 0.2 - row * 0.3
            _box(ax, at, y - 0.08, 0.16, 0.16, face)
            say(ax, at + 0.26, y, words, "left center")
        return card.picture(
            f"{title}. Result of {m} by {n} in a grid of {grid[0]} by {grid[1]} tiles. The program walks along K in {many(-(-k // block_k), 'turn')}, "
            f"reading one tile of a and one of b in each, and stores its tile of the result once."
        )


def requested(tiles: Sequence[int], counted: Sequence[int], least: int, title: str | None = None) -> Picture:
    """Bytes that a tiled matmul asks for against the side of its tiles: counted, beside half as many a doubling, and the compulsory bytes."""
    if len(tiles) != len(counted) or len(tiles) < 2:
        raise ValueError(f"requested: {len(tiles)} tiles and {len(counted)} counts; give one count a tile, and at least two")
    title = title or f"Tiles of {tiles[-1]} ask for {number(counted[0] / counted[-1])} times fewer bytes than tiles of {tiles[0]}"
    with Card(title, height=2.9) as card:
        ax = card.axes(0.95, 0.55, WIDTH - 3.0, 2.25)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        ax.plot(tiles, counted, color=MEMORY, marker="o", zorder=4)
        ax.plot([tiles[0], tiles[-1]], [least, least], color=OFF, linestyle=(0, (4, 3)), linewidth=1.4)
        ax.set_ylim(least / 1.5, max(counted) * 1.5)
        ax.set_xlabel("side of the tiles, BLOCK_M = BLOCK_N")
        ax.set_ylabel("requested")
        ax.set_xticks(list(tiles), [str(t) for t in tiles])
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: size(y)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        ax.grid(axis="y", color=FAINT)
        label_ends(ax, [(tiles[-1], counted[-1], f"counted: {size(counted[-1])}", MEMORY), (tiles[-1], least, f"compulsory: {size(least)}", OFF)])
        listed = ", ".join(f"{t}: {size(c)}" for t, c in zip(tiles, counted, strict=True))
        return card.picture(f"{title}. Requested bytes by tile side, {listed}; every matrix once takes {size(least)}.")


def race(count: int = 4, title: str | None = None) -> Picture:
    """Programs that each add 1 to the same element: one after another, and all at once."""
    count = whole(count, "count")
    if not 2 <= count <= 6:
        raise ValueError(f"race draws 2 to 6 programs, and {count} were asked for")
    title = title or f"One after another, {count} programs count to {count}; at the same time they may count to 1"
    with Card(title, height=0.42 * count + 1.0) as card:
        ax = card.axes(0.25, 0.0, WIDTH - 0.5, 0.42 * count + 0.95, bare=True)
        half = (WIDTH - 0.5) / 2
        for side, (words, colour) in enumerate((("the interpreter: one after another", INK), ("a GPU: at the same time", word_colour(WRONG)))):
            x0 = side * half
            say(ax, x0 + 0.35, 0.42 * count + 0.7, words, "left center", colour, LABEL_SIZE, fontweight="bold")
            for p in range(count):
                y = 0.42 * (count - 1 - p) + 0.42
                if not side:
                    start, seen = x0 + 0.35 + p * (half - 0.9) / count, p
                    wide = (half - 0.9) / count
                else:
                    start, seen, wide = x0 + 0.35, 0, half - 1.3
                say(ax, x0 + 0.25, y + 0.14, str(p), "right center", MUTED)
                _box(ax, start, y, wide / 2, 0.28, tint(MEMORY, 0.3))
                say(ax, start + wide / 4, y + 0.14, f"read {seen}" if wide > 1.5 else f"r {seen}")
                _box(ax, start + wide / 2, y, wide / 2, 0.28, MEMORY)
                say(ax, start + 0.75 * wide, y + 0.14, f"write {seen + 1}" if wide > 1.5 else f"w {seen + 1}", colour=CARD)
            arrow(ax, (x0 + 0.35, 0.25), (x0 + half - 0.6, 0.25), MUTED)
            say(ax, x0 + half - 0.5, 0.25, "time", "left center", MUTED)
        return card.picture(
            f"{title}. Left: program p reads p and writes p + 1, each after the one before. Right: all {count} read 0 before any has written, and all write 1."
        )
