"""The prefill and decode explorer of chapter 08: where a prompt and a decoding step lie under a GPU's roofline."""

from course_lib import datasheets, model_sizes, roofline
from course_lib.figures.core import COLOURS, SMALL_SIZE, WIDTH, Card, Picture, many, number, say, text_width, tint, word_colour
from course_lib.figures.memory import draw_roofline, duration
from course_lib.figures.rows import whole
from course_lib.roofline import Machine, Work
from course_lib.widgets.shell import Shell, controls_available, without_controls

MODELS = tuple(model_sizes.SIZES)
BATCHES = tuple(2**i for i in range(11))
CONTEXTS = tuple(2**i for i in range(7, 18))
PREFILL, DECODE = COLOURS["Q"], COLOURS["K"]
_LOW, _HIGH = 0.3, 60_000.0  # one frame for every state: nothing jumps


def works(model: str, tokens: int, batch: int, each: float) -> dict[str, Work]:
    """The prefill of one prompt of `tokens` tokens, and one decoding step of `batch` sequences that hold as many."""
    one = model_sizes.size(model)
    return {"prefill": one.prefill_work(tokens, 1, each, each), "decode": one.decode_work(batch, tokens, each, each)}


def state(model: str = "Llama-3-8B", gpu: str | Machine = "H200", tokens: int = 2048, batch: int = 1, dtype: str = "fp16") -> Picture:
    """The roofline of a GPU (or a `Machine`) with the two of them; small dots: the decoding step at other batch sizes."""
    machine = gpu if isinstance(gpu, Machine) else roofline.machine(gpu)
    tokens, batch = whole(tokens, "tokens"), whole(batch, "batch")
    one, each = model_sizes.size(model), model_sizes.BYTES_EACH.get(dtype, 2)
    found = works(model, tokens, batch, each)
    reach = {name: roofline.attainable(work, machine, dtype) for name, work in found.items()}
    seconds = {name: roofline.seconds(work, machine, dtype) for name, work in found.items()}
    waits = {name: f"waits for {'memory' if roofline.bound(work, machine, dtype) == 'memory' else 'arithmetic'}" for name, work in found.items()}
    title = (
        f"{model} on {machine.name}: a prompt of {tokens:,} tokens {waits['prefill']}, {many(batch, 'sequence')} decoding "
        f"{waits['decode'] if batch == 1 else waits['decode'].replace('waits', 'wait')}"
    )
    note = (
        f"Prefill: {number(found['prefill'].intensity)} FLOPs a byte, at least {duration(seconds['prefill'])}. Decode: "
        f"{number(found['decode'].intensity)} FLOPs a byte, at least {duration(seconds['decode'])} a step, at most "
        f"{number(batch / seconds['decode'])} tokens a second; cache: {number(100 * one.cache_bytes(tokens, batch, each) / found['decode'].bytes)} % "
        f"of its bytes. Small dots: the step at batch {BATCHES[0]} to {BATCHES[-1]:,}."
    )
    low, high = min(_LOW, roofline.ridge(machine, dtype) / 100), max(_HIGH, roofline.ridge(machine, dtype) * 10)
    with Card(title, height=3.7, note=note) as card:
        ax = card.axes(0.95, 0.55, WIDTH - 1.3, 3.0)
        draw_roofline(ax, machine, dtype, low, high, low * machine.bandwidth)
        path = [one.decode_work(b, tokens, each, each) for b in BATCHES]
        heights = [roofline.attainable(work, machine, dtype) for work in path]
        ax.plot(
            [work.intensity for work in path],
            heights,
            "o",
            markersize=4.5,
            color=tint(DECODE, 0.6),
            markeredgecolor="white",
            markeredgewidth=0.5,
            zorder=4,
        )
        for name, colour, mark in (("prefill", PREFILL, "s"), ("decode", DECODE, "o")):
            ax.plot([found[name].intensity], [reach[name]], mark, markersize=9, color=colour, zorder=6)
        _labels(ax, {name: (found[name].intensity, reach[name]) for name in found}, batch)
        return card.picture(f"{title}. {note}")


def _labels(ax, points: dict[str, tuple[float, float]], batch: int) -> None:
    """Each name below its dot, the prefill's further down; where they would touch, below the other."""
    place = {name: ax.transAxes.inverted().transform(ax.transData.transform(point)) for name, point in points.items()}
    heights = {"decode": max(place["decode"][1] - 0.07, 0.12), "prefill": max(place["prefill"][1] - 0.16, 0.12)}
    if abs(heights["prefill"] - heights["decode"]) < 0.07:
        heights["prefill"] = heights["decode"] + (-0.08 if heights["decode"] > 0.22 else 0.08)
    for name, words, colour in (("prefill", "prefill", PREFILL), ("decode", f"decode, batch {batch:,}", DECODE)):
        length = text_width(words, SMALL_SIZE) * ax.figure.dpi / ax.bbox.width
        start = min(place[name][0] + 0.015, 0.985 - length)
        say(ax, start, heights[name], words, "left center", word_colour(colour), transform=ax.transAxes)


def explorer(own: Machine | None = None, model: str = "Llama-3-8B", gpu: str = "H200", tokens: int = 2048, batch: int = 1):
    """The same picture with controls. own: the reader's machine (`roofline.machine()`), added to the GPUs and drawn in fp32."""
    first = state(model, gpu, tokens, batch)
    return _shell(own, model, gpu, tokens, batch) if controls_available() else without_controls(first)


def _shell(own: Machine | None, model: str, gpu: str, tokens: int, batch: int) -> Shell:
    import ipywidgets as widgets

    machines = {name: roofline.machine(name) for name in datasheets.SHEETS} | ({"this machine": own} if own else {})

    def draw(model: str, gpu: str, tokens: int, batch: int) -> Picture:
        return state(model, machines[gpu], tokens, batch, "fp16" if gpu in datasheets.SHEETS else "fp32")

    style = {"description_width": "initial"}

    def box(name: str, options, value, wide: str):
        return widgets.Dropdown(options=options, value=value, description=name, style=style, layout=widgets.Layout(width=wide))

    controls = {
        "model": box("Model", list(MODELS), model, "230px"),
        "gpu": box("GPU", list(machines), gpu, "170px"),
        "tokens": box("Tokens", [(f"{n:,}", n) for n in CONTEXTS], tokens, "170px"),
        "batch": widgets.SelectionSlider(options=list(BATCHES), value=batch, description="Batch", style=style, layout=widgets.Layout(width="320px")),
    }
    for name, control in controls.items():
        control.add_class(f"k-decode-{name}")
    return Shell(draw, controls, [[controls["model"], controls["gpu"], controls["tokens"]], [controls["batch"]]])
