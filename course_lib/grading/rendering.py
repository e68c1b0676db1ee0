"""A panel as HTML, as plain text, and in a terminal; the overview of progress in the same forms. Pure functions from data to text.

The HTML stands on its own (inline styles, an opaque light card, `<details>`, no script, no widget), so it looks the same in
JupyterLab light and dark, Colab, VS Code, and on the static site. Everything that comes from an answer is escaped.
"""

import html
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from course_lib.grading.progress import Overview

WIDTH = 96

ACCENT = {
    "passed": "#1a7f4b",
    "failed": "#b4471f",
    "error": "#a4262c",
    "timeout": "#8a6100",
    "not_attempted": "#6b7280",
    "blocked": "#2563a8",
    "needs_review": "#6d4aa8",
    "note": "#2f6f8f",
}
_RICH = {"passed": "green", "failed": "dark_orange", "error": "red", "timeout": "yellow", "blocked": "blue", "needs_review": "magenta"}


@dataclass(frozen=True)
class Panel:
    """The content of any panel, before it becomes HTML or text."""

    status: str
    headline: str
    paragraphs: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    after: tuple[str, ...] = ()
    folds: tuple[tuple[str, str, bool], ...] = ()  # (summary, body, open at first); the body is shown as it stands


# ---------------------------------------------------------------- HTML

_FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif"
_MONO = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
_INK, _SOFT, _PAPER, _LINE = "#1d2126", "#565d66", "#fcfcfa", "#dcdedf"


def as_html(panel: Panel) -> str:
    accent = ACCENT.get(panel.status, ACCENT["note"])
    inner = [f'<div style="font-weight:600;font-size:16px;color:{accent}">{_inline(panel.headline)}</div>']
    inner += [_paragraph(p) for p in panel.paragraphs]
    inner += [_fact_list(panel.facts)] if panel.facts else []
    inner += [_paragraph(p, soft=True) for p in panel.after]
    inner += [_fold(*fold) for fold in panel.folds]
    return _card(accent, "".join(inner), panel.headline)


def _card(accent: str, inner: str, label: str) -> str:
    return (
        f'<div role="status" aria-live="polite" aria-label="{escape(label)}" style="{_FONT};font-size:14px;line-height:1.55;'
        f"color:{_INK};background:{_PAPER};"
        f"border:1px solid {_LINE};border-left:6px solid {accent};border-radius:6px;padding:12px 18px 14px;margin:6px 0;max-width:54em;"
        f'box-sizing:border-box;white-space:normal;color-scheme:light">{inner}</div>'
    )


def escape(text: object) -> str:
    return html.escape(clean(text), quote=True)


def clean(text: object) -> str:
    """Text that any page and any terminal can show: escape sequences and control characters out, lone surrogates spelled."""
    plain = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?", "", str(text))
    plain = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "", plain.replace("\r\n", "\n").replace("\r", "\n"))
    return plain.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _inline(text: str) -> str:
    """Escaped, with `code` set in a fixed width."""
    style = f"{_MONO};font-size:0.92em;background:#eeefec;color:{_INK};padding:1px 4px;border-radius:3px"
    return re.sub(r"`([^`\n]+)`", rf'<code style="{style}">\1</code>', escape(text))


def _paragraph(text: str, soft: bool = False) -> str:
    """A paragraph; the lines of it that are indented are shown as code."""
    color = _SOFT if soft else _INK
    out = []
    for is_code, lines in _runs(clean(text)):
        if is_code:
            out.append(_pre("\n".join(lines)))
        else:
            out.append(f'<div style="margin:8px 0 0;color:{color}">{"<br>".join(_inline(line) for line in lines)}</div>')
    return "".join(out)


def _runs(text: str) -> Iterable[tuple[bool, list[str]]]:
    runs: list[tuple[bool, list[str]]] = []
    for line in text.strip("\n").split("\n"):
        is_code = line.startswith("    ")
        if not runs or runs[-1][0] != is_code:
            runs.append((is_code, []))
        runs[-1][1].append(line)
    return runs


def _pre(text: str) -> str:
    return (
        f'<pre style="{_MONO};font-size:12.5px;line-height:1.45;color:{_INK};background:#f1f2ef;border:0;border-radius:4px;'
        f'margin:8px 0 0;padding:8px 10px;max-height:36em;overflow:auto;white-space:pre">{escape(text)}</pre>'
    )


