"""The figures of chapter 08: what a cache saves, scores after RoPE, time over a text, the cache of real models, batches, laws of sampling, memory.

Numbers come from the caller, never from here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

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
_DASHED, _DOTTED = (0, (4, 2)), (0, (1.2, 1.6))


# ---------------------------------------------------------------- what a cache saves


def opening(steps: int = 6) -> Picture:
    """Two triangles of tokens by steps: all computed again at every step, or each computed once and kept."""
    steps = whole(steps, "steps", 2)
    if steps > 8:
        raise ValueError(f"opening draws at most 8 steps, and {steps} were asked for")
    all_of_them = steps * (steps + 1) // 2
    title = f"Six tokens, one a step: {all_of_them} keys and values computed without a cache, {steps} with one"
    title = title if steps == 6 else title.replace("Six tokens", many(steps, "token"))
    cell, gap = 0.36, 0.05
    with Card(title, height=steps * cell + 1.0) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, steps * cell + 1.0, bare=True)
        for left, name, cached in ((0.75, "without a cache", False), (4.75, "with a cache", True)):
            top = steps * cell + 0.45
            say(ax, left, top + 0.25, name, "left center", INK, LABEL_SIZE, fontweight="bold")
            for step in range(steps):
                y = top - (step + 1) * cell
                say(ax, left - 0.12, y + cell / 2 - gap / 2, f"step {step + 1}", "right center", MUTED)
                for token in range(step + 1):
                    fresh = token == step or not cached
                    face = K if fresh else tint(MEMORY, 0.12)
                    ax.add_patch(
                        Rectangle((left + token * cell, y), cell - gap, cell - gap, facecolor=face, edgecolor=K if fresh else MEMORY, linewidth=1)
                    )
        for x, face, edge, words in ((0.75, K, K, "key and value computed"), (3.0, tint(MEMORY, 0.12), MEMORY, "read from the cache")):
            ax.add_patch(Rectangle((x, 0.08), 0.2, 0.2, facecolor=face, edgecolor=edge, linewidth=1))
            say(ax, x + 0.28, 0.18, words, "left center", MUTED)
        return card.picture(
            f"Two triangles of squares, a row a step, a column a token. Without a cache every square of the triangle is filled: {all_of_them} keys and "
            f"values computed in {steps} steps. With a cache only the last square of each row is, {steps} in all; the others are read from the cache."
        )


def rope_scores(distances: Sequence[int], scores: Mapping[str, Sequence[float]], title: str | None = None) -> Picture:
    """Scores of one query and one key over their distance, a line for each place in the text where they stand."""
    x = row(distances, "distances")
    lines = {name: row(values, name) for name, values in scores.items()}
    if not lines or any(v.size != x.size for v in lines.values()):
        raise ValueError("rope_scores needs at least one line, with one score a distance")
    apart = float(np.ptp(np.array(list(lines.values())), axis=0).max())
    title = title or f"The score depends on the distance alone: moved along the text it changes by {number(apart, 2)} at most"
    with Card(title, height=3.2) as card:
        ax = card.axes(0.85, 0.6, WIDTH - 3.1, 2.5)
        ax.set_xlim(x.min(), x.max())
        low, high = (choose(choose(v) for v in lines.values()) for choose in (min, max))
        ax.set_ylim(low - 0.12 * (high - low + 1), high + 0.12 * (high - low + 1))
        ax.grid(axis="y")
        ax.set_xlabel("distance between query and key (tokens)")
        ax.set_ylabel("score, q \u00b7 k")
        looks = ((Q, "-", 4.5, "o"), (K, _DASHED, 0, ""), (V, _DOTTED, 7, "|"))
        for (_name, values), (colour, dash, width, marker) in zip(lines.items(), looks, strict=False):
            ax.plot(x, values, color=colour, linestyle=dash, linewidth=1.8, marker=marker or None, markersize=width, markevery=4, zorder=3)
        ends = [(x[-1], values[-1], name, look[0]) for (name, values), look in zip(lines.items(), looks, strict=False)]
        label_ends(ax, ends, gap=0.22)
        return card.picture(
            f"Scores of one query and one key after RoPE, over distances from {int(x.min())} to {int(x.max())} tokens. {len(lines)} lines, for "
            f"{', '.join(lines)}, lie on each other: they differ by {number(apart, 2)} at most. The score is {number(lines[next(iter(lines))][0])} at the "
            "shortest distance and goes up and down from there."
        )


# ---------------------------------------------------------------- time


def last_over_first(seconds: Sequence[float]) -> float:
    """How many times as long the last quarter of the steps took as the first quarter: 1 where every step costs the same."""
    x = row(seconds, "seconds")
    if x.size < 8 or (x <= 0).any():
        raise ValueError("last_over_first: it needs at least eight steps, all above 0")
    quarter = x.size // 4
    return float(x[-quarter:].sum() / x[:quarter].sum())


def total_time(steps: Mapping[str, Sequence[float]], title: str | None = None) -> Picture:
    """Seconds of every step, by way of writing; drawn is the time so far: a straight line where every step costs the same."""
    each = {name: row(values, name) for name, values in steps.items()}
    if len(each) < 2 or len({v.size for v in each.values()}) != 1:
        raise ValueError("total_time needs two ways or more, each with the seconds of the same number of steps")
    sums, grows = {name: np.cumsum(v) for name, v in each.items()}, {name: last_over_first(v) for name, v in each.items()}
    n = np.arange(next(iter(each.values())).size + 1)
    slow, fast = (choose(sums, key=lambda name: sums[name][-1]) for choose in (max, min))
    quarter = n[-1] // 4
    title = title or (
        f"{n[-1]} tokens: {number(sums[slow][-1], 2)} s {slow}, {number(sums[fast][-1], 2)} s {fast}; the last {quarter} took "
        f"{number(grows[slow], 2)} and {number(grows[fast], 2)} times as long as the first {quarter}"
    )
    with Card(title, height=3.4) as card:
        ax = card.axes(0.95, 0.62, WIDTH - 3.0, 2.65)
        ends = []
        for (name, values), (colour, dash) in zip(sums.items(), ((K, "-"), (V, _DASHED), (MUTED, _DOTTED)), strict=False):
            ax.plot(n, (0, *values), color=colour, linestyle=dash, linewidth=2, zorder=3)
            ends.append((n[-1], values[-1], f"{name}: {number(values[-1], 2)} s", colour))
        ax.set_xlim(0, n[-1])
        ax.set_ylim(0, 1.04 * sums[slow][-1])
        label_ends(ax, ends, gap=0.22)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
        ax.set_xlabel("tokens written")
        ax.set_ylabel("time so far (s)")
        ax.grid(axis="y")
        told = " ".join(
            f"{name}: {number(values[-1], 2)} s in the end; the last {quarter} tokens took {number(grows[name], 2)} times as long as the first {quarter}."
            for name, values in sums.items()
        )
        return card.picture(f"Time to write up to {n[-1]} tokens. {told}")


def token_times(times: Mapping[str, Sequence[float]], title: str | None = None) -> Picture:
    """Seconds until each token, in order: the first of each list is the prefill's. One row of dots a prompt."""
    ms = {name: 1e3 * row(values, name) for name, values in times.items()}
    if not 1 <= len(ms) <= 4 or any(v.size < 3 or (v <= 0).any() for v in ms.values()):
        raise ValueError("token_times draws one to four prompts, each with at least three times above 0")
    longest = list(ms)[-1]
    title = title or (
        f"{longest[:1].upper()}{longest[1:]}: {number(ms[longest][0], 2)} ms to the first token, {number(float(np.median(ms[longest][1:])), 2)} ms to each of the others"
    )
    with Card(title, height=3.2) as card:
        ax = card.axes(0.95, 0.6, WIDTH - 3.35, 2.5)
        ax.set_yscale("log")
        ends = []
        for (name, values), (colour, mark) in zip(ms.items(), ((Q, "o"), (V, "s"), (K, "^"), (OUTPUT, "D")), strict=False):
            order = np.arange(1, values.size + 1)
            ax.plot(order[1:], values[1:], color=tint(colour, 0.7), marker=mark, markersize=3.5, linewidth=1, zorder=3)
            ax.plot(order[:1], values[:1], color=colour, marker=mark, markersize=9, linestyle="none", zorder=4, clip_on=False)
            ends.append((order[-1], float(np.median(values[1:])), f"{name}: first {number(values[0], 2)} ms", colour))
        ax.set_xlim(0.4, max(v.size for v in ms.values()) + 0.5)
        ax.set_ylim(min(v.min() for v in ms.values()) / 1.8, max(v.max() for v in ms.values()) * 1.8)
        label_ends(ax, ends, gap=0.22)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
        ax.set_xlabel("token (the large mark is the first: the prefill)")
        ax.set_ylabel("time to the token (ms)")
        ax.grid(axis="y")
        told = " ".join(f"{name}: {number(v[0])} ms to the first token, then {number(float(np.median(v[1:])))} ms a token." for name, v in ms.items())
        return card.picture(f"Times of single tokens in order, log axis. {told}")


