"""The mask explorer of chapter 02: which keys each query sees, as queries, keys, alignment and padding change."""

import numpy as np

from course_lib.figures.attention_cost import draw_mask
from course_lib.figures.core import INK, MUTED, WIDTH, Picture, say
from course_lib.figures.core import Card as Drawing
from course_lib.figures.rows import whole
from course_lib.widgets.shell import Shell, controls_available, without_controls
from course_lib.words import plural

ALIGNMENTS = ("bottom right", "top left")
MOST = 10
_TALL, _WIDE = 2.6, 3.5  # inches that the grid may fill


def mask(n_q: int, n_kv: int, align: str = "bottom right", padding: int = 0) -> np.ndarray:
    """The causal mask [n_q, n_kv] under that alignment, the last `padding` keys hidden; True = keep."""
    n_q, n_kv, padding = whole(n_q, "n_q"), whole(n_kv, "n_kv"), whole(padding, "padding", least=0)
    if align not in ALIGNMENTS:
        raise ValueError(f"align is {align!r}; choose one of {', '.join(ALIGNMENTS)}")
    shift = n_kv - n_q if align == "bottom right" else 0
    keys = np.arange(n_kv)
    return (keys <= np.arange(n_q)[:, None] + shift) & (keys < n_kv - padding)


def state(n_q: int = 3, n_kv: int = 8, align: str = "bottom right", padding: int = 0) -> Picture:
    """The picture of one mask. Every state has the same size."""
    kept = mask(n_q, n_kv, align, padding)
    if max(n_q, n_kv) > MOST:
        raise ValueError(f"the mask is [{n_q}, {n_kv}]; at most {MOST} queries and keys are drawn")
    title, words = _said(kept, n_q, n_kv, align, padding)
    cell = min(_TALL / n_q, _WIDE / n_kv, 0.5)
    with Drawing(title, height=_TALL + 0.5) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, _TALL + 0.5, bare=True)
        draw_mask(ax, kept, 0.5, 0.35 + _TALL - n_q * cell, cell)
        for i, seen in enumerate(kept.sum(1)):
            say(ax, 4.65, 0.35 + _TALL - (i + 0.5) * cell, f"query {i}: {seen} of {n_kv}", "left center", INK if seen else MUTED)
        card.paragraph(6.2, _TALL + 0.35, words, WIDTH - 6.45)
        counts = ", ".join(str(int(n)) for n in kept.sum(1))
        return card.picture(f"A mask of {n_q} by {n_kv}, {align}. {title}. {words} Seen by each query: {counts}.")


def explorer(n_q: int = 3, n_kv: int = 8, align: str = "bottom right", padding: int = 0):
    """Sliders for queries, keys and padding, and the alignment; the picture alone where ipywidgets is missing."""
    first = state(n_q, n_kv, align, padding)
    return _shell(n_q, n_kv, align, padding) if controls_available() else without_controls(first)


def _shell(n_q: int, n_kv: int, align: str, padding: int) -> Shell:
    import ipywidgets as widgets

    style, wide = {"description_width": "initial"}, widgets.Layout(width="260px")
    queries = widgets.IntSlider(value=n_q, min=1, max=MOST, description="Queries", style=style, layout=wide)
    keys = widgets.IntSlider(value=n_kv, min=1, max=MOST, description="Keys", style=style, layout=wide)
    padded = widgets.IntSlider(value=padding, min=0, max=MOST, description="Padded keys", style=style, layout=wide)
    corner = widgets.Dropdown(options=list(ALIGNMENTS), value=align, description="Aligned", style=style, layout=widgets.Layout(width="200px"))
    for control, name in ((queries, "k-queries"), (keys, "k-keys"), (padded, "k-padding"), (corner, "k-align")):
        control.add_class(name)
    return Shell(state, {"n_q": queries, "n_kv": keys, "align": corner, "padding": padded}, [[queries, keys], [padded, corner]])


def _said(kept: np.ndarray, n_q: int, n_kv: int, align: str, padding: int) -> tuple[str, str]:
    """(title, explanation) of one mask."""
    first, empty = int(kept[0].sum()), int((~kept.any(1)).sum())
    title = f"{n_q} {plural('query', n_q)}, {n_kv} {plural('key', n_kv)}, aligned {align}: the first query sees {first}"
    if align == "bottom right" and n_kv >= n_q:
        words = f"The queries are the last {n_q} of {n_kv} tokens: query 0 is token {n_kv - n_q}."
    elif align == "bottom right":
        words = f"The keys are the last {n_kv} of {n_q} tokens: the first {n_q - n_kv} queries come before all of them."
    elif n_q == n_kv:
        words = "With as many queries as keys, both alignments are one."
    else:
        words = "Query 0 is taken for token 0."
        words += f" The last query misses {n_kv - n_q} of the keys before it." if n_kv > n_q else " The last queries see every key."
    if padding:
        words += f" {min(padding, n_kv)} padded {plural('key', min(padding, n_kv))} at the end {'is' if min(padding, n_kv) == 1 else 'are'} hidden from all."
    if empty:
        words += f" {empty} {plural('query', empty)} see{'s' * (empty == 1)} nothing: output 0."
    return title, words
