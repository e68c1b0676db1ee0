"""What chapter 00 shows in its first cell: the machine, a first measurement made now, and where to go next; and the ceilings of another machine."""

import torch

from course_lib import bench, hardware, oracles, recorded
from course_lib.cards import Card, framed, plain, rich
from course_lib.chapters import CHAPTERS


def welcome(n: int = 2048, width: int = 64) -> Card:
    """The card: this machine's tier, naive against tiled attention measured here and now, and the chapters that are ready.

    n queries and keys, `width` features, one head, float32 on the CPU; about two seconds.
    """
    from course_lib.earlier import tiled_attention, where

    q, k, v = torch.randn(3, n, width)
    ways = {"naive": lambda: torch.softmax(q @ k.mT * width**-0.5, dim=-1) @ v, "tiled": lambda: tiled_attention(q, k, v)}
    peak = {name: bench.peak_bytes(way) / 2**20 for name, way in ways.items()}
    apart = oracles.max_error(ways["tiled"](), oracles.attention(q.double(), k.double(), v.double()))
    ready = [chapter for chapter in CHAPTERS if chapter.ready and chapter.number > 0]
    lines = [
        f"**This machine.** {hardware.describe()}",
        f"**Measured now.** Attention over {n:,} keys, naive: {peak['naive']:.0f} MiB at its peak. One tile of keys at a time: {peak['tiled']:.1f} MiB, "
        f"and the result is {apart:.0e} from the exact one. The tiled loop that ran is {_whose(where('tiled_attention'))}.",
        "**Next.** "
        + "; ".join(f"chapter {chapter.number:02d}, {chapter.title} (notebooks/{chapter.stem}.ipynb)" for chapter in ready)
        + ". The other chapters are coming.",
    ]
    return Card(framed("".join(f'<div style="margin:4px 0">{rich(line)}</div>' for line in lines)), "\n".join(plain(line) for line in lines))


def ceilings_elsewhere() -> recorded.Record | Card:
    """The committed ceilings of the course's GPU machine, or a card that says how to make such a record."""
    try:
        return recorded.table("ceilings")
    except FileNotFoundError:
        words = "No ceilings of another machine are committed yet. On a machine with a GPU, `python benchmarks/ceilings.py` writes them."
        return Card(framed(rich(words)), plain(words))


def _whose(owner: str) -> str:
    return "the one you wrote in chapter 03" if owner == "yours" else "the course's; once yours passes in chapter 03, it is yours"
