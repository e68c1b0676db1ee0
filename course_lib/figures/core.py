"""The card that every figure of the course is drawn on: colours, type, title, alt text, and how it is shown.

A `Picture` is a PNG on an opaque light card with an alt text. It shows itself as HTML `<img alt>`: a plain image
output has no alt text in JupyterLab. matplotlib's object API only: no pyplot state, no global settings changed.
Knows nothing of what is drawn.
"""

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.text import Text

from course_lib.paths import ROOT

# One meaning each, in the whole course. Apart under deuteranopia and protanopia; at least 3:1 against the card.
COLOURS = {
    "Q": "#2F86D6",  # queries
    "K": "#D55E00",  # keys, and the scores they make
    "V": "#0B7A45",  # values
    "output": "#7D0F8C",  # the output, and the state it is made from: row_max, row_sum, acc
    "memory": "#3A2A10",  # slow memory: what is stored there, what is moved from and to it
    "masked": "#8B9198",  # hidden keys, and what is not there any more
}
INK, MUTED, FAINT, CARD = "#1B1F24", "#57606A", "#E3E7EB", "#FFFFFF"
WIDTH = 8.8  # inches; 100 CSS pixels an inch, and two dots a pixel
TITLE_SIZE, NOTE_SIZE, LABEL_SIZE, SMALL_SIZE = 13, 10, 10, 9
_MARGIN, _DPI, _CSS = 0.22, 200, 100


@dataclass(frozen=True)
class Picture:
    """A finished figure: `alt` says what a reader would say over the phone, `figure` is the matplotlib object behind it."""

    png: bytes
    alt: str
    title: str
    width: int  # CSS pixels
    height: int
    figure: Figure = field(repr=False, compare=False)

    @property
    def html(self) -> str:
        """The picture as one HTML element that needs nothing else: no file, no script, no style sheet."""
        data = base64.b64encode(self.png).decode()
        style = "display:block;max-width:100%;height:auto;background:#ffffff;border-radius:6px;margin:4px 0"
        size = f'width="{self.width}" height="{self.height}"'  # known sizes and decoding=sync: nothing jumps or flickers when it is replaced
        return f'<img alt="{html.escape(self.alt)}" {size} decoding="sync" style="{style}" src="data:image/png;base64,{data}">'

    def bundle(self) -> dict:
        return {"text/html": self.html, "text/plain": self.alt}

    def save(self, path: str | Path) -> Path:
        """Write the PNG; returns the path."""
        Path(path).write_bytes(self.png)
        return Path(path)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return self.bundle()

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.alt


@lru_cache(maxsize=1)
def _style() -> dict:
    return dict(mpl.rc_params_from_file(ROOT / "course_lib" / "style.mplstyle", use_default_template=False))


class Card:
    """A card being drawn: `with Card(title, height=3.5) as card: ax = card.axes(...)`, then `card.picture(alt)`.

    height, and every position, is in inches from the lower left corner of the part under the title.
    """

    def __init__(self, title: str, height: float, note: str = "", width: float = WIDTH):
        if not title.strip():
            raise ValueError("a figure needs a title that says what it shows: the finding, not the quantities plotted")
        self.title, self.note, self.width, self.body = title.strip(), note.strip(), width, height

    def __enter__(self) -> "Card":
        self._rc = mpl.rc_context(_style())
        self._rc.__enter__()
        self.figure = Figure(figsize=(self.width, self.body + 1), dpi=_DPI)
        FigureCanvasAgg(self.figure)
        lines = [(line, TITLE_SIZE, "bold", INK) for line in wrapped(self.title, TITLE_SIZE, self.width - 2 * _MARGIN, "bold")]
        lines += [(line, NOTE_SIZE, "normal", MUTED) for line in wrapped(self.note, NOTE_SIZE, self.width - 2 * _MARGIN)]
        steps = [size * 1.45 / 72 for _, size, _, _ in lines]
        self.height = self.body + 0.18 + sum(steps) + 0.06
        self.figure.set_size_inches(self.width, self.height)
        y = self.height - 0.18
        for (line, size, weight, colour), step in zip(lines, steps, strict=True):
            self.text(_MARGIN, y, line, size=size, weight=weight, colour=colour, va="top")
            y -= step
        return self

    def __exit__(self, *failure) -> None:
        self._rc.__exit__(*failure)

    def axes(self, left: float, bottom: float, width: float, height: float, bare: bool = False) -> Axes:
        """Axes at that place, in inches; bare=True draws no frame and its data units are inches on the card."""
        ax = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        if bare:
            ax.set_axis_off()
            ax.set_xlim(0, width)
            ax.set_ylim(0, height)
        return ax

    def text(self, x: float, y: float, words: str, size: float = LABEL_SIZE, colour: str = INK, weight: str = "normal", **kwargs) -> Text:
        """Words at a place on the card, in inches from its lower left corner."""
        return self.figure.text(x / self.width, y / self.height, words, fontsize=size, color=colour, fontweight=weight, **kwargs)

    def paragraph(self, x: float, y: float, words: str, width: float, size: float = LABEL_SIZE, colour: str = INK) -> None:
        """Words wrapped to a width, their top at y."""
        for i, line in enumerate(_greedy(words, size, "normal", width)):
            self.text(x, y - i * size * 1.45 / 72, line, size=size, colour=colour, va="top")

    def picture(self, alt: str) -> Picture:
        """Draw it. `alt` is the alternative text, in sentences."""
        alt = " ".join(alt.split())
        if not alt:
            raise ValueError("a figure needs an alt text: what you would say about it over the phone")
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=_DPI, pil_kwargs={"compress_level": 4})
        return Picture(buffer.getvalue(), alt, self.title, round(self.width * _CSS), round(self.height * _CSS), self.figure)


