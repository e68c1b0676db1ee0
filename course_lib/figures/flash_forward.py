"""The figures of chapter 05: who hands what to whom, bytes by tensor, the IO theorem over tiles, the walk over tiles, shared memory, speed.

Numbers come from the caller or from shapes, never from here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

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
    rounded,
    say,
    size,
    text_width,
    tint,
    word_colour,
)
from course_lib.figures.rows import whole

Q, K, V, OUTPUT, MEMORY, MASKED = (COLOURS[name] for name in ("Q", "K", "V", "output", "memory", "masked"))
PARTS = {"Q": Q, "K": K, "V": V, "S and P": MEMORY, "output": OUTPUT, "row_max, row_sum": tint(OUTPUT, 0.45)}
SKIPPED, MASKED_TILE, LOADED, WAITING = "skipped", "masked", "loaded", "not yet"


# ---------------------------------------------------------------- who hands what to whom


def two_ways() -> Picture:
    """Naive attention as three kernels with memory between them, and one fused kernel beside it."""
    title = "Three kernels hand two N x N matrices through memory; one kernel hands over none"
    with Card(title, height=3.1) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, 3.1, bare=True)
        wide = WIDTH - 0.4
        for y, words in ((2.52, "memory"), (0.75, "on the chip")):
            say(ax, 0.05, y, words, "left center", MUTED, rotation=90)
        ax.plot([0.3, wide], [1.68, 1.68], color=MASKED, linewidth=0.8, linestyle=(0, (4, 3)))
        x = 0.45
        for name, product, colour in (("Q K\u1d40", "S", K), ("softmax", "P", K), ("P V", "O", OUTPUT)):
            rounded(ax, x, 0.35, 1.0, 0.62, tint(colour, 0.14), colour, linewidth=1.2)
            say(ax, x + 0.5, 0.66, name, "center center", INK, LABEL_SIZE)
            large = product != "O"
            w, h = (0.78, 0.78) if large else (0.26, 0.78)
            left = x + 1.22 - w / 2
            ax.add_patch(Rectangle((left, 1.98), w, h, facecolor=tint(MEMORY, 0.75) if large else tint(OUTPUT, 0.5), edgecolor=MEMORY, linewidth=1))
            say(ax, left + w / 2, 2.37, product, "center center", CARD if large else INK, LABEL_SIZE, fontweight="bold")
            say(ax, left + w / 2, 2.82, "N x N" if large else "N x d", "center bottom", MUTED)
            arrow(ax, (x + 0.8, 1.0), (left + w * 0.3, 1.94), MEMORY)
            if large:
                arrow(ax, (left + w * 0.85, 1.94), (x + 1.75, 1.0), MEMORY)
            x += 1.5
        left = 5.35
        rounded(ax, left, 0.3, 2.2, 1.18, tint(OUTPUT, 0.1), OUTPUT, linewidth=1.2)
        say(ax, left + 1.1, 1.3, "one kernel", "center center", INK, LABEL_SIZE)
        for i, (name, colour) in enumerate((("S", K), ("P", K), ("acc", OUTPUT))):
            at = left + 0.3 + i * 0.62
            ax.add_patch(Rectangle((at, 0.5), 0.4, 0.4, facecolor=tint(colour, 0.5), edgecolor=colour, linewidth=1))
            say(ax, at + 0.2, 0.7, name, "center center", INK, SMALL_SIZE)
            if i < 2:
                arrow(ax, (at + 0.42, 0.7), (at + 0.6, 0.7))
        say(ax, left + 1.1, 0.98, "tiles, one after another", "center bottom", MUTED)
        for at, name, colour in ((left + 0.25, "Q", Q), (left + 0.75, "K", K), (left + 1.25, "V", V), (left + 1.95, "O", OUTPUT)):
            ax.add_patch(Rectangle((at - 0.13, 1.98), 0.26, 0.78, facecolor=tint(colour, 0.5), edgecolor=colour, linewidth=1))
            say(ax, at, 2.37, name, "center center", INK, LABEL_SIZE, fontweight="bold")
            arrow(ax, *(((at, 1.94), (at, 1.53)) if name != "O" else ((at, 1.53), (at, 1.94))), colour=MEMORY)
        say(ax, 0.45, 0.08, "naive: S and P are written, and read back", "left bottom", INK)
        say(ax, left, 0.08, "flash: a tile of S and P lives and dies on the chip", "left bottom", INK)
        return card.picture(
            "Left, naive attention: the kernel Q K^T writes S, N by N, to memory; the softmax kernel reads it and writes P, N by N; the kernel P V reads P and "
            "writes O, N by d. Right: one kernel reads Q, K and V, keeps tiles of S, P and acc on the chip, and writes O."
        )


# ---------------------------------------------------------------- bytes by tensor


def requested(ways: Mapping[str, Mapping[str, float]], title: str | None = None, compulsory: float | None = None, note: str = "") -> Picture:
    """Requested bytes of several ways as stacked bars, a colour for each tensor: {way: {"Q": bytes, "K": ..., "S and P": ...}}.

    compulsory: bytes that no way can do without, drawn as a line.
    """
    if not ways or any(not parts or set(parts) - set(PARTS) or min(parts.values()) < 0 for parts in ways.values()):
        raise ValueError(f"requested needs at least one way, each {{tensor: bytes}} with tensors among {', '.join(PARTS)}")
    totals = {way: sum(parts.values()) for way, parts in ways.items()}
    most, least = max(totals, key=totals.get), min(totals, key=totals.get)
    if title is None:
        title = f"{_upper(most)} requests {size(totals[most])}" + (
            f", {number(totals[most] / totals[least], 2)} times as much as {least}" if totals[most] > totals[least] else ""
        )
    left = 0.45 + max(text_width(way, LABEL_SIZE) for way in ways)
    used = [name for name in PARTS if any(parts.get(name) for parts in ways.values())]
    tall = 0.46 * len(ways)
    with Card(title, height=tall + 1.15, note=note) as card:
        ax = card.axes(left, 0.55, WIDTH - left - 1.15, tall)
        top = max([*totals.values(), compulsory or 0])
        for y, (way, parts) in enumerate(ways.items()):
            x = 0.0
            for name in used:
                ax.barh(y, parts.get(name, 0), left=x, height=0.6, color=PARTS[name], edgecolor=CARD, linewidth=0.6)
                x += parts.get(name, 0)
            say(ax, x, y, f"  {size(totals[way])}", "left center", INK, clip_on=False)
            say(ax, 0, y, f"{way}  ", "right center", INK, LABEL_SIZE, clip_on=False)
        ax.set_ylim(len(ways) - 0.5, -0.5)
        _bytes_axis(ax, top)
        if compulsory is not None:
            ax.axvline(compulsory, color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
        x = left
        for name in used:
            card.figure.add_artist(_swatch(card, x, tall + 0.78, PARTS[name]))
            card.text(x + 0.2, tall + 0.85, name, size=SMALL_SIZE, va="center")
            x += 0.42 + text_width(name, SMALL_SIZE)
        if compulsory is not None:
            card.text(x + 0.1, tall + 0.85, f"- - compulsory: {size(compulsory)}", size=SMALL_SIZE, va="center", colour=MUTED)
        told = " ".join(
            f"{_upper(way)}: {size(totals[way])}, of it {', '.join(f'{name} {size(n)}' for name, n in parts.items() if n)}."
            for way, parts in ways.items()
        )
        return card.picture(f"Requested bytes. {told}" + (f" Compulsory: {size(compulsory)}." if compulsory is not None else ""))


def _upper(words: str) -> str:
    return words[:1].upper() + words[1:]


def _swatch(card: Card, x: float, y: float, colour: str) -> Rectangle:
    return Rectangle((x / card.width, y / card.height), 0.14 / card.width, 0.14 / card.height, facecolor=colour, transform=card.figure.transFigure)


def _bytes_axis(ax: Axes, top: float) -> None:
    unit, word = next((u, w) for u, w in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes")) if top >= u or u == 1)
    ax.set_xlim(0, top * 1.02)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x / unit, 3)))
    step = next(s for s in (m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5)) if top / unit / s <= 6) * unit
    ax.xaxis.set_major_locator(FixedLocator(np.arange(0, top * 1.02, step)))
    ax.set_xlabel(f"requested bytes ({word})")
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)


# ---------------------------------------------------------------- the IO theorem


def io_sweep(counted: Mapping[int, Mapping[int, float]], computed: Mapping[int, Mapping[int, float]], title: str | None = None) -> Picture:
    """Requested bytes over BLOCK_M, log axes, one line for each N: points are counted, lines computed. {N: {BLOCK_M: bytes}}."""
    if not counted or any(set(points) - set(computed.get(n, {})) for n, points in counted.items()):
        raise ValueError("io_sweep needs {N: {BLOCK_M: bytes}}, counted, and the same places computed")
    exact = sum(points[m] == computed[n][m] for n, points in counted.items() for m in points)
    places = sum(map(len, counted.values()))
    n = max(counted)
    low, high = min(counted[n]), max(counted[n])
    if title is None:
        title = f"{exact} of {places} counts equal the closed form to the byte; {high // low}x taller tiles ask for {number(counted[n][low] / counted[n][high], 3)}x fewer bytes"
    with Card(title, height=3.3) as card:
        ax = card.axes(0.95, 0.6, WIDTH - 2.6, 2.6)
        ends = []
        for i, n in enumerate(sorted(counted)):
            colour = tint(K, 0.45 + 0.55 * (i + 1) / len(counted))
            line = sorted(computed[n].items())
            ax.plot([m for m, _ in line], [b for _, b in line], color=colour, zorder=2)
            ax.plot(list(counted[n]), list(counted[n].values()), "o", color=INK, markersize=5, zorder=3)
            ends.append((line[-1][0], line[-1][1], f"N = {n:,}", K))
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        heights = sorted({m for points in computed.values() for m in points})
        ax.set_xlim(heights[0] / 1.2, heights[-1] * 1.05)
        ax.xaxis.set_major_locator(FixedLocator(heights))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x):,}"))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
        ax.grid(axis="y")
        ax.set_xlabel("BLOCK_M, queries a tile")
        ax.set_ylabel("requested bytes")
        label_ends(ax, ends)
        card.text(WIDTH - 2.6, 0.15, "points: counted   lines: computed", size=SMALL_SIZE, colour=MUTED, va="center")
        told = " ".join(f"N = {n:,}: {', '.join(f'{size(b)} at {m}' for m, b in sorted(points.items()))}." for n, points in counted.items())
        return card.picture(f"Requested bytes over BLOCK_M. {told} {exact} of {places} equal the closed form.")


# ---------------------------------------------------------------- the walk over tiles


def tiles_of(n_q: int, n_kv: int, block_m: int, block_n: int, causal: bool) -> np.ndarray:
    """What becomes of each tile of scores under a causal mask aligned bottom right: an array of SKIPPED, MASKED_TILE, LOADED.

    A tile is masked where single scores in it are hidden: by the diagonal, or because it reaches past the last key.
    """
    n_q, n_kv = whole(n_q, "n_q"), whole(n_kv, "n_kv", least=0)
    block_m, block_n = whole(block_m, "block_m"), whole(block_n, "block_n")
    tiles = np.full((-(-n_q // block_m), -(-n_kv // block_n)), LOADED, dtype=object)
    for i in range(tiles.shape[0]):
        first, last = i * block_m + n_kv - n_q, min((i + 1) * block_m, n_q) - 1 + n_kv - n_q  # keys seen by the tile's first and last query
        for j in range(tiles.shape[1]):
            if causal and j * block_n > last:
                tiles[i, j] = SKIPPED
            elif (j + 1) * block_n > n_kv or (causal and (j + 1) * block_n - 1 > first):
                tiles[i, j] = MASKED_TILE
    return tiles


def tile_grid(ax: Axes, tiles: np.ndarray, left: float, bottom: float, wide: float, high: float, current: tuple[int, int] | None = None) -> None:
    """The tiles in inches; `current` is outlined."""
    down, across = tiles.shape
    faces = {LOADED: tint(K, 0.75), MASKED_TILE: tint(K, 0.35), SKIPPED: CARD, WAITING: tint(MASKED, 0.22)}
    for i in range(down):
        for j in range(across):
            x, y = left + j * wide, bottom + (down - 1 - i) * high
            kind = tiles[i, j]
            ax.add_patch(Rectangle((x, y), wide, high, facecolor=faces[kind], edgecolor=tint(MASKED, 0.8), linewidth=0.6))
            if kind == MASKED_TILE:
                ax.plot([x, x + wide], [y + high, y], color=K, linewidth=0.9, solid_capstyle="butt")
    if current is not None:
        i, j = current
        box = Rectangle((left + j * wide, bottom + (down - 1 - i) * high), wide, high, facecolor="none", edgecolor=INK, linewidth=2.2, zorder=5)
        ax.add_patch(box)


def tile_key(card: Card, x: float, y: float, kinds: Sequence[tuple[str, str]]) -> None:
    """The legend: (kind, words) from the top down, in inches."""
    for n, (kind, words) in enumerate(kinds):
        mark = card.axes(x, y - n * 0.28 - 0.08, 0.18, 0.16, bare=True)
        tile_grid(mark, np.array([[kind]], dtype=object), 0, 0, 0.18, 0.16)
        card.text(x + 0.28, y - n * 0.28, words, size=SMALL_SIZE, va="center")


# ---------------------------------------------------------------- speed


OURS = {"flash_forward": "plain", "two_tiles": "two tiles", "descriptors": "descriptors", "course": "the course's"}


def speeds(rows: Sequence[Mapping], head: int = 128, what: str = "", note: str = "") -> Picture:
    """TFLOP/s of the course's kernels and their peers, one panel for each (causal, N) of this head size.

    rows as `course bench flash_forward` records them: "D", "N", "causal" ("yes" or "no"), and "NAME (TFLOP/s)" columns, a number or a word.
    what: said before the case in the title.
    """
    chosen = [row for row in rows if row.get("D") == head]
    if not chosen:
        raise ValueError(f"speeds: no row has D = {head}; there are {sorted({row.get('D') for row in rows}, key=str)}")
    if len({(row["causal"], row["N"]) for row in chosen}) < len(chosen):
        raise ValueError("speeds: a case has two rows, so that one would hide the other; hand over the rows of one kernel")
    names = [key.removesuffix(" (TFLOP/s)") for key in chosen[0] if key.endswith(" (TFLOP/s)")]
    panels = {
        (row["causal"], row["N"]): {n: row[f"{n} (TFLOP/s)"] for n in names if isinstance(row[f"{n} (TFLOP/s)"], int | float)} for row in chosen
    }
    key = max(panels, key=lambda key: (key[0] == "no", key[1]))
    mine = {n: r for n, r in panels[key].items() if n in OURS}
    best = max(mine, key=mine.get)
    peers = {n: r for n, r in panels[key].items() if n not in OURS and n != "naive"}
    case = f"{what}{'full' if key[0] == 'no' else 'causal'}, N = {key[1]:,}"
    who = "the course's kernels reach" if "course" in mine else f"the course's best kernel ({OURS[best]}) reaches"
    title = f"{case[0].upper()}{case[1:]}: {who} {number(mine[best], 3)} TFLOP/s"
    title += "".join(f", {mine[best] / peers[n]:.2f}x {n}" for n in ("FA2", "cuDNN", "FA3") if n in peers)
    order = sorted(names, key=lambda n: -max(panel.get(n, 0) for panel in panels.values()))
    left = 0.35 + max(text_width(OURS.get(n, n), LABEL_SIZE) for n in names)
    each = (WIDTH - left - 0.4) / len(panels)
    top = max(max(panel.values()) for panel in panels.values())
    tall = 0.27 * len(order)
    with Card(title, height=tall + 0.95, note=note.replace("`", "")) as card:
        for p, ((causal, n), panel) in enumerate(sorted(panels.items())):
            ax = card.axes(left + p * each, 0.5, each - 0.3, tall)
            for y, name in enumerate(order):
                rate = panel.get(name)
                ax.barh(y, rate or 0, height=0.66, color=OUTPUT if name in OURS else tint(MEMORY, 0.45))
                say(ax, rate or 0, y, f" {number(rate, 3)}" if rate else " -", "left center", INK, clip_on=False)
                if not p:
                    say(ax, 0, y, f"{OURS.get(name, name)} ", "right center", word_colour(OUTPUT) if name in OURS else INK, LABEL_SIZE, clip_on=False)
            ax.set_xlim(0, top * 1.22)
            ax.set_ylim(len(order) - 0.5, -0.5)
            ax.set_yticks([])
            ax.xaxis.set_major_locator(FixedLocator([0, 200, 400, 600] if top > 300 else [0, round(top / 2), round(top)]))
            ax.set_xlabel("TFLOP/s")
            card.text(left + p * each, tall + 0.62, f"{'causal' if causal == 'yes' else 'full'}, N = {n:,}", size=LABEL_SIZE, weight="bold")
        told = " ".join(
            f"{'Causal' if c == 'yes' else 'Full'}, N = {n:,}: {', '.join(f'{OURS.get(k, k)} {number(r, 3)}' for k, r in panel.items())}."
            for (c, n), panel in panels.items()
        )
        return card.picture(f"TFLOP/s, D = {head}. {told}")


# ---------------------------------------------------------------- shared memory


def shared_memory(need: float, limits: Mapping[str, float], parts: Mapping[str, float], title: str | None = None, note: str = "") -> Picture:
    """What one block's tiles need against what GPUs give a block. Bytes; parts: {"Q": bytes, "K": ..., "V": ...}; limits: {GPU: bytes}."""
    fits = [name for name, limit in limits.items() if need <= limit]
    if title is None:
        where = "on every GPU here" if len(fits) == len(limits) else f"on {', '.join(fits)}" if fits else "on none of these GPUs"
        title = f"These tiles need {size(need)}: they fit {where}"
    tall = 0.34 * (len(limits) + 1)
    with Card(title, height=tall + 0.75, note=note) as card:
        ax = card.axes(1.35, 0.55, WIDTH - 2.6, tall)
        top = max([need, *limits.values()])
        x = 0.0
        for name, count in parts.items():
            ax.barh(0, count, left=x, height=0.62, color=PARTS[name], edgecolor=CARD, linewidth=0.6)
            if text_width(name, SMALL_SIZE) < count / (top * 1.04) * (WIDTH - 2.6) - 0.08:
                say(ax, x + count / 2, 0, name, "center center", CARD, SMALL_SIZE, fontweight="bold")
            x += count
        say(ax, need, 0, f"  {size(need)}", "left center", INK, clip_on=False)
        say(ax, 0, 0, "these tiles  ", "right center", INK, LABEL_SIZE, clip_on=False)
        for y, (name, limit) in enumerate(limits.items(), start=1):
            ok = need <= limit
            ax.barh(y, limit, height=0.5, color=tint(MEMORY, 0.45) if ok else tint(MASKED, 0.3))
            say(
                ax,
                limit,
                y,
                f"  {size(limit)}{'' if ok else ': too little'}",
                "left center",
                INK if ok else MUTED,
                clip_on=False,
                backgroundcolor=CARD,
                zorder=2,
            )
            say(ax, 0, y, f"{name}  ", "right center", INK if ok else MUTED, LABEL_SIZE, clip_on=False)
        ax.axvline(need, color=INK, linewidth=1.0, linestyle=(0, (3, 2)), zorder=1)
        ax.set_xlim(0, top * 1.04)
        ax.set_ylim(len(limits) + 0.5, -0.5)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x / 1024, 3)))
        step = next(s for s in (16, 32, 64, 128, 256, 512, 1024) if top / 1024 / s <= 6 or s == 1024) * 1024
        ax.xaxis.set_major_locator(FixedLocator(np.arange(0, top * 1.04, step)))
        ax.set_xlabel("shared memory of one block (KiB)")
        told = ", ".join(f"{name} {size(limit)}" for name, limit in limits.items())
        return card.picture(
            f"Tiles that need {size(need)} ({', '.join(f'{n} {size(c)}' for n, c in parts.items())}). A block may have: {told}. {title}."
        )


def counted_parts(traffic) -> dict[str, int]:
    """The bytes of a counted flash kernel by tensor, from `traffic.count`: its arguments are named q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr."""
    names = {
        "q": "Q",
        "k": "K",
        "v": "V",
        "out": "output",
        "o": "output",
        "lse": "row_max, row_sum",
        "max": "row_max, row_sum",
        "sum": "row_max, row_sum",
    }
    parts: dict[str, int] = {}
    for name, one in traffic.tensors.items():
        short = name.split(".")[-1].split("_")[0]
        part = names.get(short, "S and P")
        parts[part] = parts.get(part, 0) + one.loaded + one.stored
    return parts


def told_tiles(tiles: np.ndarray) -> str:
    """`10 of 16 tiles loaded, 4 masked, 6 skipped`."""
    skipped, masked = int((tiles == SKIPPED).sum()), int((tiles == MASKED_TILE).sum())
    return f"{tiles.size - skipped} of {many(tiles.size, 'tile')} loaded, {masked} masked, {skipped} skipped"
