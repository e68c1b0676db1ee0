"""The figures of chapter 09: idle multiprocessors, what each part weighs, bytes by tensor, time over the number of splits, measured rates.

Numbers come from the caller, never from here.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

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
    size,
    text_width,
    tint,
    word_colour,
)
from course_lib.figures.rows import row, whole

Q, K, V, OUTPUT, MEMORY, MASKED = (COLOURS[name] for name in ("Q", "K", "V", "output", "memory", "masked"))
PARTS = {"Q": Q, "K": K, "V": V, "parts and their lse": MEMORY, "output": OUTPUT}
_DASHED = (0, (4, 2))


# ---------------------------------------------------------------- who works


def opening(heads: int = 8, splits: int = 16, multiprocessors: int = 132) -> Picture:
    """A GPU's multiprocessors under one request: a program a K/V head, and a program a split of it."""
    heads, splits, multiprocessors = whole(heads, "heads"), whole(splits, "splits"), whole(multiprocessors, "multiprocessors")
    if multiprocessors > 200 or splits > 32 or heads * splits > multiprocessors:
        raise ValueError(
            f"opening draws at most 200 multiprocessors, 32 splits and one program on each; it was asked for {heads} x {splits} on {multiprocessors}"
        )
    title = (
        f"One request, {many(heads, 'K/V head')}: {heads} of {multiprocessors} multiprocessors work. "
        f"With the keys cut into {splits}, {heads * splits} do"
    )
    with Card(title, height=3.1) as card:
        ax = card.axes(0, 0, WIDTH, 3.1, bare=True)
        for left, parts, words in ((0.5, 1, "a program a head"), (4.9, splits, f"a program a split, {splits} a head")):
            say(ax, left, 2.9, words, "left center", INK, LABEL_SIZE, fontweight="bold")
            say(ax, left, 2.62, "the keys of one head", "left center", MUTED)
            wide, gap = 3.4 / parts, 0.02 * (parts > 1)
            for part in range(parts):
                ax.add_patch(Rectangle((left + part * wide, 2.28), wide - gap, 0.2, facecolor=K, linewidth=0))
            _chip(ax, left, 2.0, multiprocessors, heads * parts)
            say(ax, left, 0.1, f"{heads * parts} of {multiprocessors} multiprocessors read", "left center", MUTED)
        return card.picture(
            f"Two GPUs of {multiprocessors} squares, a square a multiprocessor. Left, one program a K/V head: {heads} squares are filled. Right, each "
            f"head's keys are cut into {splits}: {heads * splits} squares are filled."
        )


