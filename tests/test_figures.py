"""The figures: what they say is computed from the data, nothing overlaps, colours can be told apart, and bad data gets a sentence."""

import base64
import io
import itertools
import math
import re

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

from course_lib.figures import core
from course_lib.figures import online_softmax as figures

SCORES = [0.5, 1.2, -0.4, 0.9, 1.0, 0.2, 1.4, 2.6, 0.3, -0.8, 1.9, 2.2, 1.1, 4.0, 0.6, 1.7]
HIDDEN = -math.inf
DTYPES = {
    "naive, float32": [1e-7, 2e-7, 2e-7, 3e-7],
    "naive, bfloat16": [4e-3, 5e-3, 5e-3, 6e-3],
    "tiled, float32": [2e-7, 3e-7, 5e-7, 9e-7],
    "tiled, bfloat16": [3e-3, 4e-3, 6e-3, 1e-2],
    "cuDNN, float32": [1e-7, 1e-7, 1e-7, 1e-7],
}
DRAWINGS = {
    "tile_walk": lambda: figures.tile_walk(SCORES, 4),
    "tile_walk, a partial tile and hidden keys": lambda: figures.tile_walk([HIDDEN] * 4 + SCORES[:9], 4),
    "tile_walk, all hidden": lambda: figures.tile_walk([HIDDEN] * 3, 2),
    "tile_walk, tiles of one": lambda: figures.tile_walk(SCORES[:6], 1),
    "tile_walk, one tile": lambda: figures.tile_walk(torch.tensor(SCORES), 16),
    "overflow_cliff": figures.overflow_cliff,
    "overflow_cliff, scores": lambda: figures.overflow_cliff(torch.linspace(-20, 40, 50)),
    "passes": lambda: figures.passes(4096),
    "rescaling": lambda: figures.rescaling([1.0, 2.0, 0.5], [4.0, 1.0, 3.0, 2.0]),
    "rescaling, no rise": lambda: figures.rescaling([4.0, 2.0], [1.0, 1.5]),
    "merge_tree": lambda: figures.merge_tree(np.sin(np.arange(1000.0)) * 5, 250),
    "merge_tree, six tiles": lambda: figures.merge_tree(np.sin(np.arange(60.0)) * 5, 10, dtype="float16"),
    "merge_tree, two tiles": lambda: figures.merge_tree(SCORES, 8),
    "state_boxes": lambda: figures.state_boxes((0.0, 1.0, [5.0]), (2.0, 3.0, [1.0])),
    "state_boxes, one empty": lambda: figures.state_boxes((HIDDEN, 0.0, [0.0, 0.0]), (2.0, 3.0, [1.0, -7.25])),
    "error_vs_float64": lambda: figures.error_vs_float64(
        [16, 256, 4096], {"plain": [1e-7, 2e-7, 4e-7], "tiled": [1e-7, 1.5e-7, 2e-7], "float16": [1e-3, math.nan, math.nan]}
    ),
    "error_vs_float64, two dtypes": lambda: figures.error_vs_float64([512, 1024, 2048, 4096], DTYPES),
    "peak_memory": lambda: figures.peak_memory([512, 1024, 2048, 4096], {"naive": [4.0, 16.0, 64.0, 256.1], "tiled": [0.7, 1.5, 3.0, 6.1]}),
    "peak_memory, one line": lambda: figures.peak_memory([512, 4096], {"tiled": [0.7, 6.1]}),
    "peak_memory, one length": lambda: figures.peak_memory([512], {"tiled": [0.7], "naive": [6.0]}),
    "tiled_attention_map": lambda: figures.tiled_attention_map(4096, 4096, 64),
    "tiled_attention_map, one tile": lambda: figures.tiled_attention_map(64, 64, 64),
    "tiled_attention_map, a thousand tiles": lambda: figures.tiled_attention_map(65536, 65536, 64, tile_q=64),
    "tiled_attention_map, wide": lambda: figures.tiled_attention_map(300, 7001, 128, tile_q=64, current=9, bytes_each=2),
    "tiled_attention_map, tall": lambda: figures.tiled_attention_map(5000, 70, 32),
    "bug_hunt_error": lambda: figures.bug_hunt_error(
        {"the loop as written": [2e-7, 0.48, 0.31, 0.2], "divided once, at the end": [1e-7, 2e-7, 3e-7, 0.0]}
    ),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_whole_and_uncrowded(name):
    before = dict(mpl.rcParams)
    picture = DRAWINGS[name]()
    assert core.crowding(picture.figure) == []
    assert len(picture.alt) > 40 and re.search(r"\d", picture.alt)
    image = Image.open(io.BytesIO(picture.png))
    assert image.size == pytest.approx((2 * picture.width, 2 * picture.height), abs=2), "two dots a CSS pixel"
    assert picture.width <= 900 and np.asarray(image.convert("L")).std() > 5, "it is not blank"
    assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255), "an opaque light card"
    assert dict(mpl.rcParams) == before


