"""The backward tile walk of chapter 06: which tiles a program of the dK-and-dV or of the dQ kernel has in hand, and what it makes of them."""

import numpy as np

from course_lib.figures.core import INK, LABEL_SIZE, MUTED, SMALL_SIZE, WIDTH, Picture, say, word_colour
from course_lib.figures.core import Card as Drawing
from course_lib.figures.flash_forward import LOADED, MASKED_TILE, SKIPPED, WAITING, K, Q, V, tile_grid, tile_key, tiles_of
from course_lib.figures.rows import whole
from course_lib.widgets.shell import Shell, controls_available, without_controls
from course_lib.words import plural

SIDES = (16, 32, 64, 128)
MOST = 512  # queries and keys
DKDV, DQ = "dK and dV", "dQ"
_SIDE, _WIDE = 2.9, 3.9  # inches that the map may fill
_T = "\u1d40"
PRODUCTS = {
    DKDV: (f"S = Q K{_T} scale", "P = exp(S \u2212 lse)", f"dV += P{_T} dO", f"dP = dO V{_T}", "dS = P \u2218 (dP \u2212 delta)", f"dK += dS{_T} Q"),
    DQ: (f"S = Q K{_T} scale", "P = exp(S \u2212 lse)", f"dP = dO V{_T}", "dS = P \u2218 (dP \u2212 delta)", "dQ += dS K"),
}


def walk(kernel: str, n_q: int, n_kv: int, block_m: int, block_n: int, causal: bool, program: int) -> list[int]:
    """The tiles that a program of `kernel` walks over, in order: tiles of queries for DKDV, of keys for DQ."""
    tiles = _tiles(kernel, n_q, n_kv, block_m, block_n, causal)
    if not 0 <= program < tiles.shape[0]:
        raise ValueError(f"program is {program}, and there are {tiles.shape[0]} (0 to {tiles.shape[0] - 1})")
    return [j for j in range(tiles.shape[1]) if tiles[program, j] != SKIPPED]


def _tiles(kernel: str, n_q: int, n_kv: int, block_m: int, block_n: int, causal: bool) -> np.ndarray:
    """[programs, tiles walked over]: a column of the score matrix is a program of DKDV, a row one of DQ."""
    if kernel not in PRODUCTS:
        raise ValueError(f"there is no kernel {kernel!r}; it is one of {', '.join(map(repr, PRODUCTS))}")
    tiles = tiles_of(n_q, n_kv, block_m, block_n, causal)
    return tiles.T if kernel == DKDV else tiles


def state(
    kernel: str = DKDV,
    n_q: int = 256,
    n_kv: int = 256,
    block_m: int = 32,
    block_n: int = 64,
    causal: bool = True,
    program: int = 1,
    step: int = 3,
) -> Picture:
    """The map of all tiles after `step` tiles of that program. A program or step past the end counts as the last one."""
    n_q, n_kv, program, step = whole(n_q, "n_q"), whole(n_kv, "n_kv"), whole(program, "program", least=0), whole(step, "step", least=0)
    if max(n_q, n_kv) > MOST:
        raise ValueError(f"{n_q} queries and {n_kv} keys: at most {MOST} of each are drawn")
    if block_m not in SIDES or block_n not in SIDES:
        raise ValueError(f"the tile is {block_m} x {block_n}; its sides are {', '.join(map(str, SIDES))}")
    tiles = _tiles(kernel, n_q, n_kv, block_m, block_n, causal)
    program = min(program, tiles.shape[0] - 1)
    mine = walk(kernel, n_q, n_kv, block_m, block_n, causal, program)
    step = min(step, len(mine))
    shown = tiles.copy()
    for j in mine[step:]:
        shown[program, j] = WAITING
    at = (program, mine[step - 1]) if step else None
    if kernel == DKDV:
        shown, at = shown.T, at and at[::-1]
    skipped = tiles.shape[1] - len(mine)
    title = f"{kernel}, program {program} of {tiles.shape[0]}: {step} of its {len(mine)} {plural('tile', len(mine))} done, {skipped} skipped"
    words = _said(kernel, tiles, program, mine, step, n_q, n_kv, block_m, block_n)
    wide, high = min(_WIDE / shown.shape[1], 0.9), min(_SIDE / shown.shape[0], 0.7)
    with Drawing(title, height=_SIDE + 0.85) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, _SIDE + 0.85, bare=True)
        left, bottom = 0.7, 0.2 + _SIDE - high * shown.shape[0]
        tile_grid(ax, shown, left, bottom, wide, high, at)
        say(ax, left + wide * shown.shape[1] / 2, 0.42 + _SIDE, f"{n_kv} keys, tiles of {block_n}", "center bottom", word_colour(K))
        say(ax, 0.1, bottom + high * shown.shape[0] / 2, f"{n_q} queries, tiles of {block_m}", "center center", word_colour(Q), rotation=90)
        if kernel == DKDV:
            say(ax, left + (program + 0.5) * wide, 0.26 + _SIDE, f"{program}", "center bottom", INK, LABEL_SIZE, fontweight="bold")
        else:
            say(ax, left - 0.08, bottom + (shown.shape[0] - 0.5 - program) * high, f"{program}", "right center", INK, LABEL_SIZE, fontweight="bold")
        card.paragraph(5.2, _SIDE + 0.65, words, WIDTH - 5.45)
        for i, line in enumerate(PRODUCTS[kernel]):
            colour = word_colour({"dV": V, "dK": K, "dQ": Q}.get(line[:2], INK)) if "+=" in line else INK
            weight = "bold" if "+=" in line else "normal"
            card.text(5.2, 2.5 - i * 0.2, line, size=SMALL_SIZE, va="center", colour=colour if step else MUTED, weight=weight)
        kinds = [(LOADED, "every score counts"), (MASKED_TILE, "some scores hidden"), (SKIPPED, "never read"), (WAITING, "still to come")]
        tile_key(card, 5.2, 1.15, kinds)
        return card.picture(
            f"{shown.shape[0]} by {shown.shape[1]} tiles of scores{', causal' if causal else ''}. {title}. {words} On each tile: {'; '.join(PRODUCTS[kernel])}."
        )


