"""The figures of chapter 01: memory levels to scale, cache steps, rooflines, launches, fusion, the tile that fits.

Brown is what is moved from and to slow memory, purple what happens on the chip. Numbers come from the caller, from data
sheets and from `course_lib.roofline`, never from here.
"""

import math
from collections.abc import Mapping, Sequence

from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from course_lib import roofline as model
from course_lib.datasheets import Sheet
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
    label_ends,
    many,
    number,
    say,
    size,
    text_width,
    tint,
    word_colour,
)

MEMORY, CHIP, OTHER = COLOURS["memory"], COLOURS["output"], COLOURS["Q"]
BYTES_EACH = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}


def rate(x: float, unit: str) -> str:
    """A rate with its prefix: 2.04 TB/s, 19.5 TFLOP/s, 11 GB/s."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if x >= scale:
            return f"{number(x / scale)} {prefix}{unit}"
    return f"{number(x)} {unit}"


def duration(seconds: float) -> str:
    """Seconds as words: 12.3 ms, 4.5 us."""
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "\u00b5s")):
        if seconds >= scale:
            return f"{number(seconds / scale)} {unit}"
    return f"{number(seconds / 1e-9)} ns"


def _level_rows(sheet: Sheet) -> list[tuple[str, str, float, float | None]]:
    """(name, whose it is, bytes on the whole chip, bytes/s or None), fastest first."""
    return [
        ("Registers", f"of one thread; {size(sheet.registers_per_sm)} an SM", sheet.register_bytes, None),
        ("Shared memory", f"of one block, {size(sheet.shared_per_block)} at most", sheet.shared_bytes, sheet.shared_bandwidth),
        ("L2 cache", "of the whole chip", sheet.l2_bytes, None),
        ("Memory" if sheet.name in ("T4", "L4") else "HBM", "beside the chip: what `device='cuda'` fills", sheet.memory_gb * 1e9, sheet.bandwidth),
        ("Host memory", "the CPU's, behind PCIe", math.nan, sheet.link),
    ]


def _amount(name: str, amount: float) -> str:
    """A level's size as its vendor prints it: memory in powers of ten, what is on the chip in powers of two."""
    return f"{number(amount / 1e9)} GB" if name in ("HBM", "Memory") else size(amount)


def hierarchy(sheet: Sheet, title: str | None = None) -> Picture:
    """Every memory level of a GPU: its size as an area, its bandwidth as a length, both to scale."""
    rows = _level_rows(sheet)
    memory, on_chip = rows[3][2], sum(row[2] for row in rows[:3])
    title = title or (
        f"{sheet.full_name}: {size(on_chip)} on the chip, {memory / on_chip:,.0f} times as much beside it, "
        f"and on-chip bytes arrive {sheet.shared_bandwidth / sheet.bandwidth:.1f} times as fast"
    )
    side, longest, left, middle = 2.05, 1.75, 3.25, 5.75
    heights = [0.5, 0.5, 0.5, side + 0.15, 0.5]
    with Card(title, height=sum(heights) + 0.55) as card:
        ax = card.axes(0.25, 0.0, WIDTH - 0.5, sum(heights) + 0.5, bare=True)
        top = sum(heights) + 0.12
        for x, words in ((0.0, "level, and whose it is"), (left, "size (areas to scale)"), (middle, "bandwidth (lengths to scale)")):
            say(ax, x, top + 0.22, words, "left center", MUTED)
        for (name, whose, amount, speed), height in zip(rows, heights, strict=True):
            ax.plot([0, WIDTH - 0.5], [top, top], color=FAINT, linewidth=0.8)
            y, colour = top - height / 2, CHIP if name in ("Registers", "Shared memory", "L2 cache") else MEMORY
            say(ax, 0, y + 0.1, name, "left center", word_colour(colour), LABEL_SIZE, fontweight="bold")
            say(ax, 0, y - 0.1, whose.replace("`", ""), "left center", MUTED, SMALL_SIZE - 1)
            if not math.isnan(amount):
                edge = side * math.sqrt(amount / memory)
                ax.add_patch(Rectangle((left, y - edge / 2), edge, edge, facecolor=colour, edgecolor="none"))
                inside = edge > 1
                words = _amount(name, amount)
                place = "center center" if inside else "left center"
                say(ax, left + (edge / 2 if inside else edge + 0.1), y, words, place, CARD if inside else INK)
            if speed is None:
                say(ax, middle, y, "not on data sheets", "left center", MUTED)
            else:
                length = max(longest * speed / sheet.shared_bandwidth, 0.006)
                ax.add_patch(Rectangle((middle, y - 0.09), length, 0.18, facecolor=colour, edgecolor="none"))
                say(ax, middle + length + 0.08, y, rate(speed, "B/s"), "left center")
            top -= height
        listed = "; ".join(
            f"{name}: {'' if math.isnan(amount) else _amount(name, amount) + ', '}{rate(speed, 'B/s') if speed else 'bandwidth not on data sheets'}"
            for name, _, amount, speed in rows
        )
        return card.picture(f"{title}. {listed}.")


