"""The figures of chapter 01: what they say is computed, nothing overlaps, and bad data gets a sentence."""

import io

import numpy as np
import pytest
from PIL import Image

from course_lib import roofline
from course_lib.datasheets import SHEETS, sheet
from course_lib.figures import memory as figures
from course_lib.figures.core import crowding
from course_lib.roofline import Machine, Work, matmul_work

LAPTOP = Machine("a laptop", 20e9, {"fp32": 200e9})  # ridge: 10 FLOPs per byte
A100 = roofline.machine("A100")
STEPS = [(2**i, 100e9 if i < 20 else 25e9) for i in range(14, 26)]
POINTS = {
    "add": (Work(1.0e6, 12e6), 1e-3),
    "multiply-add": (Work(3.0e6, 16e6), 1e-3),
    "matmul, 1 row": (matmul_work(1, 4096, 4096, 4), 4e-3),
    "matmul, 256 rows": (matmul_work(256, 4096, 4096, 4), 0.1),
    "matmul, square": (matmul_work(1024, 1024, 1024, 4), 0.03),
}
ROWS = [1, 4, 16, 64, 256]
DRAWINGS = {
    **{f"hierarchy, {name}": (lambda name=name: figures.hierarchy(sheet(name))) for name in SHEETS},
    "cache_steps": lambda: figures.cache_steps(STEPS, "One core"),
    "cache_steps of a GPU": lambda: figures.cache_steps([(2**16, 24.5e12), (2**26, 4.7e12)]),
    "roofline, bounds alone": lambda: figures.roofline(A100, "fp16", {f"{m} rows": (matmul_work(m, 4096, 4096), None) for m in (1, 16, 128, 1024)}),
    "roofline, measured": lambda: figures.roofline(LAPTOP, "fp32", POINTS),
    "roofline, one operator": lambda: figures.roofline(LAPTOP, "fp32", {"add": POINTS["add"]}),
    "same_matmul": lambda: figures.same_matmul(ROWS, [7e-3, 8e-3, 9e-3, 2e-2, 8e-2], 4096, 4096, LAPTOP, "fp32"),
    "same_matmul, bounds alone": lambda: figures.same_matmul([2**i for i in range(14)], None, 4096, 4096, A100, "fp16"),
    "fusion": lambda: figures.fusion(["times g", "times 0.5", "plus r"], [2**24, 0, 2**24], 2**24),
    "fusion, a small bias": lambda: figures.fusion(["plus bias", "GELU"], [64, 0], 2**20, bytes_each=2),
    "launches": lambda: figures.launches([1, 16, 256, 4096], [1e-3, 1.1e-3, 1.5e-3, 8e-3], "An addition", 1.7e-6),
    "tile_budget": lambda: figures.tile_budget({"T4": (64, 49152, 16384, 65536), "H100": (160, 122880, 102400, 227 * 1024)}, 128),
    "tile_budget, scores in registers": lambda: figures.tile_budget({"A100": (208, 159744, 0, 163 * 1024)}, 128),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_whole_and_uncrowded(name):
    picture = DRAWINGS[name]()
    assert crowding(picture.figure) == []
    assert len(picture.alt) > 60 and picture.title in picture.alt
    image = Image.open(io.BytesIO(picture.png))
    assert image.width <= 1800 and np.asarray(image.convert("L")).std() > 5
    assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255), "an opaque light card"


def test_the_levels_are_the_sheets_numbers():
    a100 = sheet("A100")
    title = figures.hierarchy(a100).title
    on_chip = a100.register_bytes + a100.shared_bytes + a100.l2_bytes
    assert f"{80e9 / on_chip:,.0f} times as much" in title and "9.6 times as fast" in title
    alt = figures.hierarchy(a100).alt
    assert "HBM: 80 GB, 2.04 TB/s" in alt and "Shared memory: 17.3 MiB, 19.5 TB/s" in alt and "163 KiB" not in title
    assert "Memory: 16 GB" in figures.hierarchy(sheet("T4")).alt, "a T4 has no HBM"


