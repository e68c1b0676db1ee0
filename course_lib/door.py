"""What chapter 00 shows in its first cell: a model writing, the machine, a first measurement made now, and where to go next; and the ceilings of
another machine."""

import html
import random
import time

import torch

from course_lib import bench, hardware, oracles, recorded
from course_lib.cards import Card, framed, plain, rich
from course_lib.chapters import CHAPTERS

PROMPT = 'def read_lines(path):\n    """'


def welcome(n: int = 2048, width: int = 64, words: int = 80, seed: int | None = None) -> Card:
    """The card: text that the course's language model writes here and now, this machine's tier, naive against tiled attention measured, and the
    chapters that are ready.

    n queries and keys, `width` features, one head, float32 on the CPU; `words` tokens of text, other ones each time unless a seed is given;
    about four seconds.
    """
    from course_lib.earlier import tiled_attention, where

    q, k, v = torch.randn(3, n, width)
    ways = {"naive": lambda: torch.softmax(q @ k.mT * width**-0.5, dim=-1) @ v, "tiled": lambda: tiled_attention(q, k, v)}
    peak = {name: bench.peak_bytes(way) / 2**20 for name, way in ways.items()}
    apart = oracles.max_error(ways["tiled"](), oracles.attention(q.double(), k.double(), v.double()))
    ready = [chapter for chapter in CHAPTERS if chapter.ready and chapter.number > 0]
    said, text = writing(words, seed)
    lines = [
        f"**This machine.** {hardware.describe()}",
        f"**Measured now.** Attention over {n:,} keys, naive: {peak['naive']:.0f} MiB at its peak. One tile of keys at a time: {peak['tiled']:.1f} MiB, "
        f"and the result is {apart:.0e} from the exact one. The tiled loop that ran is {_whose(where('tiled_attention'))}.",
        "**Next.** "
        + "; ".join(f"chapter {chapter.number:02d}, {chapter.title} (notebooks/{chapter.stem}.ipynb)" for chapter in ready)
        + ". The other chapters are coming.",
    ]
    page = f'<div style="margin:4px 0">{rich(said)}</div>{_listing(text)}' + "".join(
        f'<div style="margin:4px 0">{rich(line)}</div>' for line in lines
    )
    return Card(framed(page), "\n".join([plain(said), text, *(plain(line) for line in lines)]))


def writing(words: int = 80, seed: int | None = None) -> tuple[str, str]:
    """(a sentence, the text): the model continues PROMPT by `words` tokens, now, on this CPU, and the sentence says how fast."""
    try:
        from course_lib.llm import generate, load_model, load_tokenizer, sampler

        model, tokenizer = load_model("target"), load_tokenizer("target")
    except ImportError as error:
        return f"**A language model** would write here; it needs the package {error.name}: `pip install {error.name}`, then run this cell again.", ""
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    choose = sampler(0.8, top_p=0.95, seed=random.SystemRandom().randrange(2**31) if seed is None else seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one token at a time is too little work to share: on a busy machine, threads that wait for each other cost more
    try:
        generate(model, prompt, 2, choose, stop=False)  # the first call pays for what the others find ready
        started = time.perf_counter()
        out = generate(model, prompt, words, choose, stop=False)
        seconds = time.perf_counter() - started
    finally:
        torch.set_num_threads(threads)
    parameters = sum(weight.numel() for weight in model.parameters())
    said = (
        f"**A language model writes, here and now:** {words} tokens (pieces of words) in {seconds:.2f} seconds, {words / seconds:.0f} a second. It has "
        f"{parameters / 1e6:.0f} million parameters and has read nothing but the library that comes with Python. Given two lines, it went on:"
    )
    return said, tokenizer.decode(out[0])


def _listing(text: str) -> str:
    """The prompt in bold, what the model added plain."""
    if not text:
        return ""
    style = "margin:6px 0;padding:8px 12px;background:var(--jp-layout-color2,#f6f8fa);color:inherit;white-space:pre-wrap;font-size:12.5px;line-height:1.35"
    return f'<pre style="{style}"><b>{html.escape(PROMPT)}</b>{html.escape(text.removeprefix(PROMPT))}</pre>'


def ceilings_elsewhere() -> recorded.Record | Card:
    """The committed ceilings of the course's GPU machine, or a card that says how to make such a record."""
    try:
        return recorded.table("ceilings")
    except FileNotFoundError:
        words = "No ceilings of another machine are committed yet. On a machine with a GPU, `python benchmarks/ceilings.py` writes them."
        return Card(framed(rich(words)), plain(words))


def _whose(owner: str) -> str:
    return "the one you wrote in chapter 03" if owner == "yours" else "the course's; once yours passes in chapter 03, it is yours"