def cache_steps(steps: Sequence[tuple[int, float]], where: str = "this machine", title: str | None = None) -> Picture:
    """Read bandwidth against the size of the working set: [(bytes, bytes/s)]. A step down is a level that has become too small."""
    if len(steps) < 2:
        raise ValueError("cache_steps needs at least two working sets: [(bytes, bytes/s), ...]")
    sizes, speeds = [s for s, _ in steps], [v for _, v in steps]
    best, first, last = max(speeds), speeds[0], speeds[-1]
    title = title or (
        f"{where}: the same sum reads {rate(first, 'B/s')} from {size(sizes[0])} and {rate(last, 'B/s')} from {size(sizes[-1])}, "
        f"{first / last:.1f} times less"
    )
    with Card(title, height=2.9) as card:
        ax = card.axes(0.85, 0.55, WIDTH - 1.2, 2.25)
        ax.set_xscale("log", base=2)
        ax.fill_between(sizes, speeds, color=tint(MEMORY, 0.12), linewidth=0)
        ax.plot(sizes, speeds, color=MEMORY, marker="o")
        ax.set_ylim(0, best * 1.15)
        ax.xaxis.set_major_locator(LogLocator(base=4, numticks=20))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
        scale, prefix = (1e12, "T") if best >= 2e12 else (1e9, "G")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y / scale)))
        ax.set_xlabel("working set, read again and again")
        ax.set_ylabel(f"bandwidth ({prefix}B/s)")
        ax.grid(axis="y", color=FAINT)
        listed = ", ".join(f"{size(s)} at {rate(v, 'B/s')}" for s, v in steps)
        return card.picture(f"{title}. Working sets: {listed}.")


Box = tuple[float, float, float, float]  # left, bottom, right, top, in shares of the axes
Points = Mapping[str, tuple[model.Work, float | None]]  # name: (work, seconds measured, or None)


def draw_roofline(ax, machine: model.Machine, dtype: str, low: float, high: float, floor: float) -> None:
    """The two roofs over intensities from low to high, and the ridge between them; the axes are made logarithmic."""
    ridge, peak = model.ridge(machine, dtype), machine.rate(dtype)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(low, high)
    ax.set_ylim(floor, peak * 2.6)
    ax.plot([low, ridge], [low * machine.bandwidth, peak], color=MEMORY, linewidth=2.4, zorder=3)
    ax.plot([ridge, high], [peak, peak], color=CHIP, linewidth=2.4, zorder=3)
    ax.axvspan(low, ridge, color=tint(MEMORY, 0.07), linewidth=0, zorder=0)
    ax.plot([ridge, ridge], [floor, peak], color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
    ax.set_xlabel("arithmetic intensity (FLOPs per byte)")
    ax.set_ylabel(f"FLOP/s, {dtype}")
    for axis, unit in ((ax.xaxis, ""), (ax.yaxis, "FLOP/s")):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda x, _, unit=unit: rate(x, "").strip() if unit else number(x)))
    words = f"{rate(machine.bandwidth, 'B/s')}", f"{rate(peak, 'FLOP/s')}"
    say(ax, 0.015, 0.965, f"memory: {words[0]}", "left top", word_colour(MEMORY), transform=ax.transAxes)
    say(ax, 0.985, 0.965, f"arithmetic: {words[1]}", "right top", word_colour(CHIP), transform=ax.transAxes)
    say(ax, ridge, floor * 1.15, f" ridge: {number(ridge)} ", "right bottom" if ridge > math.sqrt(low * high) else "left bottom", MUTED)


