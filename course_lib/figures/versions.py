"""The figures of chapter 07 about speed: versions beside each other, busy units, warps taking turns, waves of programs, errors of FP8.

Numbers come from the caller or are computed from the arguments, never from here.
"""

from collections.abc import Mapping, Sequence

from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter

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
    label_ends,
    many,
    number,
    say,
    text_width,
    tint,
    word_colour,
)
from course_lib.figures.rows import whole

K, OUTPUT, MEMORY, MASKED = (COLOURS[name] for name in ("K", "output", "memory", "masked"))
Task = tuple[int, str, float, float]  # (group, "products" or "exponentials", start, end)


# ---------------------------------------------------------------- versions beside each other


def versions(rates: Mapping[str, float], changed: Mapping[str, str], peak: float, title: str | None = None, note: str = "") -> Picture:
    """TFLOP/s of several kernels that do the same arithmetic, each with what is new in it. {name: TFLOP/s}, {name: words}; peak in TFLOP/s."""
    if not rates or any(not 0 < rate <= peak for rate in rates.values()) or set(rates) - set(changed):
        raise ValueError(f"versions needs rates above 0 and at most the peak ({number(peak)}), and words for each; it got {dict(rates)!r:.200}")
    names = list(rates)
    if title is None:
        slow, fast = min(rates, key=rates.get), max(rates, key=rates.get)
        title = f"The same arithmetic, {rates[fast] / rates[slow]:.1f}x apart: {slow} reaches {number(rates[slow], 3)} TFLOP/s, {fast} {number(rates[fast], 3)}"
    left, tall = 0.4 + max(text_width(name, LABEL_SIZE) for name in names), 0.56 * len(names)
    with Card(title, height=tall + 0.75, note=note.replace("`", "")) as card:
        ax = card.axes(left, 0.55, WIDTH - left - 0.35, tall)
        for y, name in enumerate(names):
            ax.barh(y - 0.13, rates[name], height=0.4, color=OUTPUT if "Triton" in name else tint(MEMORY, 0.5))
            say(ax, rates[name], y - 0.13, f" {number(rates[name], 3)} = {100 * rates[name] / peak:.0f} % of the peak", "left center", INK)
            say(ax, 0, y - 0.13, f"{name}  ", "right center", INK, LABEL_SIZE, clip_on=False)
            say(ax, 0, y + 0.1, f" {changed[name]}", "left top", MUTED)
        ax.axvline(peak, color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
        ax.set_xlim(0, peak * 1.01)
        ax.set_ylim(len(names) - 0.45, -0.5)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(FixedLocator([*range(0, round(peak * 0.95), 250), peak]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x, 3)))
        ax.set_xlabel("TFLOP/s (dashed: the data sheet's peak)")
        told = " ".join(f"{name}: {number(rates[name], 3)} TFLOP/s, {100 * rates[name] / peak:.0f} % of the peak; {changed[name]}." for name in names)
        return card.picture(f"{told} The peak is {number(peak, 3)} TFLOP/s.")


# ---------------------------------------------------------------- which unit is busy


