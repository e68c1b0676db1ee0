"""Masks as maps of tiles: which are empty, partial, full, what share of the work is left; and packed sequences beside padded ones."""

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle

from course_lib.figures.core import CARD, COLOURS, INK, LABEL_SIZE, MUTED, SMALL_SIZE, WIDTH, Card, Picture, many, number, say, tint, word_colour
from course_lib.figures.flash_forward import LOADED, MASKED_TILE, SKIPPED, tile_grid, tile_key
from course_lib.figures.rows import whole

Q, K, OUTPUT, MASKED = (COLOURS[name] for name in ("Q", "K", "output", "masked"))
EMPTY, PARTIAL, FULL = 0, 1, 2


def tile_kinds(visible: np.ndarray, block_m: int, block_n: int) -> np.ndarray:
    """EMPTY, PARTIAL, FULL for each tile of a mask [N_Q, N_KV], True where a key is seen. Rows past the end do not count; keys past it are not seen."""
    visible = np.asarray(visible, dtype=bool)
    block_m, block_n = whole(block_m, "block_m"), whole(block_n, "block_n")
    n_q, n_kv = visible.shape
    down, across = -(-n_q // block_m), -(-n_kv // block_n)
    padded = np.zeros((down * block_m, across * block_n), dtype=bool)
    padded[:n_q, :n_kv] = visible
    count = padded.reshape(down, block_m, across, block_n).sum(axis=(1, 3))
    rows = np.minimum(block_m, n_q - block_m * np.arange(down))
    return (count > 0).astype(int) + (count == rows[:, None] * block_n).astype(int)


def tile_mask(
    visible: np.ndarray, block_m: int, block_n: int, title: str | None = None, name: str = "This mask", kinds: np.ndarray | None = None
) -> Picture:
    """A mask [N_Q, N_KV] as its tiles, with the count of each kind and what the tiles that are read are good for.

    kinds: the classes, if something else than this file found them; None means tile_kinds.
    """
    visible = np.asarray(visible, dtype=bool)
    kinds = tile_kinds(visible, block_m, block_n) if kinds is None else np.asarray(kinds)
    empty, partial, full = (int((kinds == kind).sum()) for kind in (EMPTY, PARTIAL, FULL))
    read = partial + full
    computed = read * block_m * block_n
    useful = visible.sum() / computed if computed else 0.0
    if title is None:
        title = (
            f"{name}: {read:,} of {many(kinds.size, 'tile')} read, {100 * read / kinds.size:.0f} %; {100 * useful:.0f} % of the scores computed count"
        )
    shown = np.choose(kinds, [SKIPPED, MASKED_TILE, LOADED]).astype(object)
    side, wide_most = 2.9, 4.3
    wide, high = min(wide_most / kinds.shape[1], 0.9), min(side / kinds.shape[0], 0.7)
    with Card(title, height=side + 0.75) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, side + 0.75, bare=True)
        left, bottom = 0.55, 0.2 + side - high * kinds.shape[0]
        tile_grid(ax, shown, left, bottom, wide, high)
        say(ax, left + wide * kinds.shape[1] / 2, 0.3 + side, f"{visible.shape[1]} keys, tiles of {block_n}", "center bottom", word_colour(K))
        say(
            ax,
            0.2,
            bottom + high * kinds.shape[0] / 2,
            f"{visible.shape[0]} queries, tiles of {block_m}",
            "center center",
            word_colour(Q),
            rotation=90,
        )
        kept = [
            (LOADED, f"{full:,} full: no mask needed"),
            (MASKED_TILE, f"{partial:,} partial: the mask decides"),
            (SKIPPED, f"{empty:,} empty: never read"),
        ]
        tile_key(card, 5.6, side + 0.2, kept)
        words = (
            f"Work: {100 * read / kinds.size:.0f} % of the tiles. Pairs of query and key that count: {100 * visible.mean():.1f} % of all, and "
            f"{100 * useful:.0f} % of those computed. Smaller tiles bring the two together, and are slower each."
        )
        card.paragraph(5.6, side - 0.75, words, WIDTH - 5.85, size=SMALL_SIZE)
        return card.picture(
            f"{kinds.shape[0]} by {kinds.shape[1]} tiles: {full} full, {partial} partial, {empty} empty. {100 * visible.mean():.1f} % of all pairs count, "
            f"{100 * useful:.0f} % of those computed."
        )


def padding(lengths: Sequence[int], title: str | None = None) -> Picture:
    """Sequences padded to the longest, and the same ones packed one behind the other."""
    lengths = [whole(n, "a length") for n in lengths]
    if not lengths:
        raise ValueError("padding needs at least one length")
    tokens, cells = sum(lengths), max(lengths) * len(lengths)
    pairs, padded_pairs = sum(n * n for n in lengths), max(lengths) ** 2 * len(lengths)
    if title is None:
        title = f"Padded, {100 * (1 - tokens / cells):.0f} % of the tokens and {100 * (1 - pairs / padded_pairs):.0f} % of the scores are filler"
    row, across = 0.2, 3.6
    with Card(title, height=max(row * len(lengths), 1.1) + 0.95) as card:
        top = max(row * len(lengths), 1.1) + 0.3
        ax = card.axes(0.25, 0, WIDTH - 0.5, max(row * len(lengths), 1.1) + 0.95, bare=True)
        shade = [tint(K, 0.85), tint(K, 0.5)]
        say(ax, 0.0, top + 0.2, f"padded: {len(lengths)} x {max(lengths):,} = {cells:,} tokens", "left bottom", INK, LABEL_SIZE)
        for i, n in enumerate(lengths):
            y = top - (i + 1) * row
            ax.add_patch(Rectangle((0, y), across, row * 0.85, facecolor=tint(MASKED, 0.22), linewidth=0))
            ax.add_patch(Rectangle((0, y), across * n / max(lengths), row * 0.85, facecolor=shade[i % 2], linewidth=0))
        left, wide = 4.4, WIDTH - 0.5 - 4.4
        say(ax, left, top + 0.2, f"packed: {tokens:,} tokens", "left bottom", INK, LABEL_SIZE)
        x = left
        for i, n in enumerate(lengths):
            ax.add_patch(Rectangle((x, top - row), wide * n / tokens, row * 0.85, facecolor=shade[i % 2], edgecolor=CARD, linewidth=0.5))
            x += wide * n / tokens
        marks = np.concatenate([[0], np.cumsum(lengths)])
        shown = [i for i in range(len(marks)) if i in (0, len(marks) - 1) or len(marks) <= 5]
        for i in shown:
            say(ax, left + wide * marks[i] / tokens, top - row - 0.06, f"{marks[i]:,}", "center top", MUTED, SMALL_SIZE)
        listed = ", ".join(f"{m:,}" for m in marks) if len(marks) <= 9 else ", ".join(f"{m:,}" for m in marks[:6]) + ", ... "
        card.paragraph(
            left + 0.25,
            top - row - 0.36,
            f"cu_seqlens = [{listed}]: where each sequence begins, and where the last one ends",
            wide - 0.1,
            colour=word_colour(OUTPUT),
        )
        return card.picture(
            f"{many(len(lengths), 'sequence')} of {number(min(lengths))} to {max(lengths):,} tokens. Padded to the longest they take {cells:,} tokens, packed "
            f"{tokens:,}; of the padded scores {100 * (1 - pairs / padded_pairs):.0f} % belong to filler."
        )