def batching(batches: Sequence[int], measured: Sequence[float], bound: Sequence[float], title: str | None = None, named: str = "bound") -> Picture:
    """Tokens a second over the batch: measured here, and the most that the roofline allows."""
    n, got, most = row(batches, "batches"), row(measured, "measured"), row(bound, "bound")
    if n.size < 3 or got.size != n.size or most.size != n.size or min(n.min(), got.min(), most.min()) <= 0:
        raise ValueError("batching needs three batches or more, with one measured rate and one bound each, all above 0")
    title = title or f"{int(n[-1])} sequences at a time write {number(got[-1] / got[0], 2)} times as many tokens a second as {int(n[0])}"
    with Card(title, height=3.3) as card:
        ax = card.axes(0.95, 0.62, WIDTH - 3.0, 2.55)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.plot(n, most, color=INK, linewidth=1.6, linestyle=_DASHED, zorder=2)
        ax.plot(n, got, color=OUTPUT, linewidth=2, marker="o", markersize=5, zorder=3, clip_on=False)
        ax.set_xlim(n.min(), n.max())
        ax.set_ylim(min(got.min(), most.min()) / 1.6, max(got.max(), most.max()) * 1.6)
        label_ends(ax, [(n[-1], got[-1], "measured", OUTPUT), (n[-1], most[-1], named, INK)], gap=0.22)
        ax.set_xticks(n)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(x):,}"))
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{round(y):,}" if y >= 1 else number(y)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
        ax.set_xlabel("sequences in the batch")
        ax.set_ylabel("tokens a second, all together")
        ax.grid(axis="y")
        told = " ".join(f"Batch {int(b)}: {number(m)} of at most {number(t)}." for b, m, t in zip(n, got, most, strict=True))
        return card.picture(f"Tokens a second over the batch size, log axes. {told}")


