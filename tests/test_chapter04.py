"""Chapter 04's own pieces: the resource rules of kernels, the figures' words and numbers, the two explorers."""

import math
import re

import pytest
import torch

from course_lib.datasheets import SHEETS
from course_lib.figures import triton_from_zero as figures
from course_lib.figures.core import crowding
from course_lib.grading import catalogue, kernel_rules
from course_lib.grading.spec import Evidence, Probe
from course_lib.widgets import grid_explorer, shell, tile_explorer
from course_lib.widgets.tile_explorer import Tiles

X = torch.zeros(4, 10)
PROBE = Probe("4 rows of 10", (X,))
LAUNCH = {"kernel": "rows", "grid": [4, 1, 1], "constexprs": {}}


def evidence(**more) -> Evidence:
    return Evidence(**{"launches": [LAUNCH], "bytes_loaded": 160, "bytes_stored": 160, **more})


RULES = (
    (kernel_rules.launches(1), {}, {"launches": [LAUNCH, LAUNCH]}, "launched 2 kernels (rows); one launch is enough"),
    (kernel_rules.launches(2), {"launches": [LAUNCH, LAUNCH]}, {"launches": [LAUNCH] * 3}, "2 launches are enough"),
    (
        kernel_rules.loads(lambda p: kernel_rules.size(*p.args), "reading x once"),
        {},
        {"bytes_loaded": 161},
        "161 bytes (4 rows of 10); reading x once takes 160",
    ),
    (kernel_rules.streamed(lambda p: 200, "its whole row"), {"bytes_loaded": 200}, {}, "fewer than 200: so a program holds its whole row"),
    (kernel_rules.stores(lambda p: 160), {}, {"bytes_stored": 320}, "stores 320 bytes (4 rows of 10); the result has 160"),
    (kernel_rules.stores(lambda p: 160), {}, {"bytes_stored": 80}, "stores 80 bytes"),
    (kernel_rules.programs(lambda p: 4, "four do."), {}, {"launches": [LAUNCH, LAUNCH]}, "launched 8 programs (4 rows of 10); four do."),
    (
        kernel_rules.no_copies("Use strides."),
        {"ops": {"empty": 1}},
        {"ops": {"clone": 1, "empty": 1}},
        "(clone; 4 rows of 10): one more read and write of it. Use strides.",
    ),
)


@pytest.mark.parametrize(("rule", "kept", "broken", "sentence"), RULES, ids=[f"{rule.id}-{i}" for i, (rule, *_) in enumerate(RULES)])
def test_a_rule_speaks_when_it_is_broken_and_only_then(rule, kept, broken, sentence):
    assert rule.broken(PROBE, evidence(**kept)) is None
    assert sentence in rule.broken(PROBE, evidence(**broken))


def test_a_rule_without_a_limit_on_this_probe_is_silent():
    nothing = evidence(bytes_loaded=10**9, bytes_stored=10**9)
    for rule in (kernel_rules.loads(lambda p: None, ""), kernel_rules.streamed(lambda p: None, ""), kernel_rules.stores(lambda p: None)):
        assert rule.broken(PROBE, nothing) is None


def test_evidence_that_is_not_as_it_should_be_breaks_nothing_but_the_rule():
    odd = [{"kernel": None, "grid": "many", "constexprs": {}}, {"constexprs": {}}]
    assert kernel_rules.programs(lambda p: 0, "").broken(PROBE, evidence(launches=odd)) is None
    assert "None" in kernel_rules.launches(1).broken(PROBE, evidence(launches=odd))
    assert kernel_rules.streamed(lambda p: 200, "").broken(PROBE, evidence(launches=[], bytes_loaded=0)) is None, (
        "without a kernel there is nothing to say"
    )


def test_an_expanded_tensor_counts_in_full():
    assert kernel_rules.size(X[:1].expand(4, 10)) == 160 and kernel_rules.size(X.half(), X) == 240


# ---------------------------------------------------------------- figures