def _limits(machine: model.Machine, dtype: str, works: Sequence[model.Work], slowest: float = math.inf) -> tuple[float, float, float]:
    """(lowest intensity, highest, lowest FLOP/s) that show both roofs and all points."""
    ridge = model.ridge(machine, dtype)
    shown = [work.intensity for work in works] + [ridge]
    low, high = min(shown) / 3, max(shown) * 8  # room for a name on the right
    low, high = min(low, ridge / 30), max(high, ridge * 8)
    return low, high, min(low * machine.bandwidth * 2, slowest / 2)


def roofline(machine: model.Machine, dtype: str, points: Points, title: str | None = None) -> Picture:
    """A machine's roofline with operators on it: at most what the roof allows, and what was measured (a dot below)."""
    if not points:
        raise ValueError("roofline needs at least one operator: {'copy': (Work(flops, bytes), seconds or None)}")
    works = {name: work for name, (work, _) in points.items()}
    for name, work in works.items():
        if not work.flops > 0:
            raise ValueError(f"roofline: {name!r} has no FLOPs, and a logarithmic axis has no place for 0; give it at least one")
    reached = {name: work.flops / taken for name, (work, taken) in points.items() if taken}
    waiting = [name for name, work in works.items() if model.bound(work, machine, dtype) == "memory"]
    title = title or (
        f"{machine.name}: {len(waiting)} of {many(len(points), 'operator')} wait for memory, left of {number(model.ridge(machine, dtype))} FLOPs per byte"
    )
    low, high, floor = _limits(machine, dtype, list(works.values()), min(reached.values(), default=math.inf))
    with Card(title, height=3.6, note="Ring: what the roof allows. Dot: measured." if reached else "") as card:
        ax = card.axes(0.95, 0.55, WIDTH - 1.3, 2.95)
        draw_roofline(ax, machine, dtype, low, high, floor)
        seen = [(work.intensity, y) for name, work in works.items() for y in (model.attainable(work, machine, dtype), reached.get(name)) if y]
        along = (low * (high / low) ** (i / 120) for i in range(121))
        dots = [_around(ax, x, y) for x, y in seen]
        ridge = _around(ax, model.ridge(machine, dtype), machine.rate(dtype), 0.02)
        placed = [*dots, (ridge[0], 0.0, ridge[2], ridge[3])]  # no label lies on a dot, on the line down from the ridge, or on the roof
        placed += [_around(ax, x, min(x * machine.bandwidth, machine.rate(dtype)), 0.03) for x in along]
        for name, work in sorted(works.items(), key=lambda item: item[1].intensity):
            x, y = work.intensity, model.attainable(work, machine, dtype)
            ax.plot([x], [y], marker="o", markersize=6, markerfacecolor=CARD, markeredgecolor=OTHER, zorder=5)
            if name in reached:
                ax.plot([x, x], [reached[name], y], color=tint(OTHER, 0.5), linewidth=1.2, zorder=4)
                ax.plot([x], [reached[name]], marker="o", markersize=6, color=OTHER, zorder=5)
            _beside(ax, placed, x, reached.get(name, y), name, dots)
        alt = "; ".join(
            f"{name}: {number(work.intensity)} FLOPs per byte, at most {rate(model.attainable(work, machine, dtype), 'FLOP/s')}"
            + (f", measured {rate(reached[name], 'FLOP/s')}" if name in reached else "")
            for name, work in works.items()
        )
        return card.picture(f"{title}. Bandwidth {rate(machine.bandwidth, 'B/s')}, arithmetic {rate(machine.rate(dtype), 'FLOP/s')}. {alt}.")