def test_the_html_is_an_image_with_alt_text_and_the_text_is_the_alt_text():
    picture = figures.state_boxes((0.0, 1.0, [5.0]), (2.0, 3.0, [1.0]), title='a "quoted" & <odd> title')
    bundle = picture._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"} and bundle["text/plain"] == repr(picture) == picture.alt
    found = re.search(r'^<img alt="([^"]+)".* src="data:image/png;base64,([^"]+)">$', bundle["text/html"])
    assert base64.b64decode(found.group(2)) == picture.png


def test_alt_text_is_escaped():
    with core.Card("one", 1) as card:
        assert 'alt="5 &lt; 6 &quot;here&quot;"' in card.picture('5 < 6 "here"').html


def test_drawing_twice_gives_the_same_picture_and_other_data_another():
    assert figures.tile_walk(SCORES, 4).png == figures.tile_walk(torch.tensor(SCORES, dtype=torch.float64), 4).png
    assert figures.tile_walk(SCORES, 4).png != figures.tile_walk(SCORES, 8).png


def test_walk_agrees_with_the_definition_at_every_step():
    values = np.arange(16.0)
    for tile in (1, 3, 4, 16, 50):
        for step in figures.walk(SCORES, tile, values):
            seen = np.array(SCORES[: step.stop])
            assert step.new_max == seen.max()
            assert step.new_sum == pytest.approx(np.exp(seen - seen.max()).sum())
            assert step.new_acc == pytest.approx((np.exp(seen - seen.max()) * values[: step.stop]).sum())
            assert step.old_sum * step.factor + step.added_sum == step.new_sum


def test_walk_over_hidden_keys_stays_empty():
    first, second = figures.walk([HIDDEN, HIDDEN, 1.0], 2)
    assert (first.new_max, first.new_sum, first.new_acc) == (HIDDEN, 0.0, 0.0)
    assert (second.factor, second.new_max, second.new_sum) == (0.0, 1.0, 1.0)


def test_titles_are_computed():
    assert "rose twice" in figures.tile_walk(SCORES, 4).title
    assert "no tile after the first" in figures.tile_walk(SCORES[::-1][:4], 4).title
    assert figures.tile_walk(SCORES, 4, title="Mine").title == "Mine"
    assert figures.passes(100).title == "Safe softmax reads each score 3 times, online softmax twice, weighted sum once"
    assert "64 MiB" in figures.tiled_attention_map(4096, 4096, 64).title and "64 times less" in figures.tiled_attention_map(4096, 4096, 64).title
    assert "off by 0.48 after 2" in DRAWINGS["bug_hunt_error"]().title
    assert "times 0.135" in DRAWINGS["rescaling"]().title
    assert "3.14" in DRAWINGS["state_boxes"]().title
    assert "the last bit" in figures.merge_tree([1.0, 1.0, 1.0, 1.0], 2).title


def test_exp_limits_are_the_edges():
    for dtype in ("float16", "bfloat16", "float32"):
        top, bottom = figures.exp_limits(dtype)
        kind = getattr(torch, dtype)
        step = 0.6 if dtype == "bfloat16" else 0.02

        def exp(x, kind=kind):
            return torch.exp(torch.tensor([x], dtype=kind)).item()

        assert math.isfinite(exp(top)) and exp(top + step) == math.inf
        assert exp(bottom) > 0 and exp(bottom - step) == 0
    assert figures.exp_limits("float16")[0] == pytest.approx(math.log(65504), abs=0.01)


def test_overflow_counts_the_scores_past_the_limit():
    assert figures.overflow_cliff([0.0, 11.0, 12.0, 50.0]).title.startswith("2 of 4 scores")


def test_merge_orders_agree_with_numpy():
    scores = np.sin(np.arange(100.0)) * 30
    exact = np.exp(scores - scores.max()).sum()
    for nodes in figures.merge_orders(scores, 17, "float64").values():
        assert nodes[-1][2][1] == pytest.approx(exact, rel=1e-13) and len(nodes) == 2 * 6 - 1
    tops = {float(nodes[-1][2][0]) for nodes in figures.merge_orders([HIDDEN] * 4 + [1.0, 2.0], 2, "float32").values()}
    assert tops == {2.0}


def test_state_boxes_draw_somebodys_answer():
    wrong = figures.state_boxes((0.0, 1.0, [5.0]), (2.0, 3.0, [1.0]), merged=(2.0, 4.0, [6.0]))
    assert "row_sum 4" in wrong.alt and "3.14" not in wrong.alt


