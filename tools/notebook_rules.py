"""The rules of a notebook (DESIGN section 2), each a small function over one read notebook. Prints nothing, writes nothing.

A rule returns sentences. The rules of FAIL hold the structure; the rules of WARN are house numbers, a guide.
"""

import ast
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat

from course_lib.source import Exercise
from tools.sync import tagged
from tools.voice import slips, word_count

COLAB = {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True}}
HIDDEN_TAGS = {"hide-input", "hide-cell", "hide_input", "hide_cell", "remove-cell", "remove-input", "remove_cell", "remove_input"}
SHOWS_WITHOUT_ALT = {"Image": "IPython's Image", "imshow": "imshow", "plot": "a plot of its own", "subplots": "a plot of its own"}
PRINTED = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<target>[^)]*)\)")
IMG = re.compile(r"<img\b[^>]*>", re.IGNORECASE)


@dataclass(frozen=True)
class Book:
    """A notebook under the lint, and the exercises that its chapter should have."""

    path: Path
    notebook: nbformat.NotebookNode
    exercises: tuple[Exercise, ...] = ()

    @property
    def door(self) -> bool:
        """Chapter 00 is the door to the course: it teaches nothing, so a chapter's order does not bind it."""
        return self.path.name.startswith("00_")

    @property
    def cells(self) -> list:
        return self.notebook.cells

    def of(self, kind: str) -> list[tuple[int, str]]:
        """(position from 1, text) of all cells of a kind."""
        return [(number, cell["source"]) for number, cell in enumerate(self.cells, start=1) if cell["cell_type"] == kind]

    @cached_property
    def calls(self) -> list[tuple[int, str, ast.Call]]:
        """(position, name called, the call) of every call in the code cells, exercise cells left out."""
        return [found for number, cell in enumerate(self.cells, start=1) if not tagged(cell, "exercise") for found in _calls(number, cell)]

    @cached_property
    def counted(self) -> list:
        """The cells that the house numbers count: all but the exercises'."""
        return [cell for cell in self.cells if not (tagged(cell, "exercise") or tagged(cell, "statement"))]


