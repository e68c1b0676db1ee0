"""The figures of chapter 00: what the course builds, how times scatter, and this machine's ceilings beside six GPUs' data sheets.

Measured numbers come from the caller; what vendors print comes from `datasheets`.
"""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from course_lib.ceilings import Ceilings
from course_lib.datasheets import SHEETS
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
    number,
    power_of_ten,
    rounded,
    say,
    tint,
)

MEMORY, MASKED = COLOURS["memory"], COLOURS["masked"]
_ENGINE = (  # name, chapters, x, y in inches on the card
    ("requests", "", 0.0, 1.9),
    ("scheduler", "chapter 11", 1.72, 1.9),
    ("model layers", "04, 08, 12, 13", 3.44, 1.9),
    ("sampler", "chapter 08", 5.16, 1.9),
    ("tokens", "", 6.88, 1.9),
    ("draft model", "chapter 14", 1.72, 0.75),
    ("attention", "02 to 07, 09", 3.44, 0.75),
    ("paged KV cache", "08, 10", 5.16, 0.75),
)
_ARROWS = ((0, 1), (1, 2), (2, 3), (3, 4), (5, 1), (2, 6), (6, 7))
_BOX, _TALL = 1.48, 0.72


def course_map() -> Picture:
    """The engine of chapter 15 as boxes, each with the chapters in which its functions are written."""
    title = "By chapter 15 every grey box of a working inference engine is a function that you wrote"
    with Card(title, height=2.95) as card:
        ax = card.axes(0.2, 0.05, WIDTH - 0.4, 2.8, bare=True)
        for name, chapters, x, y in _ENGINE:
            given, core = not chapters, name == "attention"
            rounded(ax, x, y, _BOX, _TALL, CARD if given else FAINT, MASKED if given else INK, lw=2.2 if core else 1.0, clip_on=False)
            weight = "bold" if core else "normal"
            say(ax, x + _BOX / 2, y + _TALL / 2 + (0 if given else 0.13), name, colour=MUTED if given else INK, size=LABEL_SIZE, fontweight=weight)
            if not given:
                say(ax, x + _BOX / 2, y + _TALL / 2 - 0.15, chapters, colour=MUTED, size=SMALL_SIZE)
        for start, end in _ARROWS:
            (_, _, x0, y0), (_, _, x1, y1) = _ENGINE[start], _ENGINE[end]
            if y0 == y1:
                arrow(ax, (x0 + _BOX + 0.03, y0 + _TALL / 2), (x1 - 0.03, y1 + _TALL / 2))
            else:
                lower, upper = sorted((y0, y1))
                points = ((x0 + _BOX / 2, lower + _TALL + 0.03), (x0 + _BOX / 2, upper - 0.03))
                arrow(ax, *(points if y1 > y0 else points[::-1]))
        say(ax, 0.0, 0.3, "under all of it: the memory hierarchy (chapter 01), because moving bytes is what costs", "left center", MUTED, SMALL_SIZE)
        return card.picture(
            "A diagram of an inference engine. Requests go to the scheduler (chapter 11), then through the model's layers (chapters 04 and 08), "
            "the sampler (chapter 08), and out as tokens. The layers use attention (chapters 02 to 07 and 09), which uses the paged KV cache "
            "(chapters 08 and 10). A draft model (chapter 14) feeds the scheduler. Quantized layers come from chapters 12 and 13."
        )


def repeats(seconds: Sequence[float], what: str = "copy", title: str | None = None) -> Picture:
    """The times of the same call, one after another; the first and the median are marked."""
    times = [1e3 * s for s in seconds]
    if len(times) < 5 or min(times) <= 0:
        raise ValueError(f"repeats: it needs at least 5 times above 0 and got {len(times)}")
    median, mean = statistics.median(times), statistics.fmean(times)
    first = times[0] / median
    start = (
        f"the first took {number(first, 2)} times as long" if first >= 1.05 else f"the slowest took {number(max(times) / median, 2)} times as long"
    )
    title = title or f"The median {what} takes {number(median)} ms; {start}"
    with Card(title, height=2.9) as card:
        ax = card.axes(0.85, 0.55, WIDTH - 2.9, 2.25)
        ax.set_xlim(0, len(times) + 0.5)
        ax.set_ylim(0, max(times) * 1.12)
        ax.set_xlabel("call")
        ax.set_ylabel("time (ms)")
        ax.grid(axis="y")
        ax.axhline(median, color=INK, lw=1.6, zorder=2)
        ax.axhline(mean, color=MUTED, lw=1.2, ls=(0, (4, 3)), zorder=2)
        ax.plot(range(2, len(times) + 1), times[1:], "o", color=MEMORY, ms=4.5, zorder=3)
        ax.plot([1], times[:1], "D", color=MEMORY, mfc=CARD, mew=1.6, ms=7, zorder=3, clip_on=False)
        end = len(times) + 0.5
        label_ends(ax, [(end, median, f"median {number(median)} ms", INK), (end, mean, f"mean {number(mean)} ms", MUTED)])
        say(ax, 1.6, times[0], "first call", "left center", MUTED)
        return card.picture(
            f"{len(times)} times of the same {what}, one dot each. The first took {number(times[0])} ms, the median is {number(median)} ms, "
            f"the mean {number(mean)} ms, the slowest {number(max(times))} ms."
        )


