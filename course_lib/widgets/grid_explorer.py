"""The grid explorer of chapter 04: how many programs cover a vector, and how many of their lanes are off."""

from course_lib.figures.core import Picture
from course_lib.figures.triton_from_zero import MOST_CELLS, programs
from course_lib.widgets.shell import Shell, controls_available, without_controls

BLOCKS = (1, 2, 4, 8, 16, 32)
MOST = MOST_CELLS  # a multiple of every tile on offer: N rounded up to tiles always fits the picture


def state(n: int = 21, block: int = 8) -> Picture:
    """The programs that cover n elements in tiles of `block`."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST:
        raise ValueError(f"n must be a whole number from 1 to {MOST}, and {n!r} is not")
    if block not in BLOCKS:
        raise ValueError(f"block must be one of {', '.join(map(str, BLOCKS))} (Triton's tiles are powers of two), and {block!r} is not")
    return programs(n, block)


def explorer(n: int = 21, block: int = 8):
    """The same picture with two sliders."""
    first = state(n, block)
    if not controls_available():
        return without_controls(first)
    import ipywidgets as widgets

    style, wide = {"description_width": "initial"}, widgets.Layout(width="360px")
    elements = widgets.IntSlider(value=n, min=1, max=MOST, description="N, elements", style=style, layout=wide)
    tile = widgets.SelectionSlider(options=BLOCKS, value=block, description="BLOCK, lanes a program", style=style, layout=wide)
    elements.add_class("k-elements")
    tile.add_class("k-block")
    return Shell(state, {"n": elements, "block": tile}, [[elements, tile]])
