"""The tile walk of chapter 05: what one program of a flash kernel does with each tile of keys, step by step."""

import numpy as np

from course_lib.figures.core import INK, LABEL_SIZE, MUTED, SMALL_SIZE, WIDTH, Picture, say, word_colour
from course_lib.figures.core import Card as Drawing
from course_lib.figures.flash_forward import LOADED, MASKED_TILE, SKIPPED, WAITING, K, Q, tile_grid, tile_key, tiles_of, told_tiles
from course_lib.figures.rows import whole
from course_lib.widgets.shell import Shell, controls_available, without_controls
from course_lib.words import plural

SIDES = (16, 32, 64, 128)
MOST = 512  # queries and keys
_SIDE, _WIDE = 2.9, 4.1  # inches that the map may fill


def walk(n_q: int, n_kv: int, block_m: int, block_n: int, causal: bool, program: int) -> list[int]:
    """The tiles of keys that a program loads, in order."""
    tiles = tiles_of(n_q, n_kv, block_m, block_n, causal)
    if not 0 <= program < tiles.shape[0]:
        raise ValueError(f"program is {program}, and there are {tiles.shape[0]} (0 to {tiles.shape[0] - 1})")
    return [j for j in range(tiles.shape[1]) if tiles[program, j] != SKIPPED]


def state(
    n_q: int = 256, n_kv: int = 256, block_m: int = 64, block_n: int = 32, causal: bool = True, program: int = 2, step: int = 3, last: bool = False
) -> Picture:
    """The map of all tiles after `step` tiles of that program. A program or step past the end counts as the last one. last=True: all steps done."""
    n_q, n_kv, program, step = whole(n_q, "n_q"), whole(n_kv, "n_kv"), whole(program, "program", least=0), whole(step, "step", least=0)
    if max(n_q, n_kv) > MOST:
        raise ValueError(f"{n_q} queries and {n_kv} keys: at most {MOST} of each are drawn")
    if block_m not in SIDES or block_n not in SIDES:
        raise ValueError(f"the tile is {block_m} x {block_n}; its sides are {', '.join(map(str, SIDES))}")
    tiles = tiles_of(n_q, n_kv, block_m, block_n, causal)
    program = min(program, tiles.shape[0] - 1)
    mine = walk(n_q, n_kv, block_m, block_n, causal, program)
    step = len(mine) if last else min(step, len(mine))
    shown = tiles.copy()
    for j in mine[step:]:
        shown[program, j] = WAITING
    current = (program, mine[step - 1]) if step else None
    first, end = program * block_m, min((program + 1) * block_m, n_q)
    loaded = f"{step} of its {len(mine)} {plural('tile', len(mine))} loaded, " if mine else ""
    title = f"Program {program} of {tiles.shape[0]}: {loaded}{tiles.shape[1] - len(mine) if mine else 'all'} skipped"
    words = _said(tiles, program, mine, step, first, end, n_q, n_kv, block_n, causal)
    wide, high = min(_WIDE / tiles.shape[1], 0.9), min(_SIDE / tiles.shape[0], 0.7)
    with Drawing(title, height=_SIDE + 0.75) as card:
        ax = card.axes(0.2, 0, WIDTH - 0.4, _SIDE + 0.75, bare=True)
        left, bottom = 0.75, 0.2 + _SIDE - high * tiles.shape[0]
        tile_grid(ax, shown, left, bottom, wide, high, current)
        say(ax, left + wide * tiles.shape[1] / 2, 0.3 + _SIDE, f"{n_kv} keys, tiles of {block_n}", "center bottom", word_colour(K))
        say(ax, 0.1, bottom + high * tiles.shape[0] / 2, f"{n_q} queries", "left center", word_colour(Q), rotation=90)
        say(ax, left - 0.08, bottom + (tiles.shape[0] - 0.5 - program) * high, f"{program}", "right center", INK, LABEL_SIZE, fontweight="bold")
        card.paragraph(5.45, _SIDE + 0.55, words, WIDTH - 5.75)
        kinds = [
            (LOADED, "loaded, every score counts"),
            (MASKED_TILE, "loaded, some scores hidden"),
            (SKIPPED, "skipped: never read"),
            (WAITING, "still to come"),
        ]
        tile_key(card, 5.45, 1.35, kinds)
        card.text(5.45, 0.2, told_tiles(tiles), size=SMALL_SIZE, colour=MUTED)
        return card.picture(
            f"{tiles.shape[0]} by {tiles.shape[1]} tiles of scores{', causal' if causal else ''}. {title}. {words} In all: {told_tiles(tiles)}."
        )


def _said(tiles: np.ndarray, program: int, mine: list[int], step: int, first: int, end: int, n_q: int, n_kv: int, block_n: int, causal: bool) -> str:
    shift = n_kv - n_q
    words = f"It owns queries {first} to {end - 1}."
    if causal:
        sees = end - 1 + shift
        words += f" Its last query sees keys up to {sees}." if sees >= 0 else " None of them sees a key: nothing is read, the output is 0."
    if step:
        j = mine[step - 1]
        keys = f"keys {j * block_n} to {min((j + 1) * block_n, n_kv) - 1}"
        kind = "some of its scores become -inf" if tiles[program, j] == MASKED_TILE else "no mask is needed"
        words += f" In hand: {keys}; {kind}."
    elif mine:
        words += " Q is loaded, row_max is -inf, row_sum and acc are 0."
    if step == len(mine) and mine:
        words += " That was its last tile: divide, store."
    return words


def stepper(n_q: int = 256, n_kv: int = 256, block_m: int = 64, block_n: int = 32, causal: bool = True):
    """Sliders for program and step, and for the shape; the picture alone where ipywidgets is missing."""
    first = state(n_q, n_kv, block_m, block_n, causal)
    return _shell(n_q, n_kv, block_m, block_n, causal) if controls_available() else without_controls(first)


def _shell(n_q: int, n_kv: int, block_m: int, block_n: int, causal: bool) -> Shell:
    import ipywidgets as widgets

    style, wide, narrow = {"description_width": "initial"}, widgets.Layout(width="250px"), widgets.Layout(width="150px")
    controls = {
        "program": widgets.IntSlider(value=2, min=0, max=15, description="Program", style=style, layout=wide),
        "step": widgets.IntSlider(value=3, min=0, max=16, description="Step", style=style, layout=wide),
        "n_q": widgets.IntSlider(value=n_q, min=16, max=MOST, step=16, description="N_Q", style=style, layout=wide),
        "n_kv": widgets.IntSlider(value=n_kv, min=16, max=MOST, step=16, description="N_KV", style=style, layout=wide),
        "block_m": widgets.Dropdown(options=list(SIDES), value=block_m, description="BLOCK_M", style=style, layout=narrow),
        "block_n": widgets.Dropdown(options=list(SIDES), value=block_n, description="BLOCK_N", style=style, layout=narrow),
        "causal": widgets.Checkbox(value=causal, description="causal", indent=False, layout=narrow),
    }
    for name, control in controls.items():
        control.add_class(f"k-walk-{name.replace('_', '-')}")
    rows = [
        [controls["program"], controls["step"]],
        [controls["n_q"], controls["n_kv"]],
        [controls["block_m"], controls["block_n"], controls["causal"]],
    ]
    return Shell(state, controls, rows)