@lru_cache(maxsize=4096)
def text_width(words: str, size: float, weight: str = "normal") -> float:
    """The width of a line in inches."""
    figure = Figure(figsize=(1, 1), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    extent = figure.text(0, 0, words, fontsize=size, fontweight=weight, parse_math=False).get_window_extent(canvas.get_renderer())
    return extent.width / _DPI


def wrapped(words: str, size: float, width: float, weight: str = "normal") -> list[str]:
    """Lines of about equal length: as few as the width allows, then as narrow as that many lines allow."""
    lines = _greedy(words, size, weight, width)
    if len(lines) > 1:
        low, high = width / 2, width
        for _ in range(8):
            middle = (low + high) / 2
            low, high = (low, middle) if len(_greedy(words, size, weight, middle)) == len(lines) else (middle, high)
        lines = _greedy(words, size, weight, high)
    return lines


def _greedy(words: str, size: float, weight: str, width: float) -> list[str]:
    """Line breaking by the measured widths of the words."""
    space = text_width("n n", size, weight) - text_width("nn", size, weight)
    lines: list[list[str]] = []
    used = 0.0
    for word in re.split(r"[ \n\t]+", words.strip()) if words.strip() else ():  # a no-break space does not break
        wide = text_width(word, size, weight)
        if lines and used + space + wide <= width:
            lines[-1].append(word)
            used += space + wide
        else:
            lines.append([word])
            used = wide
    return [" ".join(line) for line in lines]


def tint(colour: str, share: float) -> str:
    """The colour mixed with the card's white: share 1 is the colour itself, 0 is white."""
    rgb = [round(255 + (c * 255 - 255) * share) for c in mpl.colors.to_rgb(colour)]
    return "#{:02X}{:02X}{:02X}".format(*rgb)


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG defines it."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))


def contrast(a: str, b: str = CARD) -> float:
    """Contrast ratio of two colours, 1 to 21 (text needs 4.5, shapes need 3)."""
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@lru_cache(maxsize=64)
def word_colour(colour: str) -> str:
    """The colour darkened until words in it reach 4.5:1 on the card."""
    rgb = mpl.colors.to_rgb(colour)
    share = 1.0
    while contrast(tuple(c * share for c in rgb)) < 4.5:
        share -= 0.02
    return mpl.colors.to_hex([c * share for c in rgb])


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = MUTED, bend: float = 0.0, width: float = 1.4) -> None:
    """An arrow in the axes' data units."""
    style = f"arc3,rad={bend}"
    ax.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>,head_length=4,head_width=2.4", connectionstyle=style, color=colour, linewidth=width, shrinkA=0, shrinkB=0
        )
    )


def rounded(ax: Axes, x: float, y: float, width: float, height: float, face: str, edge: str, radius: float = 0.07, **kwargs) -> None:
    """A rounded box in data units (the axes must be bare: equal units)."""
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=f"round,pad=0,rounding_size={radius}", facecolor=face, edgecolor=edge, **kwargs))


