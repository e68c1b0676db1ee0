"""The tile explorer of chapter 04: what the tiles of a matmul ask memory for, and whether they fit one block of a GPU."""

from dataclasses import dataclass

from matplotlib.patches import Rectangle

from course_lib import datasheets
from course_lib.datasheets import SHEETS
from course_lib.figures.core import COLOURS, INK, LABEL_SIZE, MUTED, WIDTH, Card, Picture, number, say, size, tint, word_colour
from course_lib.widgets.shell import Shell, controls_available, without_controls

SIDES = (16, 32, 64, 128, 256)
DEPTHS = (16, 32, 64, 128)
STAGES = (1, 2, 3, 4, 5)
SIZE, BYTES = 4096, 2  # [4096, 4096] @ [4096, 4096] in fp16
CHIP, MEMORY, WRONG = COLOURS["output"], COLOURS["memory"], COLOURS["K"]


@dataclass(frozen=True)
class Tiles:
    """One choice of tiles for a square matmul in fp16 with a float32 accumulator."""

    block_m: int
    block_n: int
    block_k: int
    stages: int
    n: int = SIZE

    @property
    def programs(self) -> int:
        return -(-self.n // self.block_m) * -(-self.n // self.block_n)

    @property
    def requested(self) -> int:
        """Bytes: a once for each column of tiles, b once for each row of tiles, the result once."""
        n = self.n
        return (n * n * -(-n // self.block_n) + n * n * -(-n // self.block_m) + n * n) * BYTES

    @property
    def compulsory(self) -> int:
        return 3 * self.n * self.n * BYTES

    @property
    def shared(self) -> int:
        """Bytes of shared memory: a tile of a and one of b, for each stage of the pipeline."""
        return self.stages * (self.block_m + self.block_n) * self.block_k * BYTES

    @property
    def accumulator(self) -> int:
        """Bytes of registers that acc takes."""
        return self.block_m * self.block_n * 4


def state(gpu: str = "A100", block_m: int = 128, block_n: int = 128, block_k: int = 64, stages: int = 3) -> Picture:
    """Requested bytes, shared memory and registers of these tiles, for a 4,096-cubed matmul in fp16."""
    sheet = datasheets.sheet(gpu)
    for name, value, offered in (("block_m", block_m, SIDES), ("block_n", block_n, SIDES), ("block_k", block_k, DEPTHS), ("stages", stages, STAGES)):
        if value not in offered:
            raise ValueError(f"{name} must be one of {', '.join(map(str, offered))}, and {value!r} is not")
    tiles = Tiles(block_m, block_n, block_k, stages)
    rows = (
        ("shared memory", tiles.shared, sheet.shared_per_block, f"of {size(sheet.shared_per_block)} a block may have"),
        ("registers for acc", tiles.accumulator, sheet.registers_per_sm, f"of {size(sheet.registers_per_sm)} an SM has"),
    )
    over = [
        "too many registers" if name.startswith("registers") else f"too much {name}" for name, used, limit, _ in rows if _too_much(name, used, limit)
    ]
    times = tiles.requested / tiles.compulsory
    title = f"{sheet.name}, tiles of {block_m} x {block_n} x {block_k}: {size(tiles.requested)} requested, {number(times)} times compulsory; "
    title += "they fit" if not over else " and ".join(over)
    note = (
        f"[{SIZE:,}, {SIZE:,}] @ [{SIZE:,}, {SIZE:,}] in fp16: {tiles.programs:,} programs for {sheet.sms} SMs, {stages} stage{'s' * (stages > 1)} of "
        f"{size(tiles.shared // stages)}."
    )
    with Card(title, height=1.75, note=note) as card:
        ax = card.axes(0.25, 0.0, WIDTH - 0.5, 1.7, bare=True)
        left, long = 1.75, 3.3
        for i, (name, used, limit, words) in enumerate(rows):
            y = 1.22 - 0.5 * i
            colour = WRONG if _too_much(name, used, limit) else CHIP
            say(ax, left - 0.12, y + 0.14, name, "right center", INK, LABEL_SIZE)
            ax.add_patch(Rectangle((left, y), long * min(used / limit, 1.25), 0.28, facecolor=colour, edgecolor="none"))
            ax.plot([left + long] * 2, [y - 0.07, y + 0.35], color=INK, linewidth=1.6)
            say(ax, left + long * 1.25 + 0.12, y + 0.14, f"{size(used)} {words}", "left center", word_colour(colour))
        y = 0.18
        least = SIZE * SIZE * BYTES * 3
        most = Tiles(SIDES[0], SIDES[0], DEPTHS[0], 1).requested
        say(ax, left - 0.12, y + 0.14, "requested bytes", "right center", INK, LABEL_SIZE)
        ax.add_patch(Rectangle((left, y), max(long * 1.25 * tiles.requested / most, 0.03), 0.28, facecolor=MEMORY, edgecolor="none"))
        ax.add_patch(Rectangle((left, y), long * 1.25 * least / most, 0.28, facecolor=tint(MEMORY, 0.5), edgecolor="none"))
        say(ax, left + long * 1.25 + 0.12, y + 0.14, f"{size(tiles.requested)}, {number(times)} x compulsory", "left center", MUTED)
        return card.picture(f"{title}. {note} " + " ".join(f"{name.capitalize()}: {size(used)} {words}." for name, used, _, words in rows))


def _too_much(name: str, used: int, limit: int) -> bool:
    """A full share of shared memory is a fit; registers are needed for pointers and tiles too, so acc cannot have them all."""
    return used > limit or (used == limit and name.startswith("registers"))


def explorer(gpu: str = "A100", block_m: int = 128, block_n: int = 128, block_k: int = 64, stages: int = 3):
    """The same picture with controls."""
    first = state(gpu, block_m, block_n, block_k, stages)
    if not controls_available():
        return without_controls(first)
    import ipywidgets as widgets

    style, narrow = {"description_width": "initial"}, widgets.Layout(width="230px")

    def slider(options: tuple[int, ...], value: int, words: str, name: str):
        control = widgets.SelectionSlider(options=options, value=value, description=words, style=style, layout=narrow)
        control.add_class(f"k-{name}")
        return control

    gpu_box = widgets.Dropdown(options=list(SHEETS), value=datasheets.sheet(gpu).name, description="GPU", style=style, layout=narrow)
    gpu_box.add_class("k-gpu")
    controls = {
        "gpu": gpu_box,
        "block_m": slider(SIDES, block_m, "BLOCK_M", "block-m"),
        "block_n": slider(SIDES, block_n, "BLOCK_N", "block-n"),
        "block_k": slider(DEPTHS, block_k, "BLOCK_K", "block-k"),
        "stages": slider(STAGES, stages, "num_stages", "stages"),
    }
    return Shell(state, controls, [[gpu_box, controls["stages"]], [controls["block_m"], controls["block_n"], controls["block_k"]]])