def _fact_list(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f'<div style="color:{_SOFT}">{escape(label)}</div>'
        f'<div style="{_MONO};font-size:13px;overflow-wrap:anywhere;white-space:pre-wrap">{escape(value)}</div>'
        for label, value in facts
    )
    return f'<div style="display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:10px 0 0">{rows}</div>'


def _fold(summary: str, body: str, opened: bool) -> str:
    return (
        f'<details style="margin:10px 0 0"{" open" if opened else ""}><summary style="cursor:pointer;color:{_SOFT};display:list-item">'
        f"{escape(summary)}</summary>{_pre(body.strip(chr(10)))}</details>"
    )


# ---------------------------------------------------------------- text


def as_text(panel: Panel) -> str:
    """Plain text, at most WIDTH wide where the content allows it."""
    parts = [clean(panel.headline)]
    parts += [_wrapped(p) for p in panel.paragraphs]
    if panel.facts:
        wide = max(len(label) for label, _ in panel.facts)
        below = "\n" + " " * (wide + 2)
        parts.append("\n".join(f"{label + ':':<{wide + 1}} {clean(value).replace(chr(10), below)}" for label, value in panel.facts))
    parts += [_wrapped(p) for p in panel.after]
    parts += [f"{clean(summary)}\n{textwrap.indent(clean(body).strip(chr(10)), '  ')}" for summary, body, _ in panel.folds]
    return "\n\n".join(part.rstrip() for part in parts if part.strip()) + "\n"


def _wrapped(text: str) -> str:
    lines = []
    for line in clean(text).strip("\n").split("\n"):
        lines += [line] if line.startswith("    ") else textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(lines)


def print_panel(panel: Panel, file) -> None:
    """In a terminal a frame in the colour of the status; into a pipe or a file the plain text."""
    text = as_text(panel)
    if file.isatty():
        try:
            from rich.console import Console
            from rich.panel import Panel as Frame
            from rich.text import Text
        except ImportError:
            pass
        else:
            headline, _, rest = text.rstrip("\n").partition("\n")
            color = _RICH.get(panel.status, "cyan")
            Console(file=file, highlight=False).print(
                Frame(Text(rest.strip("\n")), title=Text(headline, style=f"bold {color}"), title_align="left", border_style=color, width=None)
            )
            return
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(text.encode(encoding, errors="replace").decode(encoding), file=file)


# ---------------------------------------------------------------- progress


def overview_html(overview: Overview) -> str:
    inner = [
        f'<div style="font-weight:600;font-size:16px;color:{_INK}">{escape(_sum(overview))}</div>',
        *(_paragraph(note, soft=True) for note in overview.notes),
    ]
    for title, rows in overview.chapters:
        cells = "".join(
            f'<div style="width:10px;height:10px;border-radius:5px;align-self:center;box-sizing:border-box;{_dot(row.state)}"></div>'
            f'<div style="{_MONO};font-size:13px">{escape(row.name)}</div><div style="color:{_SOFT}">{row.level}</div>'
            f'<div style="color:{_SOFT}">{row.minutes} min</div><div style="text-align:right">{row.points} / {row.max_points}</div>'
            f"<div>{escape(row.words)}</div>"
            for row in rows
        )
        inner.append(f'<div style="font-weight:600;margin:12px 0 4px">{escape(title)}</div>')
        inner.append(f'<div style="display:grid;grid-template-columns:repeat(5,max-content) 1fr;gap:3px 16px">{cells}</div>')
    inner.append(_paragraph(overview.next))
    return _card(ACCENT["passed"] if overview.passed else ACCENT["note"], "".join(inner), _sum(overview))


def _dot(state: str) -> str:
    if state == "passed":
        return f"background:{ACCENT['passed']}"
    return f"border:2px solid {ACCENT['failed'] if state == 'tried' else '#b6babf'}"


def _sum(overview: Overview) -> str:
    return f"{overview.points} of {overview.max_points} points, {overview.core_passed} of {overview.core} core exercises passed"


def overview_text(overview: Overview) -> str:
    lines = [_sum(overview), ""]
    lines += [_wrapped(note) + "\n" for note in overview.notes]
    wide = max((len(row.name) for _, rows in overview.chapters for row in rows), default=0)
    for title, rows in overview.chapters:
        lines.append(title)
        lines += [f"  {row.name:<{wide}}  {row.level}  {row.minutes:>3} min  {row.points:>2} / {row.max_points}  {row.words}" for row in rows]
        lines.append("")
    return "\n".join([*lines, overview.next]) + "\n"