def _chip(ax: Axes, left: float, top: float, multiprocessors: int, busy: int) -> None:
    across = -(-multiprocessors // 9)
    side = min(3.4 / across, 0.195)
    for i in range(multiprocessors):
        x, y = left + i % across * side, top - (i // across + 1) * side
        ax.add_patch(Rectangle((x, y), side * 0.84, side * 0.84, facecolor=OUTPUT if i < busy else tint(MASKED, 0.22), linewidth=0))


# ---------------------------------------------------------------- what a part weighs


def part_weights(lses: Sequence[float], shares: Sequence[float], keys: Sequence[int], title: str | None = None) -> Picture:
    """What each part counts in the merged output: a bar a part, its log-sum-exp and its number of keys under it."""
    weight = row(shares, "shares")
    if not 2 <= weight.size <= 10 or len(lses) != weight.size or len(keys) != weight.size or (weight < 0).any() or abs(weight.sum() - 1) > 1e-3:
        raise ValueError("part_weights draws two to ten parts: one lse, one number of keys and one share each, and the shares add up to 1")
    most = int(weight.argmax())
    title = title or f"Part {most} has {keys[most] / sum(keys):.0%} of the keys and {weight[most]:.0%} of the weight: its log-sum-exp is the largest"
    with Card(title, height=2.6) as card:
        ax = card.axes(0.85, 0.8, WIDTH - 1.2, 1.65)
        for i, share in enumerate(weight):
            ax.bar(i, 100 * share, width=0.62, color=OUTPUT if i == most else tint(OUTPUT, 0.55))
            say(ax, i, 100 * share, f"{100 * share:.1f} %", "center bottom", INK)
        ax.set_ylim(0, 118 * weight.max())
        ax.set_xlim(-0.6, weight.size - 0.4)
        ax.set_ylabel("share of the output (%)")
        ax.xaxis.set_major_locator(FixedLocator(range(weight.size)))
        ax.set_xticklabels([f"part {i}\n{many(n, 'key')}\nlse {number(lse)}" for i, (n, lse) in enumerate(zip(keys, lses, strict=True))])
        told = "; ".join(
            f"part {i}: {n} keys, lse {number(lse)}, {100 * s:.1f} %" for i, (n, lse, s) in enumerate(zip(keys, lses, weight, strict=True))
        )
        return card.picture(f"Shares of the parts in the merged output. {told}.")


# ---------------------------------------------------------------- bytes


def requested(ways: Mapping[str, Mapping[str, float]], compulsory: float, title: str | None = None, note: str = "") -> Picture:
    """Requested bytes of ways to decode, a colour for each tensor, and the compulsory bytes as a line."""
    if not ways or not compulsory > 0 or any(not parts or set(parts) - set(PARTS) or min(parts.values()) < 0 for parts in ways.values()):
        raise ValueError(
            f"requested needs compulsory bytes above 0 and at least one way, each {{tensor: bytes}} with tensors among {', '.join(PARTS)}"
        )
    totals = {way: sum(parts.values()) for way, parts in ways.items()}
    most = max(totals, key=totals.get)
    title = title or f"{most[:1].upper()}{most[1:]} requests {size(totals[most])}, {number(totals[most] / compulsory)} times the compulsory bytes"
    left = 0.45 + max(text_width(way, LABEL_SIZE) for way in ways)
    used = [name for name in PARTS if any(parts.get(name) for parts in ways.values())]
    tall = 0.46 * len(ways)
    with Card(title, height=tall + 1.15, note=note) as card:
        ax = card.axes(left, 0.55, WIDTH - left - 1.2, tall)
        for y, (way, parts) in enumerate(ways.items()):
            x = 0.0
            for name in used:
                ax.barh(y, parts.get(name, 0) / 1024, left=x, height=0.6, color=PARTS[name], edgecolor=CARD, linewidth=0.4)
                x += parts.get(name, 0) / 1024
            say(ax, x, y, f"  {size(totals[way])}", "left center", INK, clip_on=False)
            say(ax, 0, y, f"{way}  ", "right center", INK, LABEL_SIZE, clip_on=False)
        ax.axvline(compulsory / 1024, color=INK, linewidth=1.2, linestyle=_DASHED)
        ax.set_ylim(len(ways) - 0.5, -0.5)
        ax.set_xlim(0, max([*totals.values(), compulsory]) / 1024)
        ax.yaxis.set_major_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        ax.set_xlabel("requested bytes (KiB)")
        x = left
        for name in used:
            box = (x / card.width, (tall + 0.78) / card.height)
            card.figure.add_artist(
                Rectangle(box, 0.14 / card.width, 0.14 / card.height, facecolor=PARTS[name], linewidth=0, transform=card.figure.transFigure)
            )
            card.text(x + 0.2, tall + 0.85, name, size=SMALL_SIZE, va="center")
            x += 0.42 + text_width(name, SMALL_SIZE)
        card.text(x, tall + 0.85, f"- - compulsory: {size(compulsory)}", size=SMALL_SIZE, va="center", colour=MUTED)
        told = " ".join(
            f"{way}: {size(totals[way])}, of it {', '.join(f'{name} {size(n)}' for name, n in parts.items() if n)}." for way, parts in ways.items()
        )
        return card.picture(f"Requested bytes. {told} Compulsory: {size(compulsory)}.")


# ---------------------------------------------------------------- how many splits


def split_times(cases: Mapping[str, Sequence[float]], title: str | None = None, note: str = "") -> Picture:
    """Modelled time over the number of splits, a line a case: {"1 request": [time with 1 split, with 2, ...]}; the fastest is marked."""
    lines = {name: row(values, name) for name, values in cases.items()}
    if not 1 <= len(lines) <= 4 or any(v.size < 2 or (v <= 0).any() for v in lines.values()):
        raise ValueError("split_times draws one to four cases, each with at least two times above 0")
    best = {name: int(v.argmin()) for name, v in lines.items()}
    title = title or "; ".join(
        f"{name}: {many(b + 1, 'split')}" + (f", {number(lines[name][0] / lines[name][b], 2)}x as fast as 1" if b else " is the fastest")
        for name, b in best.items()
    )
    with Card(title, height=3.1, note=note) as card:
        right = max(text_width(name, LABEL_SIZE) for name in lines)
        ax = card.axes(0.9, 0.6, WIDTH - 1.3 - right, 2.4)
        draw_split_times(ax, lines)
        told = " ".join(f"{name}: {number(v[0])} tiles' time with 1 split, {number(v.min())} with {best[name] + 1}." for name, v in lines.items())
        return card.picture(f"Time over the number of splits, log axes. {told}")


def draw_split_times(ax: Axes, lines: Mapping[str, Sequence[float]], marked: int | None = None) -> None:
    """The curves; a filled dot on the fastest of each, a ring on `marked`, a number of splits."""
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ends = []
    for (name, times), colour in zip(lines.items(), (OUTPUT, K, V, Q), strict=False):
        n = range(1, len(times) + 1)
        ax.plot(n, times, color=colour, linewidth=1.6)
        best = min(n, key=lambda s: (times[s - 1], s))
        ax.plot([best], [times[best - 1]], marker="o", markersize=7, color=colour, zorder=4)
        if marked is not None and marked <= len(times):
            ax.plot([marked], [times[marked - 1]], marker="o", markersize=12, fillstyle="none", color=INK, zorder=5)
        ends.append((len(times), times[-1], name, colour))
    ax.set_xlim(0.93, max(max(len(times) for times in lines.values()), 2) * 1.04)
    low, high = min(min(times) for times in lines.values()), max(max(times) for times in lines.values())
    ax.set_ylim(low / 1.5, high * 1.5)
    label_ends(ax, ends, gap=0.22)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
    ax.set_xlabel("splits of each head's keys")
    ax.set_ylabel("time (one tile of keys = 1)")
    ax.grid(axis="y")


# ---------------------------------------------------------------- measured


def splits_raced(rows: Sequence[Mapping], places: int, title: str | None = None, note: str = "") -> Picture:
    """Measured speed over the number of splits, beside the rule's: rows with `splits`, `programs`, `times as fast as 1 split`, `by the rule`."""
    needed = ("splits", "programs", "times as fast as 1 split", "by the rule")
    if len(rows) < 2 or any(not isinstance(r.get(key), int | float) or r[key] <= 0 for r in rows for key in needed):
        raise ValueError(f"splits_raced needs at least two rows with numbers above 0 named {', '.join(needed)}")
    measured, rule = needed[2:]
    best = max(rows, key=lambda r: r[measured])
    over = next((r for r in rows if r["programs"] > places), None)  # the first that begins a second wave
    words = f"Measured: {many(best['splits'], 'split')}, {number(best[measured], 3)}x as fast as 1"
    if over:
        words += f"; {over['splits']} splits, {over['programs']} programs for {places} places: {number(over[measured], 3)}x"
    with Card(title or words, height=3.0, note=note.replace("`", "")) as card:
        ax = card.axes(0.9, 0.6, WIDTH - 2.6, 2.3)
        ends = []
        for name, colour, key, dashes in (("measured", OUTPUT, measured, "-"), ("by the rule", MEMORY, rule, _DASHED)):
            ax.plot([r["splits"] for r in rows], [r[key] for r in rows], color=colour, linewidth=1.6, linestyle=dashes, marker="o", markersize=3.5)
            ends.append((rows[-1]["splits"], rows[-1][key], name, colour))
        ax.set_xscale("log", base=2)
        ax.set_ylim(0, 1.1 * max(r[key] for r in rows for key in (measured, rule)))
        ax.set_xlim(0.93, 1.04 * rows[-1]["splits"])
        label_ends(ax, ends, gap=0.22)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("splits of each head's keys")
        ax.set_ylabel("times as fast as 1 split")
        ax.grid(axis="y")
        told = "; ".join(f"{r['splits']}: {number(r[measured], 3)} and {number(r[rule], 3)}" for r in rows)
        return card.picture(f"Times as fast as one split, measured and by the rule, over the number of splits. {told}.")


def rates(rows: Sequence[Mapping], title: str | None = None, note: str = "") -> Picture:
    """GB/s of the course's decode kernel and its peers, one panel for each problem, as `course bench decode` records them; the line is the ceiling."""
    if not rows or len(rows) > 4:
        raise ValueError(f"rates draws one to four problems, and there are {len(rows)}")
    names = [key.removesuffix(" (GB/s)") for key in rows[0] if key.endswith(" (GB/s)")]
    if "course" not in names or any(not isinstance(r[f"{n} (GB/s)"], int | float) for r in rows for n in names):
        raise ValueError("rates needs a number 'NAME (GB/s)' for every kernel in every row, the course's among them")
    shares = [r["of the ceiling (%)"] for r in rows]
    words = f"The course's kernel reads K and V at {min(shares):.0f} to {max(shares):.0f}\u00a0% of the copy bandwidth"
    if "cuDNN" in names:
        low, high = (f"{end(r['course / cuDNN'] for r in rows):.2f}" for end in (min, max))
        words += f", {low if low == high else f'{low} to {high}'} times cuDNN"
    title = title or words
    left = 0.4 + max(text_width(name, LABEL_SIZE) for name in names)
    each, tall = (WIDTH - left - 0.2) / len(rows), 0.3 * len(names)
    ceilings = [100 * r["course (GB/s)"] / share for r, share in zip(rows, shares, strict=True)]
    top = max(*(r[f"{n} (GB/s)"] for r in rows for n in names), *ceilings)
    with Card(title, height=tall + 1.0, note=note.replace("`", "")) as card:
        for p, (r, ceiling) in enumerate(zip(rows, ceilings, strict=True)):
            ax = card.axes(left + p * each, 0.55, each - 0.5, tall)
            for y, name in enumerate(names):
                rate = r[f"{name} (GB/s)"]
                ax.barh(y, rate, height=0.66, color=OUTPUT if name == "course" else tint(MEMORY, 0.45))
                say(ax, max(rate, ceiling) if rate > ceiling * 0.7 else rate, y, f" {rate:,.0f}", "left center", INK, clip_on=False)
                if not p:
                    say(ax, 0, y, f"{name} ", "right center", word_colour(OUTPUT) if name == "course" else INK, LABEL_SIZE, clip_on=False)
            ax.axvline(ceiling, color=INK, linewidth=1.2, linestyle=_DASHED)
            ax.set_xlim(0, top * 1.05)
            ax.set_ylim(len(names) - 0.5, -0.5)
            ax.yaxis.set_major_locator(NullLocator())
            ax.xaxis.set_major_locator(FixedLocator([0, 2000, 4000] if top > 3000 else [0, round(top)]))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            ax.set_xlabel("GB/s (dashed: a copy)")
            card.text(left + p * each, tall + 0.75, f"{many(r['requests'], 'request')} of {r['context']:,}", size=LABEL_SIZE, weight="bold")
        told = " ".join(
            f"{many(r['requests'], 'request')} of {r['context']:,} keys: " + ", ".join(f"{n} {r[f'{n} (GB/s)']:,.0f}" for n in names) + "."
            for r in rows
        )
        return card.picture(f"GB/s of decode kernels. {told} A copy reaches {ceilings[0]:,.0f}.")
