"""The shell of every widget: controls above a picture that is redrawn when one of them changes.

Uses only what ipywidgets 7.7 and 8 have in common. Without ipywidgets the picture alone is shown. Knows nothing of what is drawn.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import lru_cache

from course_lib.cards import Card, framed, rich
from course_lib.figures.core import Picture

VIEW = "application/vnd.jupyter.widget-view+json"


def controls_available() -> bool:
    """Whether ipywidgets can be imported here."""
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return False
    return True


class Shell:
    """`draw(**values of the controls) -> Picture`, its controls by name, and how they are laid out (rows of widgets).

    One output with three forms: the live widget, the picture of the state it was made in, and the picture's alt text.
    """

    def __init__(self, draw: Callable[..., Picture], controls: dict, rows: Sequence[Sequence]):
        import ipywidgets as widgets

        self.draw = lru_cache(maxsize=64)(draw)  # going back shows at once what was drawn before
        self.controls = controls
        self.holder = widgets.HTML()
        self.first = self.shown = self._drawn()
        self.holder.value = _live(self.first)
        lines = [widgets.HBox(list(row), layout=widgets.Layout(flex_flow="row wrap", align_items="center")) for row in rows]
        self.widget = widgets.VBox([*lines, self.holder])
        self.widget.add_class("k-widget")
        self._quiet = False
        for control in controls.values():
            control.observe(self._changed, names="value")

    def redraw(self) -> None:
        """Draw the present state; a state that cannot be drawn says why, in the picture's place."""
        try:
            self.shown = self._drawn()
            self.holder.value = _live(self.shown)
        except ValueError as problem:
            self.holder.value = framed(rich(str(problem)), status=True)

    @contextmanager
    def together(self):
        """Change several controls and redraw once."""
        self._quiet, before = True, self._quiet
        try:
            yield
        finally:
            self._quiet = before
        if not before:
            self.redraw()

    def bundle(self) -> dict:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {VIEW: view, **self.first.bundle()}

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return self.bundle()

    def __repr__(self) -> str:
        return self.shown.alt

    def _drawn(self) -> Picture:
        return self.draw(**{name: control.value for name, control in self.controls.items()})

    def _changed(self, change) -> None:
        if not self._quiet:
            self.redraw()


def _live(picture: Picture) -> str:
    """The picture as the holder shows it; screen readers are told when it changes."""
    return f'<div role="status" aria-live="polite">{picture.html}</div>'


def without_controls(picture: Picture) -> Card:
    """What is shown where ipywidgets is missing."""
    words = "The controls of this figure need ipywidgets: run `pip install ipywidgets`, then restart the kernel."
    return Card(picture.html + framed(rich(words)), f"{picture.alt}\n{words}")