def say(ax: Axes, x: float, y: float, words: str, place: str = "center center", colour: str = INK, size: float = SMALL_SIZE, **kwargs) -> Text:
    """Words in the axes' data units; `place` says which point of the words stands there: "left center", "center top"."""
    ha, va = place.split()
    return ax.text(x, y, words, ha=ha, va=va, fontsize=size, color=colour, **kwargs)


def label_ends(ax: Axes, labels: Sequence[tuple[float, float, str, str]], gap: float = 0.17, away: float = 0.1) -> None:
    """Label lines where they end: (x, y, words, colour) each. Labels that would touch are moved apart; gap and away (from the line) in inches."""
    height, width = ax.bbox.height / ax.figure.dpi, ax.bbox.width / ax.figure.dpi
    placed = []
    for x, y, words, colour in labels:
        across, up = ax.transAxes.inverted().transform(ax.transData.transform((x, y)))
        placed.append([up * height, across, words, colour])
    placed.sort(key=lambda item: item[0])
    for _ in range(200):  # push neighbours apart until they fit
        moved = False
        for low, high in zip(placed, placed[1:], strict=False):
            if high[0] - low[0] < gap - 1e-6:
                push = (gap - (high[0] - low[0])) / 2
                low[0], high[0], moved = low[0] - push, high[0] + push, True
        if not moved:
            break
    for up, across, words, colour in placed:
        ax.text(
            across + away / width, up / height, words, transform=ax.transAxes, color=word_colour(colour), fontsize=SMALL_SIZE, va="center", ha="left"
        )


def crowding(figure: Figure, slack: float = 1.0) -> list[str]:
    """What is wrong with the words of a figure: those that leave the card, and pairs that overlap. Empty when all is well."""
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in _drawn_words(figure)]
    whole = figure.bbox
    problems = [
        f"{words!r} leaves the card" for words, b in boxes if b.x0 < -slack or b.y0 < -slack or b.x1 > whole.x1 + slack or b.y1 > whole.y1 + slack
    ]
    for i, (words, a) in enumerate(boxes):
        for other, b in boxes[i + 1 :]:
            if min(a.x1, b.x1) - max(a.x0, b.x0) > slack and min(a.y1, b.y1) - max(a.y0, b.y0) > slack:
                problems.append(f"{words!r} overlaps {other!r}")
    return problems


def _drawn_words(figure: Figure) -> list[Text]:
    """Every text that is drawn: tick labels outside the view, and the labels of bare axes, are not."""
    texts = list(figure.texts)
    for ax in figure.axes:
        texts += ax.texts
        if ax.axison:
            texts += [ax.title, ax.xaxis.label, ax.yaxis.label]
            for axis in (ax.xaxis, ax.yaxis):
                low, high = sorted(axis.get_view_interval())
                texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_visible()]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def number(x: float, digits: int = 3, keep: bool = False) -> str:
    """A number as the figures write it: 0.135, 12.4, 1,024, 2.1e-7, with true minus signs and infinities as words.

    keep=True writes the digits out where they are zeros (2.20), for measured numbers that stand beside others.
    """
    x = float(x)
    if math.isnan(x):
        return "nan"
    if math.isinf(x):
        return "inf" if x > 0 else "\u2212inf"
    if x == 0:
        return "0"
    if not 1e-3 <= abs(x) < 1e6:
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        text = f"{mantissa if keep else _short(mantissa)}e{int(exponent)}"
    else:
        places = max(0, digits - 1 - math.floor(math.log10(abs(x))))
        text = f"{x:,.{places}f}"
        text = text if keep and x != int(x) else _short(text)
    return text.replace("-", "\u2212")


def _short(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def times(count: float) -> str:
    """`once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(count, f"{number(count)} times")


def power_of_ten(x: float, _position=None) -> str:
    """Tick labels of log axes: 10 with a raised exponent."""
    exponent = round(math.log10(x)) if x > 0 else 0
    return (
        "1"
        if exponent == 0
        else "10" + str(exponent).translate(str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"))
    )


def many(count: int, noun: str) -> str:
    """`1 tile`, `4 tiles`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Bytes as words: 512 B, 64 KiB, 8 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{number(count)} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