def _said(kernel: str, tiles: np.ndarray, program: int, mine: list[int], step: int, n_q: int, n_kv: int, block_m: int, block_n: int) -> str:
    own, other = (("keys", "queries"), ("queries", "keys"))[kernel == DQ]
    each, n, walked, n_walked = (block_n, n_kv, block_m, n_q) if kernel == DKDV else (block_m, n_q, block_n, n_kv)
    keeps = "K and V; dK and dV stay on the chip" if kernel == DKDV else "Q, dO, lse, delta; dQ stays on the chip"
    words = f"It owns {own} {program * each} to {min((program + 1) * each, n) - 1} and keeps {keeps}."
    if not mine:
        return f"{words} No tile concerns it: it stores zeros."
    if not step:
        return f"{words} Nothing is read yet of the {other}."
    j = mine[step - 1]
    words += f" In hand: {other} {j * walked} to {min((j + 1) * walked, n_walked) - 1}."
    return words + (" That was its last tile: scale, store." if step == len(mine) else "")


def stepper(kernel: str = DKDV, n_q: int = 256, n_kv: int = 256, causal: bool = True):
    """A choice of kernel, sliders for program and step, and for the shape; the picture alone where ipywidgets is missing."""
    first = state(kernel, n_q, n_kv, causal=causal)
    return _shell(kernel, n_q, n_kv, causal) if controls_available() else without_controls(first)


def _shell(kernel: str, n_q: int, n_kv: int, causal: bool) -> Shell:
    import ipywidgets as widgets

    style, wide, narrow = {"description_width": "initial"}, widgets.Layout(width="250px"), widgets.Layout(width="150px")
    controls = {
        "kernel": widgets.Dropdown(options=list(PRODUCTS), value=kernel, description="Kernel", style=style, layout=widgets.Layout(width="200px")),
        "program": widgets.IntSlider(value=1, min=0, max=15, description="Program", style=style, layout=wide),
        "step": widgets.IntSlider(value=3, min=0, max=16, description="Step", style=style, layout=wide),
        "n_q": widgets.IntSlider(value=n_q, min=16, max=MOST, step=16, description="N_Q", style=style, layout=wide),
        "n_kv": widgets.IntSlider(value=n_kv, min=16, max=MOST, step=16, description="N_KV", style=style, layout=wide),
        "block_m": widgets.Dropdown(options=list(SIDES), value=32, description="BLOCK_M", style=style, layout=narrow),
        "block_n": widgets.Dropdown(options=list(SIDES), value=64, description="BLOCK_N", style=style, layout=narrow),
        "causal": widgets.Checkbox(value=causal, description="causal", indent=False, layout=narrow),
    }
    for name, control in controls.items():
        control.add_class(f"k-backward-{name.replace('_', '-')}")
    rows = [
        [controls["kernel"], controls["program"], controls["step"]],
        [controls["n_q"], controls["n_kv"]],
        [controls["block_m"], controls["block_n"], controls["causal"]],
    ]
    return Shell(state, controls, rows)
