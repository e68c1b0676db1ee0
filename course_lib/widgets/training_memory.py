"""The training-memory explorer of chapter 06: what attention keeps for the backward pass, kept, checkpointed or made again, against GPUs."""

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from course_lib import datasheets
from course_lib.figures.core import COLOURS, INK, LABEL_SIZE, MUTED, SMALL_SIZE, WIDTH, Picture, number, say, size, tint
from course_lib.figures.core import Card as Drawing
from course_lib.figures.rows import whole
from course_lib.widgets.shell import Shell, controls_available, without_controls

GPUS = ("T4", "H200")
LENGTHS = tuple(2**e for e in range(9, 18))
WAYS = ("naive", "naive, a checkpoint a layer", "flash", "flash, a checkpoint a layer")


def kept(n: int, layers: int, heads: int, head_dim: int, batch: int) -> dict[str, int]:
    """Bytes of attention's activations at the worst moment of a step, fp16 or bf16, by way. A layer's input is [batch, n, heads * head_dim].

    Naive keeps Q, K, V and P; flash keeps Q, K, V, the output and lse (float32). A checkpoint a layer keeps the inputs of all layers, and one
    layer's own. The feed-forward layers, weights and optimizer are not counted.
    """
    row = batch * n * heads * head_dim * 2
    own = {"naive": 3 * row + batch * heads * n * n * 2, "flash": 4 * row + batch * heads * n * 4}
    found = {}
    for way, one in own.items():
        found[way] = layers * (row + one)
        found[f"{way}, a checkpoint a layer"] = layers * row + one
    return {way: found[way] for way in WAYS}


def state(n: int = 8192, layers: int = 32, heads: int = 32, head_dim: int = 128, batch: int = 1) -> Picture:
    """Bars over a log axis for one model, the memory of GPUs as lines."""
    n, layers, heads, head_dim, batch = (
        whole(x, name) for x, name in ((n, "n"), (layers, "layers"), (heads, "heads"), (head_dim, "head_dim"), (batch, "batch"))
    )
    ways = kept(n, layers, heads, head_dim, batch)
    limits = {name: datasheets.sheet(name).memory_gb * 10**9 for name in GPUS}
    times = ways["naive"] / ways["flash"]
    fits = [way for way in WAYS if ways[way] <= limits["H200"]]
    where = "none of them fits" if not fits else "all of them fit" if len(fits) == len(WAYS) else f"{len(fits)} of 4 ways fit"
    title = f"N = {n:,}: naive keeps {size(ways['naive'])}, {number(times, 2)} times what flash keeps; {where} an H200"
    left, tall = 0.35 + 2.05, 0.4 * len(WAYS)
    note = (
        f"{layers} layers, {heads} heads of {head_dim}, batch {batch}, 2 bytes a number; attention only, without weights, optimizer and feed-forward."
    )
    with Drawing(title, height=tall + 0.95, note=note) as card:
        ax = card.axes(left, 0.55, WIDTH - left - 1.2, tall)
        ax.set_xscale("log", base=2)
        low = min([*ways.values(), *limits.values()]) / 8
        ax.set_xlim(low, max([*ways.values(), *limits.values()]) * 2)
        ax.set_ylim(len(WAYS) - 0.5, -0.5)
        for y, way in enumerate(WAYS):
            colour = COLOURS["output"] if way.startswith("flash") else COLOURS["memory"]
            ax.barh(y, ways[way] - low, left=low, height=0.58, color=tint(colour, 0.45 if "checkpoint" in way else 0.8))
            say(ax, ways[way], y, f" {size(ways[way])}", "left center", INK, clip_on=False, backgroundcolor="#FFFFFF", zorder=4)
            say(ax, low, y, f"{way}  ", "right center", INK, LABEL_SIZE, clip_on=False)
        for name, limit in limits.items():
            ax.axvline(limit, color=MUTED, linewidth=1.0, linestyle=(0, (3, 2)), zorder=1)
            say(ax, limit, -0.55, name, "center bottom", MUTED, SMALL_SIZE, clip_on=False)
        ax.xaxis.set_major_locator(LogLocator(base=16, numticks=8))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: size(x)))
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("activations of attention at the worst moment of a step")
        told = " ".join(f"{way}: {size(count)}." for way, count in ways.items())
        lines = ", ".join(f"{name} {limit / 1e9:g} GB" for name, limit in limits.items())
        return card.picture(f"{note} {told} Lines: {lines}.")


def explorer(n: int = 8192, layers: int = 32, heads: int = 32):
    """Sliders for length, layers, heads and batch; the picture alone where ipywidgets is missing."""
    first = state(n, layers, heads)
    return _shell(n, layers, heads) if controls_available() else without_controls(first)


def _shell(n: int, layers: int, heads: int) -> Shell:
    import ipywidgets as widgets

    style, wide, narrow = {"description_width": "initial"}, widgets.Layout(width="270px"), widgets.Layout(width="150px")
    controls = {
        "n": widgets.SelectionSlider(options=list(LENGTHS), value=n, description="N", style=style, layout=wide),
        "layers": widgets.IntSlider(value=layers, min=1, max=96, description="Layers", style=style, layout=wide),
        "heads": widgets.IntSlider(value=heads, min=1, max=96, description="Heads", style=style, layout=wide),
        "head_dim": widgets.Dropdown(options=[64, 128, 256], value=128, description="D", style=style, layout=narrow),
        "batch": widgets.IntSlider(value=1, min=1, max=64, description="Batch", style=style, layout=wide),
    }
    for name, control in controls.items():
        control.add_class(f"k-training-{name.replace('_', '-')}")
    return Shell(state, controls, [[controls["n"], controls["layers"]], [controls["heads"], controls["batch"], controls["head_dim"]]])
