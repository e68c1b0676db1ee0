"""The block-size explorer of chapter 05: which tiles fit which GPU's shared memory, and how often K and V are read with them."""

from course_lib import datasheets
from course_lib.figures.core import Picture, number, size
from course_lib.figures.flash_forward import shared_memory
from course_lib.figures.rows import whole
from course_lib.widgets.shell import Shell, controls_available, without_controls

SIDES = (16, 32, 64, 128, 256)
GPUS = ("T4", "L4", "A100", "H100")  # an H200 has an H100's
HEADS = (64, 80, 96, 128, 256)


def needs(block_m: int, block_n: int, head_dim: int, stages: int, bytes_each: int = 2) -> dict[str, int]:
    """Bytes of shared memory by tensor: one tile of Q, `stages` tiles each of K and V, as wide as the next power of two."""
    block_d = max(16, 1 << (whole(head_dim, "head_dim") - 1).bit_length())
    row = block_d * bytes_each
    return {"Q": block_m * row, "K": stages * block_n * row, "V": stages * block_n * row}


def limits() -> dict[str, int]:
    """{GPU: bytes that one block may have}, from the data sheets."""
    return {name: datasheets.sheet(name).shared_per_block for name in GPUS}


def state(block_m: int = 128, block_n: int = 64, head_dim: int = 128, stages: int = 2, n: int = 16384) -> Picture:
    """The picture of one choice of tiles, for fp16 tensors of n queries and keys."""
    if block_m not in SIDES or block_n not in SIDES:
        raise ValueError(f"the tile is {block_m} x {block_n}; its sides are {', '.join(map(str, SIDES))}")
    stages, n = whole(stages, "stages"), whole(n, "n")
    parts = needs(block_m, block_n, head_dim, stages)
    reads = -(-n // block_m)
    asked = 2 * n * head_dim * 2 * (1 + reads) + 4 * n
    registers = block_m * (next(iter(parts.values())) // (2 * block_m) + block_n) * 4 / (8 * 32 * 4)
    note = (
        f"D = {head_dim}, {stages} {'stages' if stages > 1 else 'stage'}, fp16. K and V are read {reads:,} times at N = {n:,}: {size(asked)} requested. "
        f"Scores and acc take {number(registers, 3)} registers a thread of 8 warps (255 are the most, and the rest needs some too)."
    )
    return shared_memory(sum(parts.values()), limits(), parts, note=note)


def explorer(block_m: int = 128, block_n: int = 64, head_dim: int = 128, stages: int = 2):
    """Choices for the tile, the head and the stages; the picture alone where ipywidgets is missing."""
    first = state(block_m, block_n, head_dim, stages)
    return _shell(block_m, block_n, head_dim, stages) if controls_available() else without_controls(first)


def _shell(block_m: int, block_n: int, head_dim: int, stages: int) -> Shell:
    import ipywidgets as widgets

    style, narrow = {"description_width": "initial"}, widgets.Layout(width="150px")
    controls = {
        "block_m": widgets.Dropdown(options=list(SIDES), value=block_m, description="BLOCK_M", style=style, layout=narrow),
        "block_n": widgets.Dropdown(options=list(SIDES), value=block_n, description="BLOCK_N", style=style, layout=narrow),
        "head_dim": widgets.Dropdown(options=list(HEADS), value=head_dim, description="D", style=style, layout=narrow),
        "stages": widgets.IntSlider(value=stages, min=1, max=5, description="Stages", style=style, layout=widgets.Layout(width="220px")),
    }
    for name, control in controls.items():
        control.add_class(f"k-blocks-{name.replace('_', '-')}")
    return Shell(state, controls, [[controls["block_m"], controls["block_n"], controls["head_dim"]], [controls["stages"]]])
