"""The split-count explorer of chapter 09: into how many splits a decode step cuts its keys, and what that does to programs, waves and bytes."""

from dataclasses import dataclass

from course_lib.figures.core import INK, LABEL_SIZE, MUTED, SMALL_SIZE, WIDTH, Card, Picture, many, number, size
from course_lib.figures.flash_decoding import draw_split_times
from course_lib.figures.rows import whole
from course_lib.widgets.shell import Shell, controls_available, without_controls

GROUP, D, BLOCK_N, BYTES, MERGE = 4, 128, 128, 2, 2  # query heads a K/V head, head size, keys a tile, bytes a number; a merge, in tiles
REQUESTS, HEADS = tuple(2**i for i in range(9)), tuple(2**i for i in range(6))
CONTEXTS = tuple(2**i for i in range(9, 18))
SPLITS = tuple(2**i for i in range(8))


@dataclass(frozen=True)
class Counts:
    """One number of splits. Bytes: of K and V that the longest program reads, and of parts that are written and read again by the merge."""

    programs: int
    waves: int
    tiles: int  # the longest program's
    read: int
    merged: int
    time: int  # in tiles


def counts(requests: int, kv_heads: int, context: int, multiprocessors: int, splits: int) -> Counts:
    """One program on a multiprocessor at a time; the rule of chapter 09's choose_num_splits."""
    given = {"requests": requests, "kv_heads": kv_heads, "context": context, "multiprocessors": multiprocessors, "splits": splits}
    requests, kv_heads, context, multiprocessors, splits = (whole(value, name) for name, value in given.items())
    programs = requests * kv_heads * splits
    waves = -(-programs // multiprocessors)
    all_tiles = -(-context // BLOCK_N)
    tiles = -(-all_tiles // splits)
    rows = programs * GROUP
    merged = 2 * rows * (D + 1) * 4 if splits > 1 else 0
    read = 2 * min(context, tiles * BLOCK_N) * D * BYTES
    return Counts(programs, waves, tiles, read, merged, waves * (tiles + 1) + MERGE * (splits > 1))


def state(requests: int = 1, kv_heads: int = 8, context: int = 32768, multiprocessors: int = 132, splits: int = 16) -> Picture:
    """Time over the number of splits, the chosen one ringed, and what it means."""
    one = counts(requests, kv_heads, context, multiprocessors, splits)
    most = max(2, splits, min(128, -(-context // BLOCK_N)))
    times = [counts(requests, kv_heads, context, multiprocessors, s).time for s in range(1, most + 1)]
    best = times.index(min(times)) + 1
    title = f"{many(splits, 'split')}: {many(one.programs, 'program')} on {many(multiprocessors, 'multiprocessor')}, {many(one.waves, 'wave')}; " + (
        "no number is faster" if one.time == min(times) else f"{number(one.time / min(times), 2)} times the time of {many(best, 'split')}"
    )
    cache = 2 * requests * kv_heads * context * D * BYTES
    lines = (
        ("programs", f"{one.programs:,}"),
        ("waves", f"{one.waves:,}"),
        ("tiles, the longest part", f"{one.tiles:,}"),
        ("K and V a program reads", size(one.read)),
        ("merge writes and reads", size(one.merged)),
        ("of the cache's bytes", f"{100 * one.merged / cache:.2g} %"),
        ("time, in tiles", f"{one.time:,}"),
    )
    note = (
        f"{GROUP} query heads share a K/V head, D = {D}, bf16, tiles of {BLOCK_N} keys; one program on a multiprocessor at a time. Time by the rule of "
        "choose_num_splits: a model, not a measurement."
    )
    with Card(title, height=3.1, note=note) as card:
        ax = card.axes(0.9, 0.6, 4.6, 2.4)
        draw_split_times(ax, {"": times}, splits)
        for i, (name, value) in enumerate(lines):
            y = 2.75 - i * 0.36
            card.text(5.85, y, name, size=SMALL_SIZE, colour=MUTED, va="center")
            card.text(WIDTH - 0.25, y, value, size=LABEL_SIZE, colour=INK, va="center", ha="right", weight="bold")
        told = "; ".join(f"{name}: {value}" for name, value in lines)
        return card.picture(f"{many(requests, 'request')} of {context:,} keys, {many(kv_heads, 'K/V head')}. {told}. Fastest: {many(best, 'split')}.")


def explorer(requests: int = 1, kv_heads: int = 8, context: int = 32768, multiprocessors: int = 132, splits: int = 16):
    """The same picture with controls; the picture alone where ipywidgets is missing."""
    first = state(requests, kv_heads, context, multiprocessors, splits)
    return _shell(requests, kv_heads, context, multiprocessors, splits) if controls_available() else without_controls(first)


def _shell(requests: int, kv_heads: int, context: int, multiprocessors: int, splits: int) -> Shell:
    import ipywidgets as widgets

    style, wide = {"description_width": "initial"}, widgets.Layout(width="300px")

    def slider(name: str, options: tuple[int, ...], value: int):
        choices = sorted({*options, value})
        return widgets.SelectionSlider(options=[(f"{n:,}", n) for n in choices], value=value, description=name, style=style, layout=wide)

    controls = {
        "requests": slider("Requests", REQUESTS, requests),
        "kv_heads": slider("K/V heads", HEADS, kv_heads),
        "context": slider("Context", CONTEXTS, context),
        "multiprocessors": widgets.IntSlider(value=multiprocessors, min=8, max=160, description="Multiprocessors", style=style, layout=wide),
        "splits": slider("Splits", SPLITS, splits),
    }
    for name, control in controls.items():
        control.add_class(f"k-splits-{name.replace('_', '-')}")
    return Shell(
        state, controls, [[controls["requests"], controls["kv_heads"], controls["context"]], [controls["multiprocessors"], controls["splits"]]]
    )