def _around(ax, x: float, y: float, half: float = 0.05) -> Box:
    """The box around a place, in shares of the axes; `half` its width, in inches."""
    across, up = ax.transAxes.inverted().transform(ax.transData.transform((x, y)))
    half = half * ax.figure.dpi
    return across - half / ax.bbox.width, up - half / ax.bbox.height, across + half / ax.bbox.width, up + half / ax.bbox.height


def _beside(ax, placed: list[Box], x: float, y: float, name: str, dots: Sequence[Box] = ()) -> None:
    """A label beside a dot: below it to the right (to the left where the next dot is near) if that is free, else elsewhere."""
    high, wide = ax.bbox.height / ax.figure.dpi, ax.bbox.width / ax.figure.dpi
    across, up = ax.transAxes.inverted().transform(ax.transData.transform((x, y)))
    length, line = (text_width(name, SMALL_SIZE) + 0.06) / wide, 0.16 / high
    aside, sides = 0.09 / wide, ((0, -0.9), (1, 0.9), (0, 0.9), (1, -0.9), (0, -2.1), (1, 2.1), (0, -3.3), (1, 3.3))
    if any(across < dot[0] < across + length and abs(dot[1] - up) < 4 * line for dot in dots):
        sides = ((1, -0.9), (1, -2.1), (1, 0.9), (1, -3.3), *sides)
    boxes = []
    for left, lines in sides:
        start = across - aside - length if left else across + aside
        boxes.append((start, up + (lines - 0.5) * line, start + length, up + (lines + 0.5) * line))
    inside = [b for b in boxes if b[0] > 0 and b[2] < 1 and b[1] > 0.02 and b[3] < 0.9] or boxes
    free = [b for b in inside if not any(b[0] < o[2] and o[0] < b[2] and b[1] < o[3] and o[1] < b[3] for o in placed)] or inside
    placed.append(free[0])
    say(ax, free[0][0] + 0.03 / wide, (free[0][1] + free[0][3]) / 2, name, "left center", word_colour(OTHER), transform=ax.transAxes, zorder=6)


def same_matmul(
    rows: Sequence[int], measured: Sequence[float] | None, n: int, k: int, machine: model.Machine, dtype: str, title: str | None = None
) -> Picture:
    """Time of [M, k] @ [k, n] against M: what the bytes need, what the FLOPs need, and what was measured (None: bounds alone)."""
    if not rows or (measured is not None and len(measured) != len(rows)):
        raise ValueError(f"same_matmul: {len(rows)} row counts and {len(measured or [])} times; it needs one time a row count")
    works = [model.matmul_work(m, n, k, BYTES_EACH[dtype]) for m in rows]
    moving, computing = [w.bytes / machine.bandwidth for w in works], [w.flops / machine.rate(dtype) for w in works]
    waits = [m for m, a, b in zip(rows, moving, computing, strict=True) if a > b]
    many_rows = f"{rows[-1] / rows[0]:,.0f} times the rows"
    if title is None and measured:
        title = f"{machine.name}: {many_rows} take {number(measured[-1] / measured[0])} times as long"
    title = title or (
        f"{machine.name}: [M, {k:,}] @ [{k:,}, {n:,}] waits for memory "
        + (f"up to M = {waits[-1]:,}, and for arithmetic from there on" if waits and len(waits) < len(rows) else "at every M" if waits else "at no M")
    )
    with Card(title, height=3.3) as card:
        ax = card.axes(0.95, 0.55, WIDTH - 2.9, 2.65)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.plot(rows, moving, color=MEMORY, zorder=3)
        ax.plot(rows, computing, color=CHIP, zorder=3)
        ends = [(rows[-1], moving[-1], "bytes / bandwidth", MEMORY), (rows[-1], computing[-1], "FLOPs / rate", CHIP)]
        if measured:
            ax.plot(rows, measured, color=OTHER, marker="o", linewidth=1.2, zorder=4)
            ends.append((rows[-1], measured[-1], "measured", OTHER))
        every = [*moving, *computing, *(measured or [])]
        ax.set_ylim(min(every) / 1.6, max(every) * 1.8)
        ax.set_xlabel("M, rows of the left matrix")
        ax.set_ylabel("time")
        ax.xaxis.set_major_locator(LogLocator(base=4 if len(rows) > 7 else 2, numticks=20))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: duration(y)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        ax.grid(axis="y", color=FAINT)
        label_ends(ax, ends)
        listed = "; ".join(
            f"M = {m:,}: bytes {duration(a)}, FLOPs {duration(b)}" + (f", measured {duration(measured[i])}" if measured else "")
            for i, (m, a, b) in enumerate(zip(rows, moving, computing, strict=True))
        )
        return card.picture(f"{title}. {listed}.")


