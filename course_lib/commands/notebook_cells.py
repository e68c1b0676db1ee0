"""The cells of a notebook as `course update` sees them: what each is, which of another notebook it is, what an exercise promises.

Knows nothing of git, of files, or of how versions are merged.
"""

import ast
import copy
import re
import textwrap

from course_lib.source import digest

TAG = "exercise:"
OWN = {"kept": True}  # metadata.course of a cell that belongs to the learner


class NotANotebook(ValueError):
    """Data that cannot be merged as a notebook; the message says why."""


def check_notebook(data: object) -> dict:
    """The data, if it is a notebook of format 4 whose cells can be read; else NotANotebook."""
    if not isinstance(data, dict) or not isinstance(data.get("nbformat"), int):
        raise NotANotebook("it is not a Jupyter notebook")
    if data["nbformat"] != 4:
        raise NotANotebook(f"its notebook format is {data['nbformat']}, and the course reads format 4")
    cells = data.get("cells")
    if not isinstance(cells, list):
        raise NotANotebook("it has no list of cells")
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
            raise NotANotebook(f"its cell {number} is neither code nor markdown nor raw text")
        text = cell.get("source", "")
        if not isinstance(text, str) and not (isinstance(text, list) and all(isinstance(line, str) for line in text)):
            raise NotANotebook(f"the source of its cell {number} is not text")
    return data


def source_of(cell: dict) -> str:
    """The text of a cell: on disk it may be a list of lines."""
    text = cell.get("source", "")
    return text if isinstance(text, str) else "".join(text)


def exercise_of(cell: dict) -> str | None:
    """The exercise that a code cell is tagged with."""
    if cell.get("cell_type") != "code":
        return None
    return next((tag.removeprefix(TAG) for tag in tags(cell) if tag.startswith(TAG)), None)


def same_work(one: dict, other: dict) -> bool:
    """Whether two notebooks say the same, texts and tags: outputs, counts, ids and other metadata apart."""
    return [(text_of(cell), tags(cell)) for cell in one["cells"]] == [(text_of(cell), tags(cell)) for cell in other["cells"]]


def signature(code: str, name: str) -> dict[str, str]:
    """What an exercise promises its callers: `{"f": "f(a, b=1)"}`, or an entry per method of a class; annotations ignored.

    Empty where the text defines no such name. A text with a syntax error (or an IPython command) is searched for the header alone.
    """
    try:
        body = ast.parse(textwrap.dedent(code)).body
    except (SyntaxError, ValueError, RecursionError):
        body = _headers(code, name)
    found: dict[str, str] = {}
    for node in body:
        if getattr(node, "name", None) != name:
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found = {name: f"{name}({_arguments(node.args)})"}
        elif isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            found = {f"{name}.{n.name}": f"{name}.{n.name}({_arguments(n.args)})" for n in methods} or {name: f"class {name}"}
    return found


def _headers(code: str, name: str) -> list[ast.stmt]:
    lines = code.splitlines()
    found = []
    for at, line in enumerate(lines):
        if re.match(rf"\s*(?:async\s+)?def\s+{re.escape(name)}\s*\(", line):
            for stop in range(at + 1, min(at + 60, len(lines)) + 1):
                text = textwrap.dedent("\n".join(lines[at:stop]))
                if not text.split("#")[0].rstrip().endswith(":") and not text.rstrip().endswith(":"):
                    continue
                try:
                    found += ast.parse(text + "\n pass").body
                    break
                except (SyntaxError, ValueError):
                    continue
    return found


def _arguments(args: ast.arguments) -> str:
    args = copy.deepcopy(args)
    for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]:
        if arg is not None:
            arg.annotation = arg.type_comment = None
    return ast.unparse(args)


def keeps(wanted: dict[str, str], offered: dict[str, str]) -> bool:
    """Whether `offered` has all that `wanted` asks for; a class may have further methods."""
    return all(offered.get(name) == text for name, text in wanted.items())


def said(signatures: dict[str, str]) -> str:
    return ", ".join(f"`{text}`" for text in signatures.values())


def tags(cell: dict) -> list[str]:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def is_kept(cell: dict) -> bool:
    """Whether an earlier merge marked the cell as the learner's: it is not the course's, whatever its text."""
    metadata = cell.get("metadata")
    return isinstance(metadata, dict) and metadata.get("course") == OWN


def as_generated(cell: dict) -> bool:
    """Whether a stub is as `make sync` wrote it: it carries the hash of its text. Needed where the base is not known."""
    metadata = cell.get("metadata")
    course = metadata.get("course") if isinstance(metadata, dict) else None
    return isinstance(course, dict) and course.get("stub") == digest(source_of(cell))


def text_of(cell: dict) -> tuple[str, str]:
    return cell["cell_type"], source_of(cell).rstrip()


def title(cell: dict) -> str:
    """The first line of a cell that says something, short enough for a list."""
    first = next((line.strip() for line in source_of(cell).splitlines() if line.strip()), "(empty)")
    return first if len(first) <= 60 else first[:57] + "..."


def matched(cells: dict[int, dict], others: dict[int, dict]) -> dict[int, int]:
    """Which of the others each cell is, one to one: exercises by tag alone, the rest by id, then by the very same text."""
    found: dict[int, int] = {}
    free = dict(others)

    def take(i: int, j: int) -> None:
        found[i] = j
        del free[j]

    exercises = {exercise_of(cell): j for j, cell in reversed(others.items()) if exercise_of(cell)}
    for name, j in exercises.items():
        tagged = [i for i, cell in cells.items() if exercise_of(cell) == name]
        if tagged:  # a cell that was split or copied leaves several: the last that defines the name is the answer
            defining = [i for i in tagged if signature(source_of(cells[i]), name)]
            take(defining[-1] if defining else tagged[0], j)
    statement = re.compile(r"statement:\w+").fullmatch
    by_tag = lambda cell: next(filter(statement, tags(cell)), None)  # noqa: E731
    for key in (by_tag, lambda cell: cell.get("id"), lambda cell: text_of(cell) if source_of(cell).strip() and not is_kept(cell) else None):
        for i, cell in cells.items():
            if i in found or exercise_of(cell) or not key(cell):
                continue
            j = next((j for j, other in free.items() if not exercise_of(other) and key(other) == key(cell)), None)
            if j is not None:
                take(i, j)
    return found
