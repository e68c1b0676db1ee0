"""The mask designer of chapter 07: causal, window, documents and a prefix put together, and what becomes of the tiles."""

import numpy as np

from course_lib.figures.core import Picture
from course_lib.figures.masks import tile_mask
from course_lib.figures.rows import whole
from course_lib.widgets.shell import Shell, controls_available, without_controls

SIDES = (16, 32, 64, 128)
MOST = 512


def document_lengths(n: int, documents: int) -> list[int]:
    """n tokens cut into documents of unlike lengths, always the same ones: the longest takes about three times the shortest."""
    n, documents = whole(n, "n"), whole(documents, "documents")
    if documents > n:
        raise ValueError(f"{n} tokens cannot hold {documents} documents: each has at least one token")
    weights = np.array([1 + 2 * (i * 0.618034 % 1) for i in range(documents)])
    ends = np.round(np.cumsum(weights) / weights.sum() * n).astype(int)
    ends = np.maximum(ends, np.arange(1, documents + 1))
    ends[-1] = n
    return np.diff(np.minimum(ends, n - np.arange(documents)[::-1]), prepend=0).tolist()


def mask(n: int, causal: bool = True, window: int = 0, documents: int = 1, prefix: int = 0) -> np.ndarray:
    """[n, n], True where a query sees a key of its own document. window 0: none; prefix: first tokens of a document that all its queries see."""
    lengths = document_lengths(n, documents)
    owner = np.repeat(np.arange(documents), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    seen = (j <= i) if causal else np.ones((n, n), dtype=bool)
    if window:
        seen = seen & (np.abs(i - j) < window)
    return (owner[:, None] == owner[None, :]) & (seen | (place[None, :] < prefix))


def state(n: int = 256, block_m: int = 32, block_n: int = 32, causal: bool = True, window: int = 0, documents: int = 3, prefix: int = 0) -> Picture:
    """The tiles of one mask."""
    n, window, prefix = whole(n, "n"), whole(window, "window", least=0), whole(prefix, "prefix", least=0)
    if n > MOST:
        raise ValueError(f"{n} tokens: at most {MOST} are drawn")
    if block_m not in SIDES or block_n not in SIDES:
        raise ValueError(f"the tile is {block_m} x {block_n}; its sides are {', '.join(map(str, SIDES))}")
    parts = ["causal"] if causal else []
    parts += [f"window {window}"] if window else []
    parts += [f"{documents} documents"] if documents > 1 else []
    parts += [f"prefix {prefix}"] if prefix else []
    words = ", ".join(parts) or "no mask"
    return tile_mask(mask(n, causal, window, documents, prefix), block_m, block_n, name=words[:1].upper() + words[1:])


def designer(n: int = 256, block_m: int = 32, block_n: int = 32, causal: bool = True, window: int = 0, documents: int = 3, prefix: int = 0):
    """A control for each part of the mask; the picture alone where ipywidgets is missing."""
    first = state(n, block_m, block_n, causal, window, documents, prefix)
    return _shell(n, block_m, block_n, causal, window, documents, prefix) if controls_available() else without_controls(first)


def _shell(n: int, block_m: int, block_n: int, causal: bool, window: int, documents: int, prefix: int) -> Shell:
    import ipywidgets as widgets

    style, wide, narrow = {"description_width": "initial"}, widgets.Layout(width="260px"), widgets.Layout(width="150px")
    controls = {
        "causal": widgets.Checkbox(value=causal, description="causal", indent=False, layout=narrow),
        "window": widgets.IntSlider(value=window, min=0, max=MOST, step=8, description="Window (0: none)", style=style, layout=wide),
        "documents": widgets.IntSlider(value=documents, min=1, max=12, description="Documents", style=style, layout=wide),
        "prefix": widgets.IntSlider(value=prefix, min=0, max=128, step=4, description="Prefix", style=style, layout=wide),
        "n": widgets.IntSlider(value=n, min=64, max=MOST, step=16, description="N", style=style, layout=wide),
        "block_m": widgets.Dropdown(options=list(SIDES), value=block_m, description="BLOCK_M", style=style, layout=narrow),
        "block_n": widgets.Dropdown(options=list(SIDES), value=block_n, description="BLOCK_N", style=style, layout=narrow),
    }
    for name, control in controls.items():
        control.add_class(f"k-mask-{name.replace('_', '-')}")
    rows = [
        [controls["causal"], controls["window"], controls["documents"]],
        [controls["prefix"], controls["n"]],
        [controls["block_m"], controls["block_n"]],
    ]
    return Shell(state, controls, rows)
