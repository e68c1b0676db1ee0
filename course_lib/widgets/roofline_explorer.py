"""The roofline explorer of chapter 01: pick a GPU and an operator, and drag the shape along the roof."""

from collections.abc import Callable
from dataclasses import dataclass

from course_lib import roofline
from course_lib.datasheets import SHEETS
from course_lib.figures.core import COLOURS, SMALL_SIZE, WIDTH, Card, Picture, number, say, text_width, tint, word_colour
from course_lib.figures.memory import BYTES_EACH, draw_roofline, duration, rate
from course_lib.roofline import Machine, Work
from course_lib.widgets.shell import Shell, controls_available, without_controls

WIDE = 4096  # the sides of a matrix that stay
DOT = COLOURS["Q"]
EXPONENTS = range(0, 15)


@dataclass(frozen=True)
class Operator:
    """What is dragged, and the work it makes of (size, bytes an element)."""

    says: Callable[[int], str]
    work: Callable[[int, int], Work]


OPERATORS = {
    "matmul, M rows": Operator(lambda m: f"[{m:,}, {WIDE:,}] @ [{WIDE:,}, {WIDE:,}]", lambda m, b: roofline.matmul_work(m, WIDE, WIDE, b)),
    "matmul, square": Operator(lambda m: f"[{m:,}, {m:,}] @ [{m:,}, {m:,}]", lambda m, b: roofline.matmul_work(m, m, m, b)),
    "add two tensors": Operator(lambda n: f"adding two tensors of {n:,}", lambda n, b: roofline.elementwise_work(n, 2, 1, 1, b)),
    "softmax": Operator(lambda n: f"softmax over rows of {n:,}", lambda n, b: roofline.softmax_work(1, n, b)),
    "attention, naive": Operator(lambda n: f"naive attention, N = {n:,}", lambda n, b: roofline.attention_work(n, 128, 1, "naive", b)),
    "attention, tiled": Operator(lambda n: f"tiled attention, N = {n:,}", lambda n, b: roofline.attention_work(n, 128, 1, "flash", b)),
}
_LOW, _HIGH = 0.05, 20_000.0  # one frame for every state: nothing jumps while the shape is dragged


def state(gpu: str | Machine = "A100", operator: str = "matmul, M rows", size: int = 64, dtype: str = "fp16") -> Picture:
    """The roofline of a GPU (or of a `Machine`), and where the operator stands at this size."""
    machine = gpu if isinstance(gpu, Machine) else roofline.machine(gpu)
    if operator not in OPERATORS:
        raise ValueError(f"there is no operator {operator!r}; choose one of {'; '.join(OPERATORS)}")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of at least 1, and {size!r} is not")
    peak = machine.rate(dtype)
    chosen, each = OPERATORS[operator], BYTES_EACH[dtype]
    work = chosen.work(size, each)
    reach, waits = roofline.attainable(work, machine, dtype), roofline.bound(work, machine, dtype)
    verdict = "waits for memory" if waits == "memory" else "waits for arithmetic"
    title = f"{machine.name}, {dtype}: {chosen.says(size)} {verdict}: at most {rate(reach, 'FLOP/s')}, {reach / peak:.0%} of the peak"
    note = (
        f"{number(work.flops)} FLOPs, {number(work.bytes)} bytes, {number(work.intensity)} FLOPs per byte. "
        f"At least {duration(roofline.seconds(work, machine, dtype))}: bytes need {duration(work.bytes / machine.bandwidth)}, "
        f"FLOPs {duration(work.flops / peak)}."
    )
    low, high = min(_LOW, roofline.ridge(machine, dtype) / 100), max(_HIGH, roofline.ridge(machine, dtype) * 10)
    with Card(title, height=3.7, note=note) as card:
        ax = card.axes(0.95, 0.55, WIDTH - 1.3, 3.0)
        draw_roofline(ax, machine, dtype, low, high, low * machine.bandwidth)
        path = [chosen.work(2**i, each) for i in EXPONENTS]
        ax.plot(
            [w.intensity for w in path], [roofline.attainable(w, machine, dtype) for w in path], "o", markersize=3.5, color=tint(DOT, 0.45), zorder=4
        )
        ax.plot([work.intensity], [reach], "o", markersize=9, color=DOT, zorder=6)
        _label(ax, machine, dtype, work, reach, chosen.says(size))
        return card.picture(f"{title}. {note}")


def _label(ax, machine: Machine, dtype: str, work: Work, reach: float, words: str) -> None:
    """Below the dot: to its right where that ends before the ridge's line, right of that line otherwise; under the flat roof."""
    place = ax.transAxes.inverted().transform
    across, up = place(ax.transData.transform((work.intensity, reach)))
    ridge = place(ax.transData.transform((roofline.ridge(machine, dtype), reach)))[0]
    length = text_width(words, SMALL_SIZE) * ax.figure.dpi / ax.bbox.width
    start = across + 0.02 if across + 0.03 + length < ridge else max(ridge + 0.01, across - length / 2)
    say(ax, min(start, 0.99 - length), max(up - 0.06, 0.1), words, "left center", word_colour(DOT), transform=ax.transAxes)


def explorer(own: Machine | None = None, gpu: str = "A100", operator: str = "matmul, M rows", size: int = 64, dtype: str = "fp16"):
    """The same picture with controls. own: the reader's machine (`roofline.machine()`), added to the list of GPUs and drawn in fp32."""
    first = state(gpu, operator, size, dtype)
    if not controls_available():
        return without_controls(first)
    import ipywidgets as widgets

    machines = {name: roofline.machine(name) for name in SHEETS} | ({"this machine": own} if own else {})

    def draw(gpu: str, operator: str, power: int) -> Picture:
        return state(machines[gpu], operator, 2**power, dtype if gpu in SHEETS else "fp32")

    style, wide = {"description_width": "initial"}, widgets.Layout(width="220px")
    gpu_box = widgets.Dropdown(options=list(machines), value=gpu, description="GPU", style=style, layout=wide)
    operator_box = widgets.Dropdown(options=list(OPERATORS), value=operator, description="Operator", style=style, layout=wide)
    slider = widgets.IntSlider(
        value=max(0, size.bit_length() - 1),
        min=EXPONENTS[0],
        max=EXPONENTS[-1],
        description="Size, 2 to the power of",
        style=style,
        layout=widgets.Layout(width="420px"),
    )
    for control, name in ((gpu_box, "k-gpu"), (operator_box, "k-operator"), (slider, "k-size")):
        control.add_class(name)
    return Shell(draw, {"gpu": gpu_box, "operator": operator_box, "power": slider}, [[gpu_box, operator_box], [slider]])