MATRICES = {  # Machado, Oliveira and Fernandes 2009, severity 1
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def lab(colour: str, matrix) -> np.ndarray:
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    x, y, z = to_xyz @ np.clip(np.array(matrix) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


@pytest.mark.parametrize("sight", MATRICES)
def test_the_six_colours_are_distinct(sight):
    assert list(core.COLOURS) == ["Q", "K", "V", "output", "memory", "masked"]
    for (a, one), (b, other) in itertools.combinations(core.COLOURS.items(), 2):
        difference = np.linalg.norm(lab(one, MATRICES[sight]) - lab(other, MATRICES[sight]))
        assert difference > 20, f"{a} and {b} differ by {difference:.1f} under {sight}"


def test_contrast_on_the_card():
    assert core.contrast("#000000", "#FFFFFF") == pytest.approx(21)
    for colour in core.COLOURS.values():
        assert core.contrast(colour) >= 3 and core.contrast(core.word_colour(colour)) >= 4.5
    assert core.contrast(core.INK) > 12 and core.contrast(core.MUTED) > 4.5


def test_crowding_sees_overlaps_and_clipped_words():
    with core.Card("A title", 1) as card:
        card.text(1, 0.5, "first words")
        card.text(1.1, 0.5, "second words")
        card.text(8.5, 0.2, "far too long for this place")
        card.picture("alt 1")
    problems = core.crowding(card.figure)
    assert any("overlaps" in p for p in problems) and any("leaves the card" in p for p in problems)


def test_long_titles_wrap_in_balance():
    words = "A finding that needs many words because it says what was measured, where, and by how much it differs from the other one"
    lines = core.wrapped(words, core.TITLE_SIZE, 8.4, "bold")
    assert len(lines) == 2 and " ".join(lines) == words and abs(len(lines[0]) - len(lines[1])) < 12
    assert core.wrapped("1\u00a0+\u00a02", 10, 0.05) == ["1\u00a0+\u00a02"]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (0, "0"),
        (1.0, "1"),
        (2.20, "2.2"),
        (0.1353, "0.135"),
        (12345.6, "12,346"),
        (2.13e-7, "2.13e\u22127"),
        (-3.5, "\u22123.5"),
        (math.inf, "inf"),
        (-math.inf, "\u2212inf"),
        (math.nan, "nan"),
    ],
)
def test_numbers_as_words(x, words):
    assert core.number(x) == words


def test_more_words():
    assert core.number(2.2, keep=True) == "2.20" and core.number(2, keep=True) == "2"
    assert [core.size(n) for n in (512, 65536, 8 * 2**20)] == ["512 B", "64 KiB", "8 MiB"]
    assert [core.times(n) for n in (1, 2, 3)] == ["once", "twice", "3 times"] and core.many(1, "tile") == "1 tile"
    assert core.power_of_ten(1e-7) == "10\u207b\u2077" and core.power_of_ten(1) == "1"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: figures.tile_walk([], 4), "at least one number"),
        (lambda: figures.tile_walk([[1.0, 2.0]], 4), "one row"),
        (lambda: figures.tile_walk("abc", 4), "row of numbers"),
        (lambda: figures.tile_walk([1.0, math.nan], 4), "nan"),
        (lambda: figures.tile_walk([1.0, math.inf], 4), "infinity"),
        (lambda: figures.tile_walk(SCORES, 0), "tile must be a whole number of at least 1"),
        (lambda: figures.tile_walk(SCORES, 2.5), "whole number"),
        (lambda: figures.tile_walk(range(100), 4), "at most 48"),
        (lambda: figures.walk(SCORES, 4, [1.0]), "16 scores and 1 values"),
        (lambda: figures.overflow_cliff(dtypes=["int8"]), "not a floating-point dtype"),
        (lambda: figures.overflow_cliff(dtypes=["nonsense"]), "not a floating-point dtype"),
        (lambda: figures.passes({"a": [("think", "x", 3)]}), "softmax_passes"),
        (lambda: figures.passes(0), "n must be"),
        (lambda: figures.rescaling([HIDDEN], [1.0]), "all -inf"),
        (lambda: figures.merge_tree(SCORES, 1), "2 to 6 tiles"),
        (lambda: figures.merge_tree(SCORES, 4, dtype="bfloat16"), "bfloat16"),
        (lambda: figures.state_boxes((0, 1), (0, 1, [1])), "state a"),
        (lambda: figures.state_boxes((0, 1, [1, 2]), (0, 1, [1])), "must agree"),
        (lambda: figures.error_vs_float64([16, 32], {"a": [1.0]}), "one a length"),
        (lambda: figures.error_vs_float64([16], {}), "at least one line"),
        (lambda: figures.peak_memory([16], {}), "peak_memory needs lengths above 0 and at least one line"),
        (lambda: figures.peak_memory([16, 32], {"a": [1.0, 2.0], "b": [1.0]}), "'b': 2 numbers of at least 0 are needed, one a length; there are 1"),
        (lambda: figures.peak_memory([16], {"a": [math.nan]}), "finite number of MiB"),
        (lambda: figures.peak_memory([16], {"a": [-1.0]}), "at least 0"),
        (lambda: figures.peak_memory([16], {"a": 3.0}), "'a' must be a list of numbers"),
        (lambda: figures.peak_memory([0], {"a": [1.0]}), "lengths above 0"),
        (lambda: figures.tiled_attention_map(4, 4, 2, current=2), "0 to 1"),
        (lambda: figures.bug_hunt_error({"a": [1.0], "b": [1.0, 2.0]}), "same number"),
        (lambda: figures.bug_hunt_error({"a": [math.nan]}), "at least 0"),
        (lambda: core.Card(" ", 1), "title"),
    ],
)
def test_bad_data_gets_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_no_alt_text_no_picture():
    with pytest.raises(ValueError, match="alt text"), core.Card("title", 1) as card:
        card.picture(" ")