DRAWN = {
    "programs": lambda: figures.programs(13, 4),
    "many programs": lambda: figures.programs(64, 1),
    "one lane on": lambda: figures.programs(33, 32),
    "row_in_lanes": lambda: figures.row_in_lanes(torch.tensor([-2.0, -1.5, -3.0]), 16),
    "moved": lambda: figures.moved([("a step", 100, 50), ("= one kernel", 30, 30)]),
    "layouts": lambda: figures.layouts(3, 4),
    "outer_sum": lambda: figures.outer_sum([4, 5, 6], [0, 1, 2, 3], 1000, 10),
    "matmul_tile": lambda: figures.matmul_tile(96, 128, 80, 32, 32, 16),
    "matmul_tile, one tile": lambda: figures.matmul_tile(16, 16, 16, 32, 32, 32),
    "requested": lambda: figures.requested((16, 64), (4000, 1200), 1000),
    "race": lambda: figures.race(6),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figures_are_uncrowded_and_say_what_they_show(name):
    picture = DRAWN[name]()
    assert crowding(picture.figure) == []
    assert picture.title in picture.alt and len(picture.alt) > len(picture.title)


def test_the_words_of_programs_follow_the_count():
    assert figures.programs(13, 4).title == "4 programs of 4 lanes cover 13 elements: 3 lanes of the last are off, 81% of the lanes work"
    assert "no lane is off" in figures.programs(8, 4).title
    assert figures.programs(7, 8).title.startswith("1 program of 8 lanes covers 7 elements: 1 lane is off")


def test_row_in_lanes_computes_what_padding_does():
    row = torch.tensor([-2.0, -1.5, -3.0, -2.2, -2.5])
    right = torch.softmax(row, 0).max().item()
    wrong = torch.softmax(torch.cat([row, torch.zeros(3)]), 0)[:5].max().item()
    said = [float(word) for word in re.findall(r"0\.\d+", figures.row_in_lanes(row, 8).title)]
    assert said == pytest.approx([wrong, right], abs=6e-4)


def test_layouts_agree_with_torch():
    flat = torch.arange(12).reshape(3, 4)
    assert "element 10 of one memory" in figures.layouts(3, 4).title and flat[2, 2] == 10
    assert "element 8 of the other" in figures.layouts(3, 4).title and flat.T.contiguous().flatten()[8] == flat[2, 2]


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda: figures.programs(65, 2), "at most 64 lanes"),
        (lambda: figures.programs(0, 2), "at least 1"),
        (lambda: figures.row_in_lanes(torch.zeros(9), 8), "no fewer than the row has scores"),
        (lambda: figures.moved([]), "at least one lane"),
        (lambda: figures.layouts(5, 5), "at most 24 elements"),
        (lambda: figures.outer_sum([], [1], 1, 1), "at most 36 pointers"),
        (lambda: figures.requested((16,), (1,), 1), "at least two"),
        (lambda: figures.race(7), "2 to 6 programs"),
    ],
)
def test_what_cannot_be_drawn_is_said(draw, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw()


# ---------------------------------------------------------------- explorers


def test_every_state_of_the_grid_explorer_is_uncrowded():
    for block in grid_explorer.BLOCKS:
        for n in (1, 33, grid_explorer.MOST):
            picture = grid_explorer.state(n, block)
            assert crowding(picture.figure) == [], (n, block)
            assert picture.title.startswith(f"{math.ceil(n / block)} program")
    for wrong in ({"n": 0}, {"n": grid_explorer.MOST + 1}, {"block": 3}):
        with pytest.raises(ValueError):
            grid_explorer.state(**wrong)


def test_the_grid_explorers_controls_move_the_picture():
    made = grid_explorer.explorer()
    made.controls["block"].value = 32
    assert "1 program of 32 lanes covers 21 elements" in made.shown.title
    made.controls["n"].value = 64
    assert "2 programs of 32 lanes cover 64 elements" in made.shown.title
    assert shell.VIEW in made.bundle() and made.bundle()["text/html"].startswith("<img")


def test_tiles_count_what_a_tiled_matmul_asks_for():
    n, e = 4096, 2
    assert Tiles(n, n, 64, 1).requested == Tiles(n, n, 64, 1).compulsory == 3 * n * n * e, "one tile of all: every matrix once"
    assert Tiles(128, 64, 32, 3).requested == (n * n * (n // 64) + n * n * (n // 128) + n * n) * e
    assert Tiles(128, 64, 32, 3).shared == 3 * (128 * 32 + 32 * 64) * e
    assert Tiles(128, 64, 32, 3).accumulator == 128 * 64 * 4 and Tiles(128, 64, 32, 3).programs == 32 * 64


def test_the_tile_explorer_says_what_fits():
    assert tile_explorer.state("A100", 128, 128, 64, 3).title.endswith("they fit")
    assert tile_explorer.state("A100", 128, 128, 64, 5).title.endswith("they fit"), "160 of 163 KiB"
    assert tile_explorer.state("T4", 128, 128, 64, 2).title.endswith("they fit"), "exactly full is a fit"
    assert tile_explorer.state("T4", 128, 128, 64, 3).title.endswith("too much shared memory")
    assert tile_explorer.state("H200", 256, 256, 16, 1).title.endswith("too many registers"), "pointers and tiles need registers too"
    for wrong in ({"block_m": 48}, {"stages": 9}, {"gpu": "V100"}):
        with pytest.raises(ValueError):
            tile_explorer.state(**wrong)


def test_every_kind_of_state_of_the_tile_explorer_is_uncrowded():
    for gpu in (list(SHEETS)[0], list(SHEETS)[-1]):
        for sides in ((16, 16, 16, 1), (256, 256, 128, 5), (128, 64, 32, 4)):
            assert crowding(tile_explorer.state(gpu, *sides).figure) == [], (gpu, sides)


def test_the_tile_explorers_controls_move_the_picture():
    made = tile_explorer.explorer()
    made.controls["gpu"].value = "T4"
    assert made.shown.title.startswith("T4") and "too much shared memory" in made.shown.title
    made.controls["stages"].value = 2
    assert made.shown.title.endswith("they fit") and made.first.title.startswith("A100")


# ---------------------------------------------------------------- what the check says

MATMUL = catalogue.solution_text(catalogue.find("matmul"))


def said(judge, name: str, text: str) -> str:
    verdict = judge.check(name, text, seed=5)
    assert verdict.status == "failed" and verdict.points == 0, verdict
    return verdict.diagnosis.message


@pytest.mark.parametrize("dtype", ["tl.float16", "out_ptr.dtype.element_ty"])
def test_an_accumulator_that_triton_refuses_gets_a_sentence(judge, dtype):
    message = said(judge, "matmul", MATMUL.replace("tl.zeros([BLOCK_M, BLOCK_N], tl.float32)", f"tl.zeros([BLOCK_M, BLOCK_N], {dtype})"))
    assert "no message" not in message and "an accumulator that it is handed" in message and "tl.dot(a, b, acc" in message


def test_narrow_tiles_are_told_what_they_cost(judge):
    message = said(judge, "matmul", MATMUL.replace("BLOCK_N, BLOCK_K = 32, 32, 32", "BLOCK_N, BLOCK_K = 8, 64, 64"))
    assert "a program for each row" not in message and "fewer rows a program computes" in message


def test_a_place_past_the_end_is_said_by_what_is_known(judge):
    """Which index was too large cannot be told from an address; which lane it was can."""
    text = MATMUL.replace("a_inside = (rows[:, None] < M) & (ks[None, :] < K)", "a_inside = rows[:, None] < M")
    message = said(judge, "matmul", text)
    assert "row 20" not in message and "the first is lane [19, 6] of [32, 32]" in message and "shape [20, 70]" in message


def test_programs_without_work_are_counted(judge):
    text = catalogue.solution_text(catalogue.find("vector_add")).replace("triton.cdiv(x.numel(), BLOCK)", "triton.cdiv(x.numel(), BLOCK) + 7")
    assert "7 of the 10 programs" in said(judge, "vector_add", text)