def _calls(number: int, cell: dict) -> list[tuple[int, str, ast.Call]]:
    if cell["cell_type"] != "code":
        return []
    try:
        tree = ast.parse(without_magics(cell["source"]))
    except SyntaxError:
        return []
    return [(number, _name(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def without_magics(text: str) -> str:
    """A cell's text with its lines for IPython or the shell (`%time`, `!pip`) turned into `pass`, so that it is Python."""
    return re.sub(r"^([ \t]*)[%!].*$", r"\1pass", text, flags=re.MULTILINE)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def code_lines(text: str) -> int:
    """Lines of a code cell that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


# ---- structure: these fail ----


def badge(book: Book) -> list[str]:
    first = book.cells[0] if book.cells else None
    if first and first["cell_type"] == "markdown" and "colab-badge.svg" in first["source"] and book.path.name in first["source"]:
        return []
    return [f"the first cell must be the Colab badge, and link to {book.path.name}"]


def title(book: Book) -> list[str]:
    headings = [line for _, text in book.of("markdown") for line in text.splitlines() if line.startswith("# ")]
    if not headings:
        return ["it has no title: a markdown line that starts with '# '"]
    found = [] if headings[0].rstrip().endswith("?") else [f"the title is not a question: {headings[0]!r}"]
    return found + [f"a second title: {line!r}; sections start with '##'" for line in headings[1:]]


def setup(book: Book) -> list[str]:
    code = book.of("code")
    if not code:
        return ["it has no code cell"]
    number, text = code[0]
    return [f"cell {number}: the set-up cell has {code_lines(text)} lines; at most 6"] if code_lines(text) > 6 else []


def clean(book: Book) -> list[str]:
    found = []
    for number, cell in enumerate(book.cells, start=1):
        if cell["cell_type"] == "code" and cell.get("outputs"):
            found.append(f"cell {number}: it holds outputs; notebooks are committed without (nbstripout --keep-id)")
        if cell["cell_type"] == "code" and cell.get("execution_count") is not None:
            found.append(f"cell {number}: it holds an execution count (nbstripout --keep-id)")
    return found


def hidden(book: Book) -> list[str]:
    found = []
    for number, cell in enumerate(book.cells, start=1):
        metadata = cell["metadata"]
        folded = metadata.get("jupyter", {}).get("source_hidden") or metadata.get("cellView") == "form" or metadata.get("collapsed")
        if folded or HIDDEN_TAGS & set(metadata.get("tags", [])):
            found.append(f"cell {number}: it is hidden; the reader sees every line that runs")
    return found


def metadata(book: Book) -> list[str]:
    meta = book.notebook.metadata
    found = [f"metadata: {key} must be {value}" for key, value in COLAB.items() if meta.get(key) != value]
    if meta.get("kernelspec", {}).get("name") != "python3":
        found.append("metadata: the kernel must be python3")
    if "widgets" in meta:
        found.append("metadata: it holds saved widget state; take the key 'widgets' out")
    return found


def ids(book: Book) -> list[str]:
    known = [cell.get("id") for cell in book.cells]
    found = [f"cell {number}: it has no id (make sync gives it one)" for number, known_id in enumerate(known, start=1) if not known_id]
    return found + [f"two cells have the id {known_id!r}" for known_id in sorted({i for i in known if i and known.count(i) > 1})]


def exercise_pairs(book: Book) -> list[str]:
    found = []
    for exercise in book.exercises:
        places = [number for number, cell in enumerate(book.cells) if tagged(cell, "exercise") == exercise.name]
        if len(places) != 1:
            found.append(f"{exercise.name}: {len(places)} cells carry the tag exercise:{exercise.name}; it takes one")
            continue
        before = book.cells[places[0] - 1] if places[0] else {"metadata": {}, "cell_type": "code"}
        if tagged(before, "statement") != exercise.name or before["cell_type"] != "markdown":
            found.append(f"{exercise.name}: the cell before its code must be the markdown cell tagged statement:{exercise.name}")
        lines = book.cells[places[0]]["source"].rstrip().splitlines()
        if not lines or lines[-1] != f"check({exercise.name})":
            found.append(f"{exercise.name}: its cell must end in check({exercise.name})")
    core = [exercise.name for exercise in book.exercises if exercise.level == "core"]
    return found + ([f"{len(core)} exercises are core; at most 4"] if len(core) > 4 else [])


def teaching(book: Book) -> list[str]:
    """Predictions and claims are there; the closing parts are there."""
    if book.door:
        return []
    names = {name for _, name, _ in book.calls}
    found = [f"no cell calls {name}(...)" for name in ("predict", "claim") if name not in names]
    text = "\n".join(text for _, text in book.of("markdown"))
    headings = [line.lstrip("# ").lower() for line in text.splitlines() if re.match(r"#{2,4} ", line)]
    found += [f"no heading has the words {part!r}" for part in ("recap", "further reading") if not any(part in line for line in headings)]
    folded = len(re.findall(r"<details\b", text))
    return found + ([f"{folded} folded answers (<details>); three retrieval questions end a chapter"] if folded < 3 else [])


def sources(book: Book) -> list[str]:
    """A claim says where it was said; a link goes somewhere."""
    found = []
    for number, name, call in book.calls:
        given = [keyword.value for keyword in call.keywords if keyword.arg == "source"] or call.args[1:2]
        if name == "claim" and not (given and not (isinstance(given[0], ast.Constant) and not str(given[0].value or "").strip())):
            found.append(f"cell {number}: claim(...) without a source")
    return found + [f"cell {number}: an empty link" for number, text in book.of("markdown") if re.search(r"(?<!!)\[[^\]]+\]\(\s*\)", text)]


def alt_text(book: Book) -> list[str]:
    """Pictures come from course_lib.figures, which give every one its alt text; markdown pictures carry their own."""
    found = []
    for number, name, _ in book.calls:
        if name in SHOWS_WITHOUT_ALT:
            found.append(f"cell {number}: {SHOWS_WITHOUT_ALT[name]} has no alt text; draw it with a function of course_lib.figures")
    for number, text in book.of("code"):
        if re.search(r"^\s*(import|from) matplotlib", text, re.MULTILINE):
            found.append(f"cell {number}: it imports matplotlib; plotting lives in course_lib.figures, with alt text")
    for number, text in book.of("markdown"):
        found += [f"cell {number}: the picture {m['target']} has no alt text" for m in PRINTED.finditer(text) if not m["alt"].strip()]
        found += [f"cell {number}: an <img> has no alt text" for tag in IMG.findall(text) if not re.search(r"alt\s*=\s*(\"[^\"]+\"|'[^']+')", tag)]
    return found


def voice(book: Book) -> list[str]:
    return [f"cell {number}: {slip}" for number, text in book.of("markdown") for slip in slips(text)]


def parses(book: Book) -> list[str]:
    found = []
    for number, text in book.of("code"):
        try:
            ast.parse(without_magics(text))
        except SyntaxError as error:
            found.append(f"cell {number}: line {error.lineno} is not Python: {error.msg}")
    return found


# ---- house numbers: these warn ----


def _outside(what: str, value: float, low: float, high: float) -> list[str]:
    shown = f"{value:.1f}" if isinstance(value, float) else f"{value:,}"
    return [] if low <= value <= high else [f"{what}: {shown}, the house number is {low:,} to {high:,}"]


def pictures(book: Book) -> int:
    """How many pictures a reader sees: calls into course_lib.figures and widgets, and markdown pictures (the badge is none)."""
    drawn = sum(_from_figures(book, name, call) for _, name, call in book.calls)
    return drawn + sum("badge" not in m["target"] for _, text in book.of("markdown") for m in PRINTED.finditer(text))


def _from_figures(book: Book, name: str, call: ast.Call) -> bool:
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if isinstance(owner, ast.Name):
        return owner.id in ("figures", "widgets") or owner.id in _imported(book)
    return name in _imported(book)


def _imported(book: Book) -> set[str]:
    text = "\n".join(text for _, text in book.of("code"))
    lines = re.findall(r"^from course_lib\.(?:figures|widgets)[\w.]* import (.+)$", text, re.MULTILINE)
    lines += re.findall(r"^from course_lib import (.*\b(?:figures|widgets)\b.*)$", text, re.MULTILINE) and ["figures, widgets"]
    return {part.split(" as ")[-1].strip(" ()") for line in lines for part in line.split(",")}


def house_numbers(book: Book) -> list[str]:
    if book.door:
        return []
    markdown = [cell["source"] for cell in book.counted if cell["cell_type"] == "markdown"]
    code = [code_lines(cell["source"]) for cell in book.counted if cell["cell_type"] == "code"]
    if not code:
        return []
    found = _outside("cells", len(book.counted), 35, 60)
    found += _outside("markdown cells a code cell", round(len(markdown) / len(code), 1), 1.3, 2.0)
    found += _outside("median lines of a code cell", round(statistics.median(code), 1), 1, 8)
    found += _outside("words", sum(map(word_count, markdown)), 1200, 2500)
    found += _outside("figures", pictures(book), 6, 12)
    for number, cell in enumerate(book.cells, start=1):
        limit = 60 if "@triton.jit" in cell["source"] else 25
        if cell["cell_type"] == "code" and not tagged(cell, "exercise") and code_lines(cell["source"]) > limit:
            found.append(f"cell {number}: {code_lines(cell['source'])} lines of code, the house number is at most {limit}")
    return found


Rule = Callable[[Book], list[str]]
FAIL: tuple[Rule, ...] = (badge, title, setup, clean, hidden, metadata, ids, exercise_pairs, teaching, sources, alt_text, voice, parses)
WARN: tuple[Rule, ...] = (house_numbers,)
