"""The score matrix as a map of its tiles, and what the whole and one tile take in memory."""

from course_lib.figures.core import CARD, COLOURS, INK, MUTED, SMALL_SIZE, WIDTH, Card, Picture, many, number, say, size, tint, word_colour
from course_lib.figures.rows import whole

Q, K, OUTPUT, MEMORY, MASKED = (COLOURS[name] for name in ("Q", "K", "output", "memory", "masked"))
_TWO_PIXELS = 0.02  # inches


def tiled_attention_map(
    n_q: int, n_kv: int, tile: int, tile_q: int | None = None, current: int | None = None, bytes_each: int = 4, title: str | None = None
) -> Picture:
    """The score matrix, of which one tile exists at a time; beside it, the memory of the whole and of the tile.

    tile: keys a tile; tile_q: queries a tile, None means all of them (chapter 03's loop); current: which tile is in hand.
    """
    n_q, n_kv, tile, bytes_each = whole(n_q, "n_q"), whole(n_kv, "n_kv"), min(whole(tile, "tile"), n_kv), whole(bytes_each, "bytes_each")
    tile_q = n_q if tile_q is None else min(whole(tile_q, "tile_q"), n_q)
    down, across = -(-n_q // tile_q), -(-n_kv // tile)
    current = (down // 2) * across + across // 2 if current is None else whole(current, "current", least=0)
    if current >= down * across:
        raise ValueError(f"current is {current}, and there are {down * across} tiles (0 to {down * across - 1})")
    full, part = n_q * n_kv * bytes_each, tile_q * tile * bytes_each
    title = title or f"The full score matrix takes {size(full)}; a tile of {tile} keys takes {size(part)}: {number(full / part)} times less"
    with Card(title, height=3.15, note=f"One head, {bytes_each} bytes a score.") as card:
        side = 2.5
        wide, tall = side * min(1.4, max(0.55, n_kv / n_q)), side * min(1.0, max(0.4, n_q / n_kv * (1 if n_kv <= n_q * 1.4 else 1.4)))
        ax = card.axes(0.7, 0.3, wide + 0.35, side + 0.5, bare=True)
        base = side - tall
        i, j = current // across, current % across
        _to_scale(ax, wide / n_kv, tall / n_q, base, (n_q, n_kv), (tile_q, tile), (i, j))
        say(ax, wide / 2, side + 0.14, f"{n_kv:,} keys, {many(across, 'tile')}", "center bottom", word_colour(K))
        say(ax, -0.14, base + tall / 2, f"{n_q:,} queries", "right center", word_colour(Q), rotation=90)
        left = wide + 1.55
        for k, (colour, edge, meaning) in enumerate(
            ((K, K, "the tile that exists now"), (tint(OUTPUT, 0.16), MASKED, "already in the state, gone"), (CARD, MASKED, "not computed yet"))
        ):
            y = 0.3 + side - 0.12 - k * 0.3
            mark = card.axes(left, y - 0.08, 0.16, 0.16, bare=True)
            mark.add_patch(_cell(0, 0, 0.16, 0.16, colour, edge, 1.0, 2))
            card.text(left + 0.27, y, meaning, size=SMALL_SIZE, va="center")
        bars = card.axes(left, 0.62, WIDTH - left - 0.95, 1.05)
        reach = full * 1.3
        bars.set_xlim(0, reach)
        thinnest = reach * _TWO_PIXELS / (WIDTH - left - 0.95)
        for lane, (name, count, face) in enumerate((("tile", part, K), ("all of S", full, MEMORY))):
            bars.barh(lane, max(count, thinnest), height=0.5, color=face, linewidth=0)
            say(bars, max(count, thinnest), lane, f" {size(count)}", "left center", INK, clip_on=False)
            say(bars, 0.0, lane + 0.28, name, "left bottom", MUTED, transform=bars.get_yaxis_transform())
        bars.set_ylim(-0.4, 1.75)
        bars.set_yticks([])
        bars.spines["left"].set_visible(False)
        bars.set_xticks([0, full / 2, full], ["0", size(full / 2), size(full)])
        bars.set_xlabel("memory for scores")
        return card.picture(
            f"A score matrix of {n_q:,} queries by {n_kv:,} keys in {many(down * across, 'tile')}; one exists at a time. "
            f"The whole takes {size(full)}, a tile {size(part)}: {number(full / part)} times less."
        )


def _to_scale(ax, across: float, down: float, base: float, whole_: tuple[int, int], tile: tuple[int, int], current: tuple[int, int]) -> None:
    """The matrix, what is done of it and the tile in hand, all at their true share; a tile is at least 2 pixels wide and high.

    across, down: inches a key and a query; whole_, tile: (queries, keys); current: (row, column) of tiles.
    """
    (n_q, n_kv), (tile_q, tile_k), (i, j) = whole_, tile, current
    top = base + n_q * down
    first_q, first_k = i * tile_q, j * tile_k
    last_q, last_k = min(first_q + tile_q, n_q), min(first_k + tile_k, n_kv)
    ax.add_patch(_cell(0, base, n_kv * across, n_q * down, CARD, MASKED, 0.8, 1))
    done = tint(OUTPUT, 0.16)
    ax.add_patch(_cell(0, top - first_q * down, n_kv * across, first_q * down, done, "none", 0, 2))
    ax.add_patch(_cell(0, top - last_q * down, first_k * across, (last_q - first_q) * down, done, "none", 0, 2))
    for edges, size_, draw in ((range(tile_k, n_kv, tile_k), across, ax.vlines), (range(tile_q, n_q, tile_q), down, ax.hlines)):
        if edges.step * size_ >= 3 * _TWO_PIXELS:  # closer lines would hide what is between them
            places = [k * size_ if draw == ax.vlines else top - k * size_ for k in edges]
            ends = (base, top) if draw == ax.vlines else (0, n_kv * across)
            draw(places, *ends, color=MASKED, linewidth=0.5, zorder=3)
    wide, high = max((last_k - first_k) * across, _TWO_PIXELS), max((last_q - first_q) * down, _TWO_PIXELS)
    ax.add_patch(_cell(min(first_k * across, n_kv * across - wide), max(top - first_q * down - high, base), wide, high, K, "none", 0, 4))


def _cell(x, y, width, height, face, edge, line, order):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=face, edgecolor=edge, linewidth=line, zorder=order, clip_on=False)
