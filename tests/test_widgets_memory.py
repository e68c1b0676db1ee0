"""The widgets of chapter 01: every state can be drawn without a browser, the words follow the model, controls move the picture."""

import ipywidgets
import pytest

from course_lib import roofline
from course_lib.datasheets import SHEETS
from course_lib.figures.core import crowding
from course_lib.widgets import memory_pyramid, roofline_explorer, shell
from course_lib.widgets.roofline_explorer import EXPONENTS, OPERATORS, explorer, state

LAPTOP = roofline.Machine("a laptop", 20e9, {"fp32": 200e9, "fp16": 2e9})


def test_pyramid_state():
    pictures = {name: memory_pyramid.state(name) for name in SHEETS}
    assert len({p.png for p in pictures.values()}) == len(SHEETS)
    assert all(SHEETS[name].full_name in picture.title for name, picture in pictures.items())
    assert memory_pyramid.state("NVIDIA H100 80GB HBM3").png == pictures["H100"].png
    with pytest.raises(ValueError, match="no data sheet for 'V100'"):
        memory_pyramid.state("V100")


def test_pyramid_controls():
    made = memory_pyramid.pyramid("T4")
    assert "T4" in made.shown.title and crowding(made.shown.figure) == []
    made.controls["gpu"].value = "H200"
    assert "H200" in made.shown.title and "T4" in made.first.title, "the bundle keeps the state it was made in"
    assert shell.VIEW in made.bundle() and made.bundle()["text/html"].startswith("<img")


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("gpu", ["T4", "B200", LAPTOP])
def test_every_size_is_uncrowded_and_nothing_jumps(gpu, operator):
    dtype = "fp32" if gpu is LAPTOP else "fp16"
    pictures = [state(gpu, operator, 2**power, dtype) for power in (EXPONENTS[0], 4, 7, 10, EXPONENTS[-1])]
    assert [crowding(p.figure) for p in pictures] == [[]] * len(pictures)
    assert len({p.figure.axes[0].get_xlim() for p in pictures}) == 1


def test_the_words_follow_the_model():
    assert "waits for memory: at most 2.04 TFLOP/s, 1% of the peak" in state("A100", "matmul, M rows", 1).title
    assert "waits for arithmetic: at most 312 TFLOP/s, 100% of the peak" in state("A100", "matmul, M rows", 4096).title
    assert "8.39e6 FLOPs" not in state("A100", "matmul, M rows", 1).alt and "3.36e7 FLOPs" in state("A100", "matmul, M rows", 1).alt
    for size in (1, 128, 2**14):
        assert "waits for memory" in state("B200", "add two tensors", size).title and "waits for memory" in state("B200", "softmax", size).title
        assert "waits for memory" in state("A100", "attention, naive", size).title
    assert "waits for arithmetic" in state("A100", "attention, tiled", 4096).title


def test_explorer_controls():
    made = explorer(LAPTOP)
    assert list(made.controls["gpu"].options) == [*SHEETS, "this machine"]
    made.controls["gpu"].value = "this machine"
    assert "a laptop, fp32" in made.shown.title, "a CPU's fp16 is emulated: its own roof is the fp32 one"
    made.controls["operator"].value = "softmax"
    made.controls["power"].value = 10
    assert "softmax over rows of 1,024" in made.shown.title
    assert "this machine" not in explorer().controls["gpu"].options


def test_bad_states_get_a_sentence():
    with pytest.raises(ValueError, match="no operator 'conv'"):
        state("A100", "conv")
    for size in (0, 2.5, True):
        with pytest.raises(ValueError, match="whole number"):
            state("A100", size=size)
    with pytest.raises(ValueError, match="no rate for 'fp64'|fp64"):
        state("A100", dtype="fp64")


def test_without_ipywidgets_the_picture_stays(monkeypatch):
    for module in (memory_pyramid, roofline_explorer):
        monkeypatch.setattr(module, "controls_available", lambda: False)
    for card in (memory_pyramid.pyramid(), explorer()):
        assert "<img" in card.html and "pip install ipywidgets" in card.text
    assert ipywidgets.__version__
