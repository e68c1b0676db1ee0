"""The wave explorer of chapter 07: a grid of programs on a GPU, wave by wave, and how much of the GPU they use."""

from course_lib import datasheets
from course_lib.figures.core import Picture, many
from course_lib.figures.rows import whole
from course_lib.figures.versions import waves
from course_lib.widgets.shell import Shell, controls_available, without_controls

GPUS = ("T4", "L4", "A100", "H200", "B200")
SIDES = (32, 64, 128, 256)


def state(n: int = 1024, heads: int = 20, block_m: int = 128, per_multiprocessor: int = 1, gpu: str = "H200") -> Picture:
    """A flash forward on n queries of `heads` heads (all sequences together): one program for each tile of block_m queries of a head."""
    n, heads, per = whole(n, "n"), whole(heads, "heads"), whole(per_multiprocessor, "per_multiprocessor")
    if block_m not in SIDES:
        raise ValueError(f"block_m is {block_m!r}; choose one of {', '.join(map(str, SIDES))}")
    if gpu not in GPUS:
        raise ValueError(f"gpu is {gpu!r}; choose one of {', '.join(GPUS)}")
    tiles = -(-n // block_m)
    sms = datasheets.sheet(gpu).sms
    note = (
        f"{many(heads, 'head')} x {many(tiles, 'tile')} of {block_m} queries = {many(heads * tiles, 'program')}. "
        f"{gpu}: {sms} multiprocessors, {many(per, 'program')} on each at a time."
    )
    return waves(heads * tiles, sms, per, note=note)


def explorer(n: int = 1024, heads: int = 20, block_m: int = 128, per_multiprocessor: int = 1, gpu: str = "H200"):
    """Sliders for the shape and the GPU; the picture alone where ipywidgets is missing."""
    first = state(n, heads, block_m, per_multiprocessor, gpu)
    return _shell(n, heads, block_m, per_multiprocessor, gpu) if controls_available() else without_controls(first)


def _shell(n: int, heads: int, block_m: int, per_multiprocessor: int, gpu: str) -> Shell:
    import ipywidgets as widgets

    style, wide, narrow = {"description_width": "initial"}, widgets.Layout(width="300px"), widgets.Layout(width="150px")
    controls = {
        "n": widgets.IntSlider(value=n, min=128, max=16384, step=128, description="N, queries", style=style, layout=wide),
        "heads": widgets.IntSlider(value=heads, min=1, max=128, description="B x H, heads", style=style, layout=wide),
        "block_m": widgets.Dropdown(options=list(SIDES), value=block_m, description="BLOCK_M", style=style, layout=narrow),
        "per_multiprocessor": widgets.IntSlider(value=per_multiprocessor, min=1, max=8, description="Programs on each", style=style, layout=wide),
        "gpu": widgets.Dropdown(options=list(GPUS), value=gpu, description="GPU", style=style, layout=narrow),
    }
    for name, control in controls.items():
        control.add_class(f"k-waves-{name.replace('_', '-')}")
    return Shell(state, controls, [[controls["n"], controls["heads"]], [controls["block_m"], controls["per_multiprocessor"], controls["gpu"]]])