def test_areas_and_lengths_are_to_scale():
    ax = figures.hierarchy(sheet("A100")).figure.axes[0]
    boxes = [patch for patch in ax.patches if hasattr(patch, "get_width")]
    squares = [box for box in boxes if box.get_width() == box.get_height()]
    bars = [box for box in boxes if box.get_width() != box.get_height()]
    areas = sorted(box.get_width() ** 2 for box in squares)
    assert areas[-1] / areas[0] == pytest.approx(80e9 / sheet("A100").shared_bytes)
    lengths = sorted(box.get_width() for box in bars)
    assert lengths[-1] / lengths[-2] == pytest.approx(sheet("A100").shared_bandwidth / 2039e9)


def test_titles_follow_the_data():
    assert "100 GB/s from 16 KiB and 25 GB/s from 32 MiB, 4.0 times less" in DRAWINGS["cache_steps"]().title
    assert "3 of 5 operators wait for memory, left of 10 FLOPs per byte" in DRAWINGS["roofline, measured"]().title
    assert "256 times the rows take 11.4 times as long" in DRAWINGS["same_matmul"]().title
    assert "up to M = 128" in DRAWINGS["same_matmul, bounds alone"]().title
    assert "at every M" in figures.same_matmul([1, 2], None, 4096, 4096, A100, "fp16").title
    assert "at no M" in figures.same_matmul([4096, 8192], None, 4096, 4096, A100, "fp16").title
    assert "512 MiB, one kernel 256 MiB: 2 times less" in DRAWINGS["fusion"]().title
    assert "4,096 calls take 8 times as long as 1, about 1.7 \u00b5s" in DRAWINGS["launches"]().title
    assert DRAWINGS["tile_budget"]().title == "head_dim = 128: b = 64 on T4, b = 160 on H100"


def test_the_fusion_figure_counts_as_the_exercise_does():
    from course_lib.earlier import fusion_bytes

    separate, fused = fusion_bytes(3 * 2**20, [2**20, 0, 5], 4)
    alt = figures.fusion(["a", "b", "c"], [2**20, 0, 5], 3 * 2**20, 4).alt
    assert figures.size(separate) in alt and figures.size(fused) in alt


@pytest.mark.parametrize(("x", "words"), [(2.039e12, "2.04 TB/s"), (11e9, "11 GB/s"), (5e6, "5 MB/s"), (12, "12 B/s"), (1.94987e13, "19.5 TB/s")])
def test_rates_as_words(x, words):
    assert figures.rate(x, "B/s") == words


@pytest.mark.parametrize(("x", "words"), [(2.0, "2 s"), (0.0123, "12.3 ms"), (4.5e-6, "4.5 \u00b5s"), (3.2e-7, "320 ns"), (1e-10, "0.1 ns")])
def test_durations_as_words(x, words):
    assert figures.duration(x) == words


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: figures.cache_steps([(1024, 1e9)]), "at least two working sets"),
        (lambda: figures.roofline(LAPTOP, "fp32", {}), "at least one operator"),
        (lambda: figures.roofline(LAPTOP, "fp32", {"copy": (Work(0, 8), None)}), "'copy' has no FLOPs"),
        (lambda: figures.roofline(LAPTOP, "fp16", POINTS), "no rate for 'fp16'"),
        (lambda: figures.same_matmul([1, 2], [1.0], 8, 8, LAPTOP, "fp32"), "one time a row count"),
        (lambda: figures.same_matmul([], None, 8, 8, LAPTOP, "fp32"), "0 row counts"),
        (lambda: figures.fusion(["a"], [0, 1], 8), "1 names and 2 extra inputs"),
        (lambda: figures.launches([1], [1.0], "x", 1e-6), "at least two"),
        (lambda: figures.tile_budget({}, 128), "at least one GPU"),
    ],
)
def test_bad_data_gets_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