def units(times: Mapping[str, Mapping[str, float]], title: str | None = None, note: str = "") -> Picture:
    """Picoseconds that one score keeps two units busy: {"H100, D = 128": {"products": ps, "exponentials": ps}}."""
    if not times or any(set(parts) != {"products", "exponentials"} or min(parts.values()) <= 0 for parts in times.values()):
        raise ValueError("units needs {case: {'products': picoseconds, 'exponentials': picoseconds}}, all above 0")
    shares = {case: parts["exponentials"] / parts["products"] for case, parts in times.items()}
    if title is None:
        low, high = min(shares, key=shares.get), max(shares, key=shares.get)
        title = f"Exponentials take {number(shares[low], 2)} of the products' time ({low}) to {number(shares[high], 2)} ({high})"
    left, tall = 0.4 + max(text_width(case, LABEL_SIZE) for case in times), 0.52 * len(times)
    with Card(title, height=tall + 1.0, note=note) as card:
        ax = card.axes(left, 0.55, WIDTH - left - 1.1, tall)
        for y, (case, parts) in enumerate(times.items()):
            for up, name, colour in ((-0.17, "products", K), (0.17, "exponentials", OUTPUT)):
                ax.barh(y + up, parts[name], height=0.32, color=colour)
                say(ax, parts[name], y + up, f" {number(parts[name], 3)}", "left center", INK, clip_on=False)
            say(ax, 0, y, f"{case}  ", "right center", INK, LABEL_SIZE, clip_on=False)
        ax.set_xlim(0, max(max(parts.values()) for parts in times.values()) * 1.05)
        ax.set_ylim(len(times) - 0.5, -0.5)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("picoseconds a score, all multiprocessors together")
        x = left
        for name, colour in (("products: 4 D operations on the tensor cores", K), ("one exponential on the special function units", OUTPUT)):
            mark = card.axes(x, tall + 0.7, 0.15, 0.15, bare=True)
            mark.add_patch(Rectangle((0, 0), 0.15, 0.15, facecolor=colour, linewidth=0))
            card.text(x + 0.22, tall + 0.775, name, size=SMALL_SIZE, va="center")
            x += 0.55 + text_width(name, SMALL_SIZE)
        told = " ".join(f"{case}: products {number(p['products'], 2)}, exponentials {number(p['exponentials'], 2)} ps." for case, p in times.items())
        return card.picture(f"Time that one score keeps the units busy. {told}")


# ---------------------------------------------------------------- taking turns


def turns(groups: int, tiles: int, products: float, exponentials: float) -> list[Task]:
    """Groups of warps share one tensor core and one exponential unit; each walks over `tiles` tiles of keys. Who is ready first goes first.

    A tile is half the products (Q K^T), the exponentials, the other half (P V), in this order; no two at once on a unit.
    """
    groups, tiles = whole(groups, "groups"), whole(tiles, "tiles")
    if min(products, exponentials) <= 0:
        raise ValueError(f"products and exponentials take time: they are {products} and {exponentials}")
    steps = [("products", products / 2), ("exponentials", exponentials), ("products", products / 2)] * tiles
    ready, at, free, done = [0.0] * groups, [0] * groups, {"products": 0.0, "exponentials": 0.0}, []
    while any(at[g] < len(steps) for g in range(groups)):
        waiting = [g for g in range(groups) if at[g] < len(steps)]
        g = min(waiting, key=lambda g: (max(ready[g], free[steps[at[g]][0]]), at[g], g))
        unit, takes = steps[at[g]]
        start = max(ready[g], free[unit])
        done.append((g, unit, start, start + takes))
        ready[g] = free[unit] = start + takes
        at[g] += 1
    return done


def schedule(products: float, exponentials: float, tiles: int = 3, title: str | None = None) -> Picture:
    """The same work twice: one group of warps does all tiles one after another, or two groups take turns."""
    alone, paired = turns(1, 2 * tiles, products, exponentials), turns(2, tiles, products, exponentials)
    ends = [max(end for *_, end in tasks) for tasks in (alone, paired)]
    busy = [sum(end - start for _, unit, start, end in tasks if unit == "products") / last for tasks, last in zip((alone, paired), ends, strict=True)]
    if title is None:
        sooner = f"{many(2 * tiles, 'tile')} are done {number(ends[0] / ends[1], 3)}x sooner"
        title = f"Taking turns, {sooner}: tensor cores busy {100 * busy[0]:.0f} % before, {100 * busy[1]:.0f} % now"
    left, lane = 1.75, 0.3
    with Card(title, height=2.5) as card:
        for n, (tasks, words) in enumerate(((alone, "one group"), (paired, "two groups"))):
            bottom = 1.55 - n * 1.1
            ax = card.axes(left, bottom, WIDTH - left - 0.35, 2 * lane + 0.12)
            for g, unit, start, end in tasks:
                y = 0 if unit == "exponentials" else 1
                face = tint((K, OUTPUT)[unit == "exponentials"], 0.85 if g == 0 else 0.42)
                ax.add_patch(Rectangle((start, y + 0.06), end - start, 0.88, facecolor=face, edgecolor=CARD, linewidth=1))
            ax.set_xlim(0, ends[0] * 1.005)
            ax.set_ylim(0, 2)
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x, 2)))
            if not n:
                ax.set_xticks([])
                ax.spines["bottom"].set_visible(False)
            else:
                ax.set_xlabel("time (units of one tile's products)")
                say(ax, ends[1], 1.0, f"  done: {number(ends[1], 3)}, not {number(ends[0], 3)}", "left center", INK)
            for y, unit in ((1, "tensor cores"), (0, "exponentials")):
                say(ax, 0, y + 0.5, f"{unit}  ", "right center", word_colour(K if y else OUTPUT), clip_on=False)
            card.text(0.22, bottom + lane + 0.06, words, size=LABEL_SIZE, weight="bold", va="center")
        card.text(left, 2.36, "dark: the first group's work, light: the second's", size=SMALL_SIZE, colour=MUTED, va="center")
        return card.picture(
            f"Two timelines of {many(2 * tiles, 'tile')}. One group of warps: products and exponentials alternate, done at {number(ends[0], 3)}, tensor cores busy "
            f"{100 * busy[0]:.0f} %. Two groups taking turns: one multiplies while the other takes exponentials, done at {number(ends[1], 3)}, busy {100 * busy[1]:.0f} %."
        )


