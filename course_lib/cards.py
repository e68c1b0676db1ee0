"""A card: a piece of HTML with its text, shown the same in every notebook front end and printed where there is none.

Knows nothing of what is on it. Colours follow JupyterLab's theme and fall back to an opaque light card elsewhere.
"""

import html
import re
import sys
from dataclasses import dataclass, field

STYLE = (
    "background:var(--jp-layout-color1,#ffffff);color:var(--jp-ui-font-color1,#1b1f24);border:1px solid var(--jp-border-color2,#d0d7de);"
    "border-radius:6px;padding:10px 14px;margin:4px 0;max-width:60rem;line-height:1.5;"
    "font-family:var(--jp-content-font-family,system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif);font-size:14px"
)
_BOLD, _CODE = re.compile(r"\*\*(.+?)\*\*"), re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Card:
    """What a cell shows. `extra` holds further mime types (a widget view)."""

    html: str
    text: str
    extra: dict = field(default_factory=dict)

    def bundle(self) -> dict:
        """All forms of the card as one mime bundle."""
        return {**self.extra, "text/html": self.html, "text/plain": self.text}

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return self.bundle()

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def framed(body: str, colour: str = "#57606a", status: bool = False) -> str:
    """`body` (HTML) in the house frame, with a coloured left edge; status=True has screen readers announce it."""
    role = ' role="status" aria-live="polite"' if status else ""
    return f'<div class="course-card"{role} style="{STYLE};border-left:4px solid {colour}">{body}</div>'


def rich(text: str) -> str:
    """Plain text as HTML: escaped, with `code` and **bold** kept."""
    return _BOLD.sub(r"<b>\1</b>", _CODE.sub(r"<code>\1</code>", html.escape(str(text), quote=False)))


def plain(text: str) -> str:
    """The same text without its marks."""
    return _BOLD.sub(r"\1", str(text))


def in_notebook() -> bool:
    """Whether a notebook kernel (not the terminal, not a script) is running this code."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def show(card) -> None:
    """Show a card now, wherever it stands in the cell; outside a notebook print its text."""
    if in_notebook():
        from IPython.display import display

        display(card.bundle(), raw=True)
    else:
        print(card.text)