def fusion(names: Sequence[str], extras: Sequence[int], elements: int, bytes_each: int = 4, title: str | None = None) -> Picture:
    """What a chain of element-wise operators reads and writes, one launch each, and as one kernel. extras: as in `fusion_bytes`."""
    if len(names) != len(extras) or not names:
        raise ValueError(f"fusion: {len(names)} names and {len(extras)} extra inputs; each operator has one of both, and there is at least one")
    lanes = [(name, elements, extra, elements) for name, extra in zip(names, extras, strict=True)]
    lanes.append(("one kernel", elements, sum(extras), elements))
    separate, fused = sum(r + e + w for _, r, e, w in lanes[:-1]) * bytes_each, sum(lanes[-1][1:]) * bytes_each
    title = title or f"{many(len(names), 'operator')} move {size(separate)}, one kernel {size(fused)}: {number(separate / fused)} times less"
    widest = max(r + e + w for _, r, e, w in lanes)
    step, long = 0.42, WIDTH - 3.6
    with Card(title, height=step * len(lanes) + 0.2) as card:
        ax = card.axes(0.25, 0.1, WIDTH - 0.5, step * len(lanes) + 0.1, bare=True)
        for i, (name, read, extra, write) in enumerate(lanes):
            y = step * (len(lanes) - 1 - i) + (0.12 if i < len(lanes) - 1 else 0)
            last = i == len(lanes) - 1
            say(ax, 1.75, y + 0.15, name, "right center", word_colour(CHIP) if last else INK, LABEL_SIZE, fontweight="bold" if last else "normal")
            x = 1.9
            parts = ((read, MEMORY, "read", 1.0), (extra, MEMORY, "extra", 0.6), (write, MEMORY, "write", 0.3))
            for amount, colour, words, share in parts:
                width = long * amount / widest
                if width <= 0:
                    continue
                ax.add_patch(Rectangle((x, y), width, 0.3, facecolor=tint(colour, share), edgecolor=CARD, linewidth=1.2))
                if width > 0.55:
                    say(ax, x + width / 2, y + 0.15, words, colour=CARD if share > 0.5 else INK)
                x += width
            say(ax, x + 0.08, y + 0.15, size((read + extra + write) * bytes_each), "left center")
        listed = "; ".join(f"{name}: reads {size((r + e) * bytes_each)}, writes {size(w * bytes_each)}" for name, r, e, w in lanes)
        return card.picture(f"{title}. {listed}.")