# ---------------------------------------------------------------- waves


def waves(programs: int, multiprocessors: int, per_multiprocessor: int = 1, title: str | None = None, note: str = "") -> Picture:
    """How a grid of equal programs fills a GPU: busy places over time, and the last wave place by place."""
    programs, multiprocessors = whole(programs, "programs"), whole(multiprocessors, "multiprocessors")
    per = whole(per_multiprocessor, "per_multiprocessor")
    places = multiprocessors * per
    count = -(-programs // places)
    last = programs - (count - 1) * places
    share = programs / (count * places)
    if title is None:
        title = (
            f"{many(programs, 'program')} on {places:,} places: {many(count, 'wave')}, the last with {last:,}; {100 * share:.0f} % of the places work"
        )
    with Card(title, height=2.75, note=note) as card:
        ax = card.axes(0.85, 0.6, 4.1, 1.75)
        ax.add_patch(Rectangle((0, 0), count, places, facecolor=tint(MASKED, 0.22), linewidth=0))
        if count > 1:
            ax.add_patch(Rectangle((0, 0), count - 1, places, facecolor=tint(OUTPUT, 0.6), linewidth=0))
        ax.add_patch(Rectangle((count - 1, 0), 1, last, facecolor=OUTPUT, linewidth=0))
        if count <= 40:
            ax.vlines(range(1, count), 0, places, color=CARD, linewidth=0.8)
        ax.set_xlim(0, count)
        ax.set_ylim(0, places)
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10**6) if count / s <= 6)
        ax.xaxis.set_major_locator(FixedLocator(range(0, count + 1, step)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        ax.yaxis.set_major_locator(FixedLocator([0, places]))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
        ax.set_xlabel("time (one program's run)")
        ax.set_ylabel("places")
        _last_wave(card, multiprocessors, per, last)
        return card.picture(
            f"{many(programs, 'program')}, {multiprocessors} multiprocessors with room for {many(per, 'program')} each. {many(count, 'wave')}; the last one has {last:,} of "
            f"{places:,} places in use. {100 * share:.0f} % of all places work."
        )


def _last_wave(card: Card, multiprocessors: int, per: int, last: int) -> None:
    """One square for each multiprocessor, filled from below by its programs: they are dealt out one to each, then a second one, and so on."""
    across = max(1, round((multiprocessors * 1.9) ** 0.5))
    down = -(-multiprocessors // across)
    left, wide, high = 5.35, WIDTH - 5.6, 1.75
    side = min(wide / across, high / down)
    ax = card.axes(left, 0.6, wide, high, bare=True)
    for i in range(multiprocessors):
        mine = last // multiprocessors + (i < last % multiprocessors)
        x, y = i % across * side, high - (i // across + 1) * side
        ax.add_patch(Rectangle((x, y), side * 0.86, side * 0.86, facecolor=tint(MASKED, 0.22), linewidth=0))
        if mine:
            ax.add_patch(Rectangle((x, y), side * 0.86, side * 0.86 * mine / per, facecolor=OUTPUT, linewidth=0))
    used = min(last, multiprocessors)
    card.text(left, 2.55, f"the last wave: {used} of {multiprocessors} multiprocessors work", size=LABEL_SIZE, va="center")
    card.text(left, 0.3, "a square: one multiprocessor", size=SMALL_SIZE, colour=MUTED, va="center")


def saw(
    lines: Mapping[str, Sequence[tuple[float, float]]], title: str, xlabel: str, points: Sequence[tuple[float, float]] = (), note: str = ""
) -> Picture:
    """Efficiency (0 to 1) over a size, one line each: {"BLOCK_M = 128": [(x, share), ...]}; points: what was measured, in INK."""
    if not lines or any(len(line) < 2 or any(not 0 <= y <= 1 for _, y in line) for line in lines.values()):
        raise ValueError("saw needs lines of at least two (x, share) pairs, each share from 0 to 1")
    longest = max(text_width(name, SMALL_SIZE) for name in lines)
    with Card(title, height=3.0, note=note.replace("`", "")) as card:
        ax = card.axes(0.85, 0.6, WIDTH - 1.35 - longest, 2.25)
        ends = []
        for (name, line), colour in zip(lines.items(), (K, OUTPUT, MEMORY, MASKED), strict=False):
            ax.plot([x for x, _ in line], [100 * y for _, y in line], color=colour, linewidth=1.5)
            ends.append((line[-1][0], 100 * line[-1][1], name, colour))
        if points:
            ax.plot([x for x, _ in points], [100 * y for _, y in points], "o", color=INK, markersize=4, zorder=4)
        ax.set_ylim(0, 105)
        ax.set_xlim(min(x for line in lines.values() for x, _ in line), max(x for line in lines.values() for x, _ in line))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        ax.grid(axis="y")
        ax.set_xlabel(xlabel)
        ax.set_ylabel("% of the places at work" if not points else "% of the places (points: of the best)")
        label_ends(ax, ends)
        told = " ".join(f"{name}: from {100 * min(y for _, y in line):.0f} to {100 * max(y for _, y in line):.0f} %." for name, line in lines.items())
        more = f" Measured: {', '.join(f'{100 * y:.0f} % at {x:,.0f}' for x, y in points[:12])}." if points else ""
        return card.picture(f"{title}. {told}{more}")


# ---------------------------------------------------------------- errors


def errors(found: Mapping[str, float], title: str | None = None, note: str = "") -> Picture:
    """Relative errors as bars, the largest as it is and the others against it: {"e4m3, one scale a tensor": 0.03, ...}."""
    if not found or min(found.values()) <= 0:
        raise ValueError("errors needs {what was done: relative error above 0}")
    worst, best = max(found, key=found.get), min(found, key=found.get)
    if title is None:
        title = f"{worst[:1].upper() + worst[1:]}: {100 * found[worst]:.2g} % off; {best}: {number(found[worst] / found[best], 3)}x less"
    left, tall = 0.45 + max(text_width(name, LABEL_SIZE) for name in found), 0.36 * len(found)
    with Card(title, height=tall + 0.75, note=note) as card:
        ax = card.axes(left, 0.55, WIDTH - left - 1.2, tall)
        for y, (name, error) in enumerate(found.items()):
            ax.barh(y, 100 * error, height=0.6, color=OUTPUT)
            say(ax, 100 * error, y, f"  {100 * error:.2g} %", "left center", INK, clip_on=False)
            say(ax, 0, y, f"{name}  ", "right center", INK, LABEL_SIZE, clip_on=False)
        ax.set_xlim(0, 102 * found[worst])
        ax.set_ylim(len(found) - 0.5, -0.5)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("error of the output, RMS over RMS (%)")
        return card.picture("Relative error of the output. " + " ".join(f"{name}: {100 * error:.2g} %." for name, error in found.items()))
