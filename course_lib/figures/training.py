"""How a language model learnt: the loss on text it trains on and on text it does not, over the tokens it has read. Numbers come from the caller."""

import math
from collections.abc import Mapping

from matplotlib.ticker import FuncFormatter

from course_lib.figures.core import COLOURS, INK, MUTED, WIDTH, Card, Picture, label_ends, number

_LOOKS = ((COLOURS["output"], "o"), (INK, "s"), (MUTED, "D"))


def training_curves(runs: Mapping[str, Mapping], title: str | None = None) -> Picture:
    """Loss in nats a token. runs: {name: {"tokens": [...], "held out": [...], "training": [...] or left out}}, at most three."""
    if not runs or len(runs) > len(_LOOKS):
        raise ValueError(f"training_curves draws one to {len(_LOOKS)} runs, not {len(runs)}")
    for name, run in runs.items():
        lines = [run[key] for key in ("tokens", "held out", "training") if key in run]
        if len(lines) < 2 or len(set(map(len, lines))) != 1 or len(lines[0]) < 2 or not all(math.isfinite(x) for line in lines for x in line):
            raise ValueError(f"training_curves, {name!r}: tokens and losses must be finite, equally many, at least two")
    ends = {name: run["held out"][-1] for name, run in runs.items()}
    title = title or "On text they have not read: " + ", ".join(f"the {name} ends at {loss:.2f} nats a token" for name, loss in ends.items())
    losses = [x for run in runs.values() for key in ("held out", "training") for x in run.get(key, ())]
    most = max(run["tokens"][-1] for run in runs.values()) / 1e6
    with Card(title, height=3.35) as card:
        ax = card.axes(0.8, 0.6, WIDTH - 3.0, 2.65)
        ax.set_xlim(0, most)
        ax.set_ylim(0.9 * min(losses), min(max(losses), 2.2 * max(ends.values())))
        ax.set_xlabel("tokens read (millions), the same text again and again")
        ax.set_ylabel("loss (nats a token)")
        ax.grid(axis="y")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        words = []
        for (name, run), (colour, marker) in zip(runs.items(), _LOOKS, strict=False):
            x = [tokens / 1e6 for tokens in run["tokens"]]
            ax.plot(x, run["held out"], color=colour, marker=marker, markersize=3.5, zorder=3)
            words.append((x[-1], run["held out"][-1], f"{name}, not read before", colour))
            if "training" in run:
                ax.plot(x, run["training"], color=colour, linestyle=(0, (4, 2)), zorder=2)
                words.append((x[-1], run["training"][-1], f"{name}, while training", colour))
        label_ends(ax, [(most, y, text, colour) for _, y, text, colour in words])
        told = " ".join(
            f"{name}: from {number(run['held out'][0], 3)} to {number(run['held out'][-1], 3)} on held-out text." for name, run in runs.items()
        )
        return card.picture(f"Loss in nats a token over {most:,.0f} million tokens read. {told}")
