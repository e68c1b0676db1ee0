"""The figures of chapter 10: block tables, who holds which part of the memory, what is wasted, what sharing saves, bytes, who sees what.

Numbers come from the caller, never from here.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from course_lib.block_tables import BlockTables
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
    rounded,
    say,
    size,
    text_width,
    tint,
    word_colour,
)
from course_lib.reservations import Run

Q, K, V, OUTPUT, MEMORY, MASKED = (COLOURS[name] for name in ("Q", "K", "V", "output", "memory", "masked"))
KINDS = {  # of a slot: how it is drawn, and what it is
    "used": (K, "a token is there"),
    "reserved": (tint(K, 0.35), "reserved: its request will use it"),
    "never": (MASKED, "held, never used"),
    "free": (FAINT, "free, and the next request does not fit"),
}
PARTS = {"q": Q, "K": K, "V": V, "table": MEMORY, "output": OUTPUT, "K, V copied": tint(MEMORY, 0.45)}


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


def _key(card: Card, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
    """(colour, words) side by side."""
    for colour, words in entries:
        card.figure.add_artist(
            Rectangle((x / card.width, (y - 0.06) / card.height), 0.14 / card.width, 0.12 / card.height, facecolor=colour, edgecolor=MUTED,
                      linewidth=0.5, transform=card.figure.transFigure)
        )  # fmt: skip
        card.text(x + 0.2, y, words, size=SMALL_SIZE, va="center")
        x += 0.42 + text_width(words, SMALL_SIZE)


# ---------------------------------------------------------------- tables and blocks


def opening() -> Picture:
    """Three texts, their tables, and the blocks of one cache that the tables name."""
    texts = {"A": ("the cat sat on the mat", (5, 1, 8)), "B": ("the cat ran up a tree", (5, 10, 3)), "C": ("once", (6,))}
    words = {name: text.split() for name, (text, _) in texts.items()}
    with Card("One cache, three texts: tables say where each block of keys lies, and two texts can name the same block", height=3.0) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, 3.0, bare=True)
        place = {block: (3.75 + block % 4 * 1.17, 2.02 - block // 4 * 0.82) for block in range(12)}
        for block, (x, y) in place.items():
            names = [name for name, (_, table) in texts.items() if block in table]
            held = words[names[0]][2 * texts[names[0]][1].index(block) :][:2] if names else []
            places = [*held, None, None][:2]
            _drawn_block(ax, x, y, 1.05, 0.5, places, f"block {block}", " ".join(names), Q if len(names) > 1 else MUTED)
        for row, (name, (text, table)) in enumerate(texts.items()):
            y = 2.22 - row * 0.82
            say(ax, 0.05, y + 0.12, name, "left center", INK, LABEL_SIZE, fontweight="bold")
            say(ax, 0.28, y + 0.12, f"\u201c{text}\u201d", "left center", INK)
            say(ax, 0.28, y - 0.15, "table", "left center", MUTED)
            for i, block in enumerate(table):
                shared = block == 5
                rounded(
                    ax, 0.75 + i * 0.42, y - 0.27, 0.36, 0.25, tint(MEMORY, 0.12), Q if shared else MEMORY, 0.04, linewidth=2.2 if shared else 0.8
                )
                say(ax, 0.93 + i * 0.42, y - 0.15, str(block), "center center", INK)
        say(ax, 0.75, 0.12, "blue: named by two tables, stored once", "left center", word_colour(Q))
        return card.picture(
            "Blocks of two tokens. Text A, the cat sat on the mat, has the table 5, 1, 8. Text B, the cat ran up a tree, has the table 5, 10, 3: its first block "
            "is A's. Text C has one block, 6. The blocks lie in no order among free ones."
        )


def _drawn_block(
    ax: Axes, x: float, y: float, wide: float, high: float, places: Sequence, above: str, below: str, edge: str = MUTED, fill: str = ""
) -> None:
    """One block: its places side by side, a number above, who holds it beside that."""
    each = wide / len(places)
    for i, token in enumerate(places):
        face = CARD if token is None else (fill or tint(K, 0.22 if below else 0.1))
        ax.add_patch(Rectangle((x + i * each, y), each, high, facecolor=face, edgecolor=FAINT, linewidth=0.8))
        if token is not None:
            say(ax, x + (i + 0.5) * each, y + high / 2, str(token), "center center", INK if below or fill else MUTED)
    ax.add_patch(Rectangle((x, y), wide, high, fill=False, edgecolor=edge, linewidth=1.2 if edge == MUTED else 2.2))
    say(ax, x + 0.02, y + high + 0.03, above, "left bottom", MUTED, SMALL_SIZE)
    say(ax, x + wide - 0.02, y + high + 0.03, below, "right bottom", INK, SMALL_SIZE, fontweight="bold")


def tables(state: BlockTables, title: str, words: str = "") -> Picture:
    """Every request's table beside every block of the memory: tokens, holders, copies. `words` says what happened."""
    if not title.strip():
        raise ValueError("tables needs a title that says what happened")
    wide = 0.25 * state.block_size
    across = max(1, int(4.45 // (wide + 0.1)))
    rows = -(-state.num_blocks // across)
    tall = max(0.42 + rows * 0.72, 0.35 + 0.62 * len(state.tables)) + 0.1
    cached = set(state.named.values())
    with Card(title, height=tall + (0.75 if words else 0.35)) as card:
        bottom = 0.65 if words else 0.3
        ax = card.axes(0.2, bottom, WIDTH - 0.4, tall, bare=True)
        for row, (name, table) in enumerate(state.tables.items()):
            y = tall - 0.35 - row * 0.62
            say(ax, 0.05, y, name, "left center", INK, LABEL_SIZE, fontweight="bold")
            say(ax, 0.32, y, many(len(state.texts[name]), "token"), "left center", MUTED)
            for i, block in enumerate(table):
                rounded(ax, 1.15 + i * 0.37, y - 0.13, 0.32, 0.26, tint(MEMORY, 0.12), MEMORY, 0.04, linewidth=0.8)
                say(ax, 1.31 + i * 0.37, y, str(block), "center center", INK)
        if not state.tables:
            say(ax, 0.05, tall - 0.35, "no request", "left center", MUTED)
        for block in range(state.num_blocks):
            x, y = 4.05 + block % across * (wide + 0.1), tall - 0.68 - block // across * 0.72
            holders = state.held_by(block)
            there = bool(holders) or block in cached
            places = state.memory[block] if there else [None] * state.block_size
            edge, fill = V if block in state.changed else MUTED, tint(K, 0.22 if holders else 0.07)
            _drawn_block(ax, x, y, wide, 0.4, places, str(block), " ".join(holders) or ("cached" if there else ""), edge, fill)
        _key(card, 0.25, 0.16,
             [(tint(K, 0.22), "held by a request"), (tint(K, 0.07), "kept by the prefix cache alone"), (CARD, "free"), (V, "frame: written in this step")])  # fmt: skip
        if words:
            card.paragraph(0.25, 0.62, words, WIDTH - 0.5)
        told = ". ".join(f"{name}: blocks {', '.join(map(str, table)) or 'none'}" for name, table in state.tables.items())
        free = state.allocator.num_free
        kept = sorted(block for block in cached if not state.held_by(block))
        return card.picture(
            f"{title}. {words} {told or 'No request'}. {free} of {state.num_blocks} blocks free; "
            f"kept by the prefix cache alone: {', '.join(map(str, kept)) or 'none'}."
        )


# ---------------------------------------------------------------- what a reservation costs


def strips(runs: Sequence[Run]) -> Picture:
    """The whole memory at one moment under each policy: a strip, from the first slot to the last, coloured by what each slot is good for."""
    if not runs or any(not run.last for run in runs):
        raise ValueError("strips needs at least one run that ended with requests in memory")
    counts = {run.policy: len(run.last) for run in runs}
    fewest, most = min(runs, key=lambda run: len(run.last)), max(runs, key=lambda run: len(run.last))
    title = f"The same memory at one moment: {len(fewest.last)} requests with the {fewest.policy} reserved, {len(most.last)} in {most.policy}"
    with Card(title, height=0.72 * len(runs) + 0.75) as card:
        ax = card.axes(2.1, 0.62, WIDTH - 2.4, 0.72 * len(runs))
        for row, run in enumerate(runs):
            ax.broken_barh([(0, run.slots)], (row - 0.3, 0.6), facecolor=KINDS["free"][0])
            at = 0
            for piece in sorted(run.last, key=lambda piece: piece.start):
                start = piece.start if piece.start >= 0 else at
                at = start + piece.size
                end = min(piece.size, piece.request.final)
                for kind, first, last in (("used", 0, piece.now), ("reserved", piece.now, end), ("never", end, piece.size)):
                    if last > first:
                        ax.broken_barh([(start + first, last - first)], (row - 0.3, 0.6), facecolor=KINDS[kind][0])
                ax.plot([start, start], [row - 0.3, row + 0.3], color=CARD, linewidth=0.7)
            say(ax, -150, row - 0.12, run.policy, "right center", INK, LABEL_SIZE, clip_on=False)
            say(ax, -150, row + 0.17, many(len(run.last), "request"), "right center", MUTED, clip_on=False)
        ax.set_ylim(len(runs) - 0.5, -0.5)
        ax.set_xlim(0, max(run.slots for run in runs))
        ax.yaxis.set_major_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        ax.set_xlabel("slots of the cache (room for K and V of one token)")
        _key(card, 0.25, 0.72 * len(runs) + 0.7, [KINDS[kind] for kind in KINDS])
        shares = "; ".join(f"{policy}: {many(count, 'request')}" for policy, count in counts.items())
        return card.picture(f"{title}. Strips of all slots, white lines between requests. {shares}.")


def shares(runs: Sequence[Run], paper: Mapping[str, tuple[str, Sequence[float]]] | None = None) -> Picture:
    """Mean shares of all slots under each policy, as stacked bars. paper: policy -> (what a source calls it, its shares in %, in the same order)."""
    if not runs:
        raise ValueError("shares needs at least one run")
    worst, best = min(runs, key=lambda run: run.mean["used"]), max(runs, key=lambda run: run.mean["used"])
    title = f"Tokens fill {percent(worst.mean['used'])} of the memory with the {worst.policy} reserved, {percent(best.mean['used'])} in {best.policy}"
    paper, each = paper or {}, 0.78 if paper else 0.5
    with Card(title, height=each * len(runs) + 1.2) as card:
        ax = card.axes(2.1, 0.55, WIDTH - 2.5, each * len(runs))
        for row, run in enumerate(runs):
            known = run.policy in paper
            _stacked(ax, row - 0.14 * known, 0.5 if known else 0.62, [100 * share for share in run.mean.values()], "bold")
            say(ax, -1.2, row - 0.14 * known, run.policy, "right center", INK, LABEL_SIZE, clip_on=False)
            if known:
                called, parts = paper[run.policy]
                _stacked(ax, row + 0.26, 0.26, parts, "normal")
                say(ax, -1.2, row + 0.26, called, "right center", MUTED, clip_on=False)
        ax.set_ylim(len(runs) - 0.5, -0.5)
        ax.set_xlim(0, 100)
        ax.yaxis.set_major_locator(NullLocator())
        ax.set_xlabel("share of all slots (%), mean over all steps" + ("; thin bars: the paper's figure 2" if paper else ""))
        _key(card, 0.25, each * len(runs) + 0.95, [KINDS[kind] for kind in KINDS])
        told = " ".join(
            f"{run.policy}: "
            + ", ".join(f"{kind} {percent(share)}" for kind, share in run.mean.items())
            + (f"; {paper[run.policy][0]}: {', '.join(f'{part:g} %' for part in paper[run.policy][1])}." if run.policy in paper else ".")
            for run in runs
        )
        return card.picture(f"{title}. {told}")


def _stacked(ax: Axes, y: float, high: float, parts: Sequence[float], weight: str) -> None:
    """Shares in %, in the order of KINDS, in one bar; those with room say their number."""
    x = 0.0
    for kind, part in zip(KINDS, parts, strict=False):
        ax.barh(y, part, left=x, height=high, color=KINDS[kind][0], edgecolor=CARD, linewidth=0.6)
        if part > 6:
            inside = CARD if kind in ("used", "never") else INK
            say(
                ax, x + part / 2, y, percent(part / 100), "center center", inside, SMALL_SIZE if weight == "normal" else LABEL_SIZE, fontweight=weight
            )
        x += part


def block_sizes(used: Mapping[int, float], entries: Mapping[int, int]) -> Picture:
    """Share of held slots with a token (%), and table entries a request, against the size of a block."""
    if not used or used.keys() != entries.keys() or min(used) < 1:
        raise ValueError("block_sizes needs the same block sizes, at least 1, in both: {size: share used} and {size: entries}")
    sizes, small = sorted(used), min(used, key=lambda n: abs(n - 16))
    title = f"Blocks of {small} leave {percent(1 - used[small])} of what is held unused, blocks of {sizes[-1]:,} {percent(1 - used[sizes[-1]])}"
    with Card(title, height=2.75) as card:
        for left, values, colour, label in (
            (0.75, {n: 100 * (1 - used[n]) for n in sizes}, K, "held slots without a token (%)"),
            (5.1, entries, MEMORY, "table entries of the longest request"),
        ):
            ax = card.axes(left, 0.55, 3.35, 2.05)
            ax.plot(sizes, [values[n] for n in sizes], color=colour, marker="o", markersize=4)
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_locator(FixedLocator(sizes[::2]))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
            ax.set_ylim(bottom=0)
            ax.set_xlabel("tokens a block")
            ax.set_title(label, fontsize=LABEL_SIZE, color=word_colour(colour), loc="left", pad=3)
            ax.plot([small], [values[small]], marker="o", markersize=9, fillstyle="none", color=INK)
        told = "; ".join(f"{n}: {percent(1 - used[n])} unused, {entries[n]:,} entries" for n in sizes)
        return card.picture(f"{title}. By tokens a block: {told}.")


# ---------------------------------------------------------------- sharing


def samples(counts: Sequence[int], separate: Sequence[int], shared: Sequence[int], unit: str = "blocks") -> Picture:
    """Blocks held by n samples of one prompt: each with a copy of the prompt, and forked."""
    if not counts or not len(counts) == len(separate) == len(shared):
        raise ValueError("samples needs as many numbers of blocks as numbers of samples, for both ways")
    saved = 1 - shared[-1] / separate[-1]
    title = f"{counts[-1]} samples of one prompt: forking holds {shared[-1]:,} {unit} instead of {separate[-1]:,}, {percent(saved)} fewer"
    with Card(title, height=2.55) as card:
        ax = card.axes(0.8, 0.55, WIDTH - 2.6, 1.9)
        for values, colour in ((separate, MASKED), (shared, K)):
            ax.plot(counts, values, color=colour, marker="o", markersize=4)
        ax.set_xlim(0, counts[-1])
        ax.set_ylim(bottom=0)
        ax.set_xlabel("samples of one prompt")
        ax.set_ylabel(f"{unit} held")
        label_ends(ax, [(counts[-1], separate[-1], "a copy each", MASKED), (counts[-1], shared[-1], "forked", K)])
        told = "; ".join(f"{n}: {a:,} or {b:,}" for n, a, b in zip(counts, separate, shared, strict=True))
        return card.picture(f"{title}. Samples: copies or forked. {told}.")


def prompts(hit: Sequence[int], total: Sequence[int]) -> Picture:
    """For each request in order of arrival: prompt tokens found in the prefix cache, and those that had to be computed."""
    if not hit or len(hit) != len(total) or any(not 0 <= h <= t for h, t in zip(hit, total, strict=True)):
        raise ValueError("prompts needs one number of tokens found for each prompt, at most its length")
    computed = sum(total) - sum(hit)
    title = f"The prefix cache leaves {computed:,} of {sum(total):,} prompt tokens to compute ({percent(computed / sum(total))})"
    with Card(title, height=2.6) as card:
        ax = card.axes(0.8, 0.55, WIDTH - 1.2, 1.75)
        at = range(1, len(hit) + 1)
        ax.bar(at, hit, color=tint(K, 0.35), width=0.8)
        ax.bar(at, [t - h for h, t in zip(hit, total, strict=True)], bottom=hit, color=K, width=0.8)
        ax.set_xlim(0.3, len(hit) + 0.7)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("requests, in the order of arrival")
        ax.set_ylabel("prompt tokens")
        _key(card, 0.85, 2.5, [(K, "computed"), (tint(K, 0.35), "found in the cache")])
        return card.picture(f"{title}. {len(hit)} requests; in the first {hit[0]} tokens were found, in the last {hit[-1]} of {total[-1]}.")


# ---------------------------------------------------------------- the kernels


def decode_bytes(ways: Mapping[str, Mapping[str, float]], title: str | None = None) -> Picture:
    """Requested bytes of ways to decode over a cache, a colour for each tensor: {way: {"K": bytes, "table": ...}}."""
    if not ways or any(not parts or set(parts) - set(PARTS) or min(parts.values()) < 0 for parts in ways.values()):
        raise ValueError(f"decode_bytes needs at least one way, each {{tensor: bytes}} with tensors among {', '.join(PARTS)}")
    totals = {way: sum(parts.values()) for way, parts in ways.items()}
    first, last = next(iter(ways)), list(ways)[-1]
    title = title or f"{last[:1].upper()}{last[1:]} requests {number(totals[last] / totals[first], 3)} times as many bytes as {first}"
    left = 0.45 + max(text_width(way, LABEL_SIZE) for way in ways)
    used = [name for name in PARTS if any(parts.get(name) for parts in ways.values())]
    with Card(title, height=0.5 * len(ways) + 1.1) as card:
        ax = card.axes(left, 0.55, WIDTH - left - 1.2, 0.5 * len(ways))
        for row, (way, parts) in enumerate(ways.items()):
            x = 0.0
            for name in used:
                ax.barh(row, parts.get(name, 0) / 1024, left=x, height=0.6, color=PARTS[name], edgecolor=CARD, linewidth=0.4)
                x += parts.get(name, 0) / 1024
            say(ax, x, row, f"  {size(totals[way])}", "left center", INK, clip_on=False)
            say(ax, 0, row, f"{way}  ", "right center", INK, LABEL_SIZE, clip_on=False)
        ax.set_ylim(len(ways) - 0.5, -0.5)
        ax.set_xlim(0, max(totals.values()) / 1024)
        ax.yaxis.set_major_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        ax.set_xlabel("requested bytes (KiB)")
        _key(card, left, 0.5 * len(ways) + 0.85, [(PARTS[name], name) for name in used])
        told = " ".join(
            f"{way}: {size(totals[way])}, of it {', '.join(f'{name} {size(n)}' for name, n in parts.items() if n)}." for way, parts in ways.items()
        )
        return card.picture(f"{title}. {told}")


def who_sees(cases: Mapping[str, tuple[int, int]]) -> Picture:
    """Which keys the new queries of a request see: {what it is: (new queries, keys in all)}. Every case is the same mask, aligned bottom right."""
    if not cases or any(not 1 <= n <= length <= 24 for n, length in cases.values()):
        raise ValueError("who_sees needs cases with 1 to `length` new queries over at most 24 keys")
    room = (WIDTH - 0.4) / len(cases)
    cell = min((room - 0.35) / max(length for _, length in cases.values()), 0.2)
    tall = 0.95 + cell * max(n for n, _ in cases.values())
    with Card("Chunks, prefix hits and drafts are one shape: new queries at the end of a text whose keys are stored", height=tall) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, tall, bare=True)
        for i, (name, (n, length)) in enumerate(cases.items()):
            left = i * room + 0.05
            say(ax, left, tall - 0.17, name, "left center", INK, LABEL_SIZE, fontweight="bold")
            say(ax, left, tall - 0.4, f"{many(n, 'query') if n == 1 else f'{n} queries'}, {length} keys", "left center", MUTED)
            for row in range(n):
                for key in range(length):
                    sees, own = key <= length - n + row, key >= length - n
                    face = (tint(Q, 0.6) if own else tint(K, 0.45)) if sees else tint(MASKED, 0.15)
                    ax.add_patch(
                        Rectangle((left + key * cell, tall - 0.55 - (row + 1) * cell), cell, cell, facecolor=face, edgecolor=CARD, linewidth=0.6)
                    )
        _key(
            card, 0.25, 0.16, [(tint(K, 0.45), "key that was stored before"), (tint(Q, 0.6), "key of a new token"), (tint(MASKED, 0.15), "not seen")]
        )
        told = "; ".join(f"{name}: {n} queries over {length} keys" for name, (n, length) in cases.items())
        return card.picture(f"Query i of n sees the keys up to its own, number length - n + i. {told}.")
