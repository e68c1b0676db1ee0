"""Read code inside a lesson: a file, a function, or the difference of two, as a highlighted card.

show_source(obj_or_path, name=None) takes a function, a class, a module, a Triton kernel, or a path inside the course.
Without Pygments the code is shown plain. Knows nothing of kernels or exercises.
"""

import ast
import difflib
import html
import inspect
import os
import textwrap
from pathlib import Path

from course_lib.cards import Card, show
from course_lib.paths import ROOT

_BOX = "background:#ffffff;color:#1b1f24;border:1px solid #d0d7de;border-radius:6px;margin:4px 0;max-width:100%;overflow:auto;max-height:40rem"
_HEAD = "padding:5px 12px;border-bottom:1px solid #d0d7de;font:12px system-ui,Helvetica,Arial,sans-serif;color:#57606a;background:#f6f8fa"
_PRE = (
    "margin:0;padding:8px 12px;white-space:pre;font:13px/1.45 ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;background:#fff;color:#1b1f24"
)
_ROWS = {"+": "background:#dafbe1", "-": "background:#ffebe9", "@": "background:#eef2f6;color:#57606a"}


def show_source(thing, name: str | None = None) -> None:
    """Show code. show_source("kernels/softmax.py", "softmax_kernel") shows one definition of a file."""
    show(source_card(thing, name))


def show_diff(a, b, names: tuple[str, str] | None = None, context: int = 3) -> None:
    """Show what changed from a to b: objects, paths, or texts."""
    show(diff_card(a, b, names, context))


def source_card(thing, name: str | None = None) -> Card:
    """The card of `show_source`. Its text form is the code under a line that says where it stands."""
    code, where, first = read_source(thing, name)
    body = f'<div style="{_HEAD}">{html.escape(where)}</div><pre style="{_PRE}">{_numbered(_coloured(code), first)}</pre>'
    return Card(
        f'<div class="course-source" role="region" tabindex="0" aria-label="{html.escape(where)}" style="{_BOX}">{body}</div>', f"# {where}\n{code}"
    )


def diff_card(a, b, names: tuple[str, str] | None = None, context: int = 3) -> Card:
    """The card of `show_diff`; added and removed lines are marked by sign and colour."""
    (old, old_where, _), (new, new_where, _) = (read_source(x) if _named(x) else (x, "a text", 1) for x in (a, b))
    left, right = names or (old_where, new_where)
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), left, right, n=context, lineterm=""))[2:]
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    head = f"{left} \u2192 {right}: " + (f"{removed} line{'s' * (removed != 1)} removed, {added} added" if lines else "no difference")
    rows = "".join(f'<span style="display:block;{_ROWS.get(line[:1], "")}">{html.escape(line) or " "}</span>' for line in lines)
    body = f'<div style="{_HEAD}">{html.escape(head)}</div><pre style="{_PRE}">{rows}</pre>'
    box = f'<div class="course-diff" role="region" tabindex="0" aria-label="{html.escape(head)}" style="{_BOX}">{body}</div>'
    return Card(box, "\n".join([head, *lines]))


def read_source(thing, name: str | None = None) -> tuple[str, str, int]:
    """(code, where it stands, number of its first line) of a path, a module, a function, a class or a Triton kernel."""
    if isinstance(thing, str | os.PathLike):
        path = Path(thing)
        path = path if path.is_absolute() else ROOT / path
        try:
            code = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            reason = getattr(problem, "strerror", None) or "it is not text"
            raise ValueError(
                f"show_source: {thing} cannot be read ({reason}); give a path inside the course, such as 'kernels/softmax.py'"
            ) from problem
        first = 1
    else:
        code, path, first = _of_object(thing)
    if name is not None:
        code, first = _definition(code, name, first, _relative(path))
    code = code.rstrip("\n")
    last = first + code.count("\n")
    return code, f"{_relative(path)}, line{'s' if last > first else ''} {first}{f'-{last}' if last > first else ''}", first


def _of_object(thing) -> tuple[str, Path | None, int]:
    for _ in range(5):  # a Triton kernel, compiled or interpreted, keeps its function as .fn
        thing = inspect.unwrap(thing) if callable(thing) else thing
        if inspect.isroutine(thing) or inspect.isclass(thing) or inspect.ismodule(thing) or not hasattr(thing, "fn"):
            break
        thing = thing.fn
    try:
        lines, first = inspect.getsourcelines(thing)
        return textwrap.dedent("".join(lines)), Path(inspect.getsourcefile(thing)), max(first, 1)
    except (TypeError, OSError) as problem:
        what = getattr(thing, "__name__", type(thing).__name__)
        raise ValueError(f"show_source: {what!r} has no Python source to show; give a function, a class, a module or a path") from problem


def _definition(code: str, name: str, first: int, where: str) -> tuple[str, int]:
    """One top-level definition of a text, decorators and the comment above it included."""
    try:
        nodes = {node.name: node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    except SyntaxError as problem:
        raise ValueError(f"show_source: {where} does not parse (line {problem.lineno}: {problem.msg})") from problem
    if name not in nodes:
        near = difflib.get_close_matches(name, nodes, 1)
        raise ValueError(
            f"show_source: {where} defines no {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else f"; it defines {', '.join(nodes) or 'nothing'}")
        )
    node, lines = nodes[name], code.splitlines()
    start = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
    while start and lines[start - 1].startswith("#"):
        start -= 1
    return "\n".join(lines[start : node.end_lineno]), first + start


def _named(thing) -> bool:
    """Whether show_diff's argument names code (an object, a path) rather than being its text."""
    return not isinstance(thing, str) or ("\n" not in thing and thing.strip().endswith(".py"))


def _relative(path: Path | None) -> str:
    """The path as a reader knows it: from the course's root, else the file's name (a notebook cell says so)."""
    if path is None:
        return "a text"
    if not path.exists():
        return "this notebook"
    resolved = path.resolve()
    return resolved.relative_to(ROOT).as_posix() if resolved.is_relative_to(ROOT) else path.name


def _coloured(code: str) -> list[str]:
    """The lines as HTML, highlighted with inline styles."""
    try:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer
    except ImportError:
        return [html.escape(line) for line in code.splitlines()]
    return highlight(code, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True, noclasses=True, style="default")).rstrip("\n").split("\n")


def _numbered(lines: list[str], first: int) -> str:
    wide = len(str(first + len(lines)))
    return "\n".join(
        f'<span style="color:#6e7781;user-select:none" aria-hidden="true">{n:>{wide}}  </span>{line}' for n, line in enumerate(lines, first)
    )