def bandwidths(mine: Ceilings, title: str | None = None) -> Picture:
    """Memory bandwidth: this machine's copy, measured, beside what six data sheets print. Log axis."""
    rows = [(f"{_short(mine)}, measured", mine.bandwidth / 1e9, True)]
    rows += [(sheet.name, sheet.bandwidth / 1e9, False) for sheet in SHEETS.values()]
    ratio = rows[-1][1] / rows[0][1]
    title = title or f"This machine copies {number(rows[0][1])} GB/s; a {rows[-1][0]}'s data sheet promises {number(ratio, 2)} times that"
    with Card(title, height=3.0) as card:
        ax = _lanes(
            card, [name for name, _, _ in rows], [value for _, value, _ in rows], "memory bandwidth (GB/s); filled: measured, hollow: as printed"
        )
        for lane, (_, value, own) in enumerate(rows):
            ax.plot([value], [lane], "o", color=MEMORY, mfc=MEMORY if own else CARD, mew=1.5, ms=9 if own else 7, zorder=3)
            ax.annotate(number(value), (value, lane), (9, 0), textcoords="offset points", va="center", fontsize=SMALL_SIZE, color=INK)
        return card.picture("Memory bandwidth in GB/s. " + "; ".join(f"{name}: {number(value)}" for name, value, _ in rows) + ".")


def matmul_rates(mine: Ceilings, title: str | None = None) -> Picture:
    """Matrix multiplication: fp32 and the faster 16-bit dtype, this machine measured, six GPUs as printed (dense). Log axis."""
    rows = [(f"{_short(mine)}, measured", mine.rates)] + [(sheet.name, sheet.rates) for sheet in SHEETS.values()]
    points = [(name, rates["fp32"] / 1e12, max(rates.get("bf16", 0), rates["fp16"]) / 1e12) for name, rates in rows]
    here, there = points[0], points[-1]
    faster = "bf16" if mine.rates.get("bf16", 0) >= mine.rates["fp16"] else "fp16"
    title = title or (
        f"{faster} instead of fp32: matmul at {number(here[2] / here[1], 2)} times the rate on this machine, "
        f"{number(there[2] / there[1], 2)} times on a {there[0]}'s data sheet"
    )
    with Card(title, height=3.35) as card:
        values = [value for _, *pair in points for value in pair]
        ax = _lanes(card, [name for name, _, _ in points], values, "matrix multiplication (TFLOP/s); filled: measured, hollow: as printed", top=0.35)
        for lane, (_, single, half) in enumerate(points):
            face = CARD if lane else INK  # measured is filled, printed is hollow
            ax.plot([single, half], [lane, lane], color=tint(INK, 0.4), lw=2, zorder=2)
            ax.plot([single], [lane], "o", color=INK, mfc=face, mew=1.5, ms=7, zorder=3)
            ax.plot([half], [lane], "s", color=INK, mfc=face, mew=1.5, ms=7, zorder=3)
            for value, right in ((single, single > half), (half, half >= single)):
                offset, place = ((9, 0), "left") if right else ((-9, 0), "right")
                ax.annotate(number(value), (value, lane), offset, textcoords="offset points", va="center", ha=place, fontsize=SMALL_SIZE, color=INK)
        marks = [Line2D([], [], marker=marker, ls="", color=INK, ms=6) for marker in "os"]
        card.figure.legend(
            marks,
            ["fp32", "bf16 or fp16, the faster"],
            loc="upper left",
            bbox_to_anchor=(1.75 / card.width, (3.35 - 0.02) / card.height),
            ncol=2,
            frameon=False,
            fontsize=SMALL_SIZE,
        )
        alt = "; ".join(f"{name}: fp32 {number(single)}, 16 bits {number(half)}" for name, single, half in points)
        return card.picture(f"Matrix multiplication in TFLOP/s. {alt}.")


def _short(mine: Ceilings) -> str:
    return "this CPU" if mine.device == "cpu" else "this GPU"


def _lanes(card: Card, names: Sequence[str], values: Sequence[float], label: str, top: float = 0.1) -> Axes:
    """Axes with one lane a name, the first on top, and a log x axis that holds all values and their labels."""
    ax = card.axes(1.75, 0.55, WIDTH - 2.35, card.body - 0.6 - top)
    ax.set_xscale("log")
    ax.set_xlim(min(values) / 6, max(values) * 3)  # a label may stand on the left of its dot
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(LogLocator(numticks=9))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(power_of_ten))
    for lane in range(len(names)):
        ax.axhline(lane, color=FAINT, lw=1, zorder=1)
    return ax
