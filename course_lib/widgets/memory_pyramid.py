"""The memory pyramid of chapter 01: pick a GPU and see its levels to scale."""

from course_lib.datasheets import SHEETS, sheet
from course_lib.figures.core import Picture
from course_lib.figures.memory import hierarchy
from course_lib.widgets.shell import Shell, controls_available, without_controls


def state(gpu: str = "A100") -> Picture:
    """The picture of one GPU; ValueError in a sentence for one that has no data sheet here."""
    return hierarchy(sheet(gpu))


def pyramid(gpu: str = "A100"):
    """The same picture with a menu of GPUs."""
    first = state(gpu)
    if not controls_available():
        return without_controls(first)
    import ipywidgets as widgets

    box = widgets.Dropdown(options=list(SHEETS), value=sheet(gpu).name, description="GPU", layout=widgets.Layout(width="180px"))
    box.add_class("k-gpu")
    return Shell(state, {"gpu": box}, [[box]])