# ---------------------------------------------------------------- lines and areas mean something


def drawn_lines(picture) -> dict:
    return {line.get_label(): line for line in picture.figure.axes[0].lines if not line.get_label().startswith("_")}


def test_colours_say_the_way_and_dashes_the_dtype():
    for names in (list(DTYPES), list(DTYPES)[::-1]):
        lines = drawn_lines(figures.error_vs_float64([512, 1024, 2048, 4096], {name: DTYPES[name] for name in names}))
        colours = {name: line.get_color() for name, line in lines.items()}
        assert {colours[name] for name in names if name.startswith("tiled")} == {core.COLOURS["output"]}
        assert {colours[name] for name in names if name.startswith("naive")} == {core.INK}
        assert colours["cuDNN, float32"] == core.MUTED
        assert {name for name, line in lines.items() if line.get_linestyle() != "-"} == {"naive, bfloat16", "tiled, bfloat16"}


def test_other_ways_are_told_apart_by_their_marks():
    picture = figures.error_vs_float64([1, 2], {"plain": [1.0, 2.0], "backwards": [2.0, 3.0], "float16": [3.0, 4.0]})
    marks = [line.get_marker() for line in picture.figure.axes[0].lines if line.get_marker() not in ("None", "X")]
    assert len(marks) == len(set(marks)) == 3 and {line.get_linestyle() for line in drawn_lines(picture).values()} == {"-"}


def test_the_title_of_peak_memory_is_computed():
    assert DRAWINGS["peak_memory"]().title == "At N = 4,096 the naive way allocates 42 times what the tiled way does"
    assert DRAWINGS["peak_memory, one line"]().title == "At N = 4,096 the tiled way allocates 6.1 MiB at its peak"
    assert "as much as the others" in figures.peak_memory([8], {"a": [2.0], "b": [2.0]}).title
    assert figures.peak_memory([8], {"a": [2.0], "b": [0.0]}).title == "At N = 8 the a way allocates 2 MiB at its peak"
    assert figures.peak_memory([8], {"a": [2.0]}, title="Mine").title == "Mine"
    picture = DRAWINGS["peak_memory"]()
    assert "naive ends at 256" in picture.alt.replace("260", "256") and "scores" not in picture.alt
    assert {name: line.get_color() for name, line in drawn_lines(picture).items()} == {"naive": core.INK, "tiled": core.COLOURS["output"]}


@pytest.mark.parametrize(("keys", "tile", "share"), [(4096, 64, 1 / 64), (4096, 1024, 1 / 4), (64, 64, 1.0)])
def test_the_tile_is_drawn_at_its_true_share(keys, tile, share):
    picture = figures.tiled_attention_map(keys, keys, tile)
    whole, *_, hand = picture.figure.axes[0].patches
    assert hand.get_width() == pytest.approx(share * whole.get_width()) and hand.get_height() == pytest.approx(whole.get_height())
    bars = picture.figure.axes[-1]
    one, full = (patch.get_width() for patch in bars.patches)
    assert bars.get_xscale() == "linear" and one == pytest.approx(share * full)
    assert "drawn" not in "".join(text.get_text() for text in picture.figure.axes[0].texts)


def test_a_tile_too_small_to_see_is_two_pixels():
    picture = DRAWINGS["tiled_attention_map, a thousand tiles"]()
    hand = picture.figure.axes[0].patches[-1]
    assert hand.get_width() * 100 == pytest.approx(2) and hand.get_height() * 100 == pytest.approx(2)
    bars = picture.figure.axes[-1]
    assert bars.patches[0].get_window_extent().width / picture.figure.dpi * 100 == pytest.approx(2, abs=0.1)