def launches(counts: Sequence[int], seconds: Sequence[float], amount: str, each: float, title: str | None = None) -> Picture:
    """Time of the same work cut into more and more calls. `amount`: what the work is, in words; each: seconds that one more call costs."""
    if len(counts) != len(seconds) or len(counts) < 2:
        raise ValueError(f"launches: {len(counts)} counts and {len(seconds)} times; give one time a count, and at least two")
    title = (
        title
        or f"{amount}: {counts[-1]:,} calls take {number(seconds[-1] / seconds[0])} times as long as {counts[0]:,}, about {duration(each)} more a call"
    )
    with Card(title, height=2.9) as card:
        ax = card.axes(0.95, 0.55, WIDTH - 2.7, 2.25)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        overhead = [each * count for count in counts]
        ax.plot(counts, [seconds[0]] * len(counts), color=MEMORY, linewidth=1.4, linestyle=(0, (4, 3)))
        ax.plot(counts, overhead, color=COLOURS["masked"], linewidth=1.4, linestyle=(0, (4, 3)))
        ax.plot(counts, seconds, color=OTHER, marker="o")
        ax.set_ylim(min(min(seconds) / 4, seconds[-1] / 300), max(seconds) * 2)
        ax.set_xlabel("calls that the work is cut into")
        ax.set_ylabel("time")
        ax.xaxis.set_major_locator(LogLocator(base=4, numticks=20))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: duration(y)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        last = counts[-1]
        label_ends(
            ax,
            [(last, seconds[-1], "measured", OTHER), (last, seconds[0], "the bytes", MEMORY), (last, overhead[-1], "the calls", COLOURS["masked"])],
        )
        listed = ", ".join(f"{many(count, 'call')} in {duration(taken)}" for count, taken in zip(counts, seconds, strict=True))
        return card.picture(f"{title}. {listed}.")


def tile_budget(tiles: Mapping[str, tuple[int, int, int, int]], head_dim: int, title: str | None = None) -> Picture:
    """What a block's shared memory holds: {GPU: (tile size b, bytes of Q, K, V, bytes of S, bytes there are)}."""
    if not tiles:
        raise ValueError("tile_budget needs at least one GPU")
    title = title or f"head_dim = {head_dim}: " + ", ".join(f"b = {b} on {name}" for name, (b, *_) in tiles.items())
    most = max(limit for *_, limit in tiles.values())
    step, left, long = 0.52, 0.9, WIDTH - 3.1
    with Card(title, height=step * len(tiles) + 0.1) as card:
        ax = card.axes(0.25, 0.02, WIDTH - 0.5, step * len(tiles) + 0.05, bare=True)
        for i, (name, (b, qkv, scores, limit)) in enumerate(tiles.items()):
            y = step * (len(tiles) - 1 - i) + 0.1
            say(ax, left - 0.12, y + 0.17, name, "right center", INK, LABEL_SIZE, fontweight="bold")
            x = left
            third = qkv / 3
            for part, colour, words in ((third, COLOURS["Q"], "Q"), (third, COLOURS["K"], "K"), (third, COLOURS["V"], "V"), (scores, CHIP, "S")):
                width = long * part / most
                if width <= 0:
                    continue
                ax.add_patch(Rectangle((x, y), width, 0.34, facecolor=tint(colour, 0.75), edgecolor=CARD, linewidth=1))
                if width > 0.2:
                    say(ax, x + width / 2, y + 0.17, words, colour=CARD if words != "K" else INK)
                x += width
            end = left + long * limit / most
            ax.add_patch(Rectangle((left, y), end - left, 0.34, facecolor="none", edgecolor=MEMORY, linewidth=1.4))
            say(ax, end + 0.1, y + 0.17, f"b = {b}: {size(qkv + scores)} of {size(limit)}", "left center")
        listed = "; ".join(
            f"{name}: b = {b}, {size(qkv)} of Q, K and V and {size(scores)} of scores in {size(limit)}"
            for name, (b, qkv, scores, limit) in tiles.items()
        )
        return card.picture(f"{title}. {listed}.")