# ---------------------------------------------------------------- what a cache takes


def cache_a_token(models: Mapping[str, tuple[float, str]], title: str | None = None, note: str = "") -> Picture:
    """Bytes of cache a token, a bar a model: {name: (bytes, how its heads are shared)}."""
    if not 2 <= len(models) <= 10 or any(not count > 0 for count, _ in models.values()):
        raise ValueError("cache_a_token draws two to ten models, each with a number of bytes above 0")
    most, least = (choose(models, key=lambda name: models[name][0]) for choose in (max, min))
    title = title or f"A token of {most} takes {size(models[most][0])}, one of {least} {size(models[least][0])}"
    step = 0.34
    with Card(title, height=len(models) * step + 0.75, note=note) as card:
        left = 0.35 + max(text_width(name, LABEL_SIZE) for name in models)
        ax = card.axes(left, 0.55, WIDTH - left - 2.3, len(models) * step + 0.1)
        ax.set_xlim(0, max(count for count, _ in models.values()) / 1024)
        ax.set_ylim(len(models) - 0.45, -0.55)
        ax.set_yticks(range(len(models)))
        ax.set_yticklabels(list(models), fontsize=LABEL_SIZE)
        ax.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            ax.spines[side].set_visible(False)
        ax.set_xlabel("cache of one token (KiB)")
        ax.grid(axis="x")
        for y, (count, shared) in enumerate(models.values()):
            ax.barh(y, count / 1024, height=0.62, color=K if shared.startswith("MHA") else tint(V, 0.85), zorder=3)
            ax.annotate(
                f"{size(count)}   {shared}", (count / 1024, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=SMALL_SIZE, color=INK
            )
        told = " ".join(f"{name}: {size(count)} ({shared})." for name, (count, shared) in models.items())
        return card.picture(f"Bytes of K/V cache for one token. {told}")


PARTS = {"weights": MEMORY, "cache": K, "activations": V}


def memory_bar(parts: Mapping[str, float], capacity: float, title: str, note: str = "") -> Picture:
    """What lies in a GPU's memory, as one bar against its capacity: {"weights": bytes, "cache": bytes, "activations": bytes}."""
    if set(parts) - set(PARTS) or not parts or min(parts.values()) < 0 or not capacity > 0:
        raise ValueError(f"memory_bar: the parts are {', '.join(PARTS)}, none below 0, and the capacity is above 0")
    total, gb = sum(parts.values()), 1e9
    most = max(capacity, total) * 1.02
    with Card(title, height=1.75, note=note) as card:
        ax = card.axes(0.35, 0.55, WIDTH - 0.7, 0.62)
        ax.set_xlim(0, most / gb)
        ax.set_ylim(0, 1)
        ax.set_yticks([])
        for side in ("top", "right", "left"):
            ax.spines[side].set_visible(False)
        ax.add_patch(Rectangle((0, 0.1), capacity / gb, 0.8, facecolor=tint(MASKED, 0.12), edgecolor=MASKED, linewidth=1, zorder=1))
        start = 0.0
        for name, count in parts.items():
            ax.add_patch(
                Rectangle((start / gb, 0.1), count / gb, 0.8, facecolor=tint(PARTS[name], 0.85), edgecolor=CARD, linewidth=1, zorder=2, clip_on=True)
            )
            start += count
        ax.plot([capacity / gb] * 2, [0, 1], color=INK, linewidth=2, zorder=4)
        ax.set_xlabel("GB (10\u2079 bytes)")
        x = 0.4
        for name, count in (*parts.items(), ("free" if total <= capacity else "too much", abs(capacity - total))):
            colour = PARTS.get(name, MASKED)
            key = card.axes(x, 1.4, 0.16, 0.16, bare=True)
            key.add_patch(Rectangle((0, 0), 0.16, 0.16, facecolor=tint(colour, 0.85 if name in PARTS else 0.12), edgecolor=colour))
            words = f"{name} {number(count / gb)} GB"
            card.text(x + 0.24, 1.48, words, size=SMALL_SIZE, va="center", colour=word_colour(colour) if name in PARTS else INK)
            x += 0.55 + text_width(words, SMALL_SIZE)
        told = ", ".join(f"{name} {number(count / gb)} GB" for name, count in parts.items())
        return card.picture(f"{title}. In a memory of {number(capacity / gb)} GB: {told}; {number(total / gb)} GB together. {note}")


# ---------------------------------------------------------------- sampling


def laws(panels: Mapping[str, Sequence[float]], tokens: Sequence[str], title: str | None = None) -> Picture:
    """How often each token is drawn, a panel a setting: {"temperature 1": [a share a token]}."""
    shares = {name: row(values, name) for name, values in panels.items()}
    if not 2 <= len(shares) <= 4 or any(v.size != len(tokens) or (v < 0).any() for v in shares.values()) or len(tokens) > 12:
        raise ValueError("laws draws two to four panels over at most twelve tokens, with one share of at least 0 a token")
    left = {name: int((v > 0).sum()) for name, v in shares.items()}
    title = title or "Tokens that can come: " + ", ".join(f"{count} ({name})" for name, count in left.items())
    wide = (WIDTH - 0.35 - 0.9) / len(shares)
    high = 0.24 * len(tokens)
    with Card(title, height=high + 1.0) as card:
        most = max(v.max() for v in shares.values()) * 1.3
        for i, (name, values) in enumerate(shares.items()):
            ax = card.axes(1.15 + i * wide, 0.5, wide - 0.15, high)
            ax.set_xlim(0, most)
            ax.set_ylim(len(tokens) - 0.4, -0.6)
            ax.set_yticks(range(len(tokens)))
            ax.set_yticklabels(tokens if i == 0 else [], fontsize=SMALL_SIZE, family="monospace")
            ax.tick_params(axis="y", length=0)
            for side in ("top", "right"):
                ax.spines[side].set_visible(False)
            ax.set_xticks([])
            for y, share in enumerate(values):
                ax.barh(y, share, height=0.66, color=OUTPUT if share > 0 else MASKED, zorder=3)
                words = f"{100 * share:.0f} %" if share >= 0.005 else ("" if share == 0 else "< 1 %")
                ax.text(share + most * 0.02, y, words or "out", va="center", fontsize=SMALL_SIZE, color=INK if words else MUTED)
            card.text(1.15 + i * wide, high + 0.72, name, size=LABEL_SIZE, weight="bold", va="center")
        told = " ".join(
            f"{name}: " + ", ".join(f"{token.strip() or token!r} {100 * s:.0f} %" for token, s in zip(tokens, v, strict=True) if s > 0) + "."
            for name, v in shares.items()
        )
        return card.picture(f"Shares of the draws, a bar a token. {told}")
