"""Bring a learner's work into a newer version of a notebook, or of a file of stubs. Pure: dicts and text in, dicts and text out.

Knows nothing of git, of files, or of what an exercise asks. Three versions are compared: `base`, what the learner
started from (None where nobody knows); `upstream`, the newer one; `mine`, the learner's. The rules:

- Every upstream cell is in the result, in upstream's order.
- An answer goes back into the cell with the same tag `exercise:NAME`, if the signature that the exercise asks for is
  what it was. Otherwise the new stub stays, and the answer stands below it as a raw cell, which does not run.
- A prediction whose question is what it was keeps the learner's guess.
- A cell of the learner's own stays behind the nearest cell before it that the course still has.
- Where the learner changed a cell of the course, the course's version stands, and the learner's right below it.
- Nothing that the learner typed disappears: it is in the result, or in `Report.only_saved`.

The result is deterministic, and merging it once more changes nothing: an interrupted update can be repeated.
"""

import ast
import copy
import difflib
import hashlib
import re
import textwrap
from dataclasses import dataclass, field

TAG = "exercise:"
SECTION = re.compile(r"^# (?:%% exercise (?P<name>\w+)\b|%%|---- kept by course update)")
PREDICTION = re.compile(r"\s*(?:\w+\s*=\s*)?predict\(")
OWN = {"kept": True}  # metadata.course of a cell that belongs to the learner
RECORD = "# as generated:"  # the last line of a generated file: the hash of each section
KEPT = "# ---- kept by course update ----"


@dataclass(frozen=True)
class Entry:
    """One thing to tell the learner: which exercise or cell, why, and the text it is about."""

    name: str
    why: str
    text: str


@dataclass
class Report:
    """What a merge did with the learner's work."""

    placed: list[Entry] = field(default_factory=list)  # answers that are back in their exercise
    not_placed: list[Entry] = field(default_factory=list)  # answers that stand beside their exercise, or have none any more
    own: list[Entry] = field(default_factory=list)  # the learner's own cells
    edited: list[Entry] = field(default_factory=list)  # the learner's versions of cells of the course, kept below them
    came_back: list[Entry] = field(default_factory=list)  # cells of the course that the learner had deleted
    only_saved: list[Entry] = field(default_factory=list)  # in the saved copy, not in the result


@dataclass(frozen=True)
class Merge:
    notebook: dict
    report: Report


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
    return next((tag.removeprefix(TAG) for tag in _tags(cell) if tag.startswith(TAG)), None)


def same_work(one: dict, other: dict) -> bool:
    """Whether two notebooks say the same, texts and tags: outputs, counts, ids and other metadata apart."""
    return [(_text(cell), _tags(cell)) for cell in one["cells"]] == [(_text(cell), _tags(cell)) for cell in other["cells"]]


def merge(base: dict | None, upstream: dict, mine: dict, *, outputs: bool = False) -> Merge:
    """The upstream notebook with the learner's work in it. The three are left as they are.

    Cells of the course come without outputs, the learner's own keep theirs. `outputs=True` leaves upstream's too: for an
    `upstream` that is itself a learner's notebook.
    """
    return _Merger(base, upstream, mine, outputs).run()


# ---- signatures


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


def _keeps(wanted: dict[str, str], offered: dict[str, str]) -> bool:
    """Whether `offered` has all that `wanted` asks for; a class may have further methods."""
    return all(offered.get(name) == text for name, text in wanted.items())


def _said(signatures: dict[str, str]) -> str:
    return ", ".join(f"`{text}`" for text in signatures.values())


# ---- cells


def _tags(cell: dict) -> list[str]:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _is_kept(cell: dict) -> bool:
    """Whether an earlier merge marked the cell as the learner's: it is not the course's, whatever its text."""
    metadata = cell.get("metadata")
    return isinstance(metadata, dict) and metadata.get("course") == OWN


def _as_generated(cell: dict) -> bool:
    """Whether a stub is as `make sync` wrote it: it carries the hash of its text. Needed where the base is not known."""
    metadata = cell.get("metadata")
    course = metadata.get("course") if isinstance(metadata, dict) else None
    return isinstance(course, dict) and course.get("stub") == _digest(source_of(cell))


def _digest(text: str) -> str:
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:12]


def _text(cell: dict) -> tuple[str, str]:
    return cell["cell_type"], source_of(cell).rstrip()


def _title(cell: dict) -> str:
    """The first line of a cell that says something, short enough for a list."""
    first = next((line.strip() for line in source_of(cell).splitlines() if line.strip()), "(empty)")
    return first if len(first) <= 60 else first[:57] + "..."


def _match(cells: dict[int, dict], others: dict[int, dict]) -> dict[int, int]:
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
    by_tag = lambda cell: next(filter(statement, _tags(cell)), None)  # noqa: E731
    for key in (by_tag, lambda cell: cell.get("id"), lambda cell: _text(cell) if source_of(cell).strip() and not _is_kept(cell) else None):
        for i, cell in cells.items():
            if i in found or exercise_of(cell) or not key(cell):
                continue
            j = next((j for j, other in free.items() if not exercise_of(other) and key(other) == key(cell)), None)
            if j is not None:
                take(i, j)
    return found


class _Merger:
    """One merge. `after[u]` collects what follows upstream's cell u; `after[None]` what stands before the first."""

    def __init__(self, base: dict | None, upstream: dict, mine: dict, outputs: bool):
        self.outputs = outputs
        self.has_base = base is not None
        self.base = dict(enumerate(base["cells"])) if base else {}
        self.upstream = dict(enumerate(upstream["cells"]))
        self.mine = dict(enumerate(mine["cells"]))
        self.frame = {key: copy.deepcopy(value) for key, value in upstream.items() if key != "cells"}
        self.with_ids = (upstream.get("nbformat", 4), upstream.get("nbformat_minor", 0)) >= (4, 5)
        self.ids = {cell.get("id") for book in (base, upstream) if book for cell in book["cells"]}  # kept cells must not pass for these
        self.report = Report()
        self.after: dict[int | None, list[dict]] = {u: [] for u in (None, *self.upstream)}
        self.answers: dict[int, str] = {}
        self.base_of = _match(self.mine, self.base)
        self.upstream_of = self._through_base()

    def _through_base(self) -> dict[int, int]:
        newer = _match(self.base, self.upstream)
        found = {i: newer[b] for i, b in self.base_of.items() if b in newer}
        rest = {i: cell for i, cell in self.mine.items() if i not in self.base_of}
        free = {u: cell for u, cell in self.upstream.items() if u not in found.values()}
        found |= _match(rest, free)
        present = {u for i, u in found.items() if source_of(self.mine[i]).strip() or not source_of(self.upstream[u]).strip()}
        for u in sorted(newer.values()):
            if u not in present:
                self.report.came_back.append(Entry(_title(self.upstream[u]), "you had deleted this cell of the course", source_of(self.upstream[u])))
        return found

    def run(self) -> Merge:
        anchor = None
        for i, cell in self.mine.items():
            anchor = self.upstream_of.get(i, anchor)
            if i in self.upstream_of:
                self._known(i, cell, anchor)
            else:
                self._unknown(i, cell, anchor)
        cells = list(self.after[None])
        for u, cell in self.upstream.items():
            cells += [self._course_cell(cell, self.answers.get(u)), *self.after[u]]
        return Merge({**self.frame, "cells": [self._with_id(cell) for cell in cells]}, self.report)

    def _is_untouched(self, i: int, cell: dict) -> bool:
        return not source_of(cell).strip() or _as_generated(cell) or (i in self.base_of and _text(cell) == _text(self.base[self.base_of[i]]))

    def _known(self, i: int, cell: dict, u: int) -> None:
        """A cell that upstream has too."""
        if _text(cell) == _text(self.upstream[u]) or self._is_untouched(i, cell):
            return
        if exercise_of(self.upstream[u]):
            self._answer(i, cell, u)
        elif i in self.base_of and PREDICTION.match(source_of(cell)) and _text(self.base[self.base_of[i]]) == _text(self.upstream[u]):
            self.answers[u] = source_of(cell)  # the same question: the guess is part of the learner's work
            self.report.placed.append(Entry(_title(cell), "", source_of(cell)))
        elif not self.has_base:
            self.report.only_saved.append(Entry(_title(cell), "the course's version of this cell replaced yours", source_of(cell)))
        else:
            self.report.edited.append(Entry(_title(cell), "the course's cell stands above your version of it", source_of(cell)))
            self.after[u] += [
                self._note("**Your version of the cell above**, kept by `course update`. Delete it when you no longer need it."),
                self._own_cell(cell),
            ]

    def _answer(self, i: int, cell: dict, u: int) -> None:
        new, name, text = self.upstream[u], exercise_of(self.upstream[u]), source_of(cell)
        wanted, offered = signature(source_of(new), name), signature(text, name)
        started = signature(source_of(self.base[self.base_of[i]]), name) if i in self.base_of else {}
        if (offered and _keeps(wanted, offered)) or (i in self.base_of and wanted == started):
            self.answers[u] = text
            changed = i in self.base_of and _text(self.base[self.base_of[i]]) != _text(new)
            self.report.placed.append(Entry(name, "its stub changed: read the new statement" if changed else "", text))
        else:
            was = _said(started or offered)
            why = f"its signature was {was} and is now {_said(wanted)}" if was else f"it asks for {_said(wanted)}, and your cell does not define that"
            self.report.not_placed.append(Entry(name, why, text))
            note = (
                f"**Your earlier answer to `{name}`**, kept by `course update`: {why}. "
                "What follows does not run. Move what you need into the new stub above, then delete both."
            )
            self.after[u] += [self._note(note), self._raw_cell(cell)]

    def _unknown(self, i: int, cell: dict, anchor: int | None) -> None:
        """A cell that upstream does not have: the learner's own, or one that the course took out."""
        was_course = i in self.base_of
        if was_course and self._is_untouched(i, cell):
            return
        if was_course and exercise_of(cell):
            name = exercise_of(cell)
            self.report.not_placed.append(
                Entry(name, "the course no longer has this exercise here; your cell stays as a cell of your own", source_of(cell))
            )
            self.after[anchor].append(
                self._note(f"**Your answer to `{name}`**, kept by `course update`: the course no longer has this exercise here.")
            )
        elif was_course:
            self.report.edited.append(Entry(_title(cell), "the course no longer has this cell; your version of it stays", source_of(cell)))
            self.after[anchor].append(self._note("**Your version of a cell that the course no longer has**, kept by `course update`."))
        elif exercise_of(cell) and exercise_of(cell) not in {exercise_of(new) for new in self.upstream.values()}:
            self.report.not_placed.append(
                Entry(exercise_of(cell), "the course no longer has this exercise here; your cell stays as a cell of your own", source_of(cell))
            )
        elif source_of(cell).strip():
            self.report.own.append(Entry(_title(cell), "", source_of(cell)))
        self.after[anchor].append(self._own_cell(cell))

    # -- making cells

    def _course_cell(self, cell: dict, answer: str | None) -> dict:
        made = copy.deepcopy(cell)
        if answer is not None:
            made["source"] = answer.splitlines(keepends=True)
        if made["cell_type"] == "code" and (answer is not None or not self.outputs):
            made |= {"outputs": [], "execution_count": None}
        return made

    def _own_cell(self, cell: dict) -> dict:
        made = copy.deepcopy(cell)
        made["metadata"] = made["metadata"] if isinstance(made.get("metadata"), dict) else {}
        made["metadata"]["course"] = dict(OWN)
        if "tags" in made["metadata"]:
            made["metadata"]["tags"] = [tag for tag in _tags(cell) if not tag.startswith(TAG)]
        if made["cell_type"] == "code":
            made.setdefault("outputs", [])
            made.setdefault("execution_count", None)
        else:
            made = {key: value for key, value in made.items() if key not in ("outputs", "execution_count")}
        return made | {"id": self._free_id(cell.get("id"), source_of(cell))}

    def _raw_cell(self, cell: dict) -> dict:
        text = source_of(cell)
        return {"cell_type": "raw", "id": self._free_id(None, text), "metadata": {"course": dict(OWN)}, "source": text.splitlines(keepends=True)}

    def _note(self, text: str) -> dict:
        return {"cell_type": "markdown", "id": self._free_id(None, text), "metadata": {"course": dict(OWN)}, "source": [text]}

    def _free_id(self, wanted: str | None, text: str) -> str:
        count = 0
        while not isinstance(wanted, str) or not re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", wanted) or wanted in self.ids:
            wanted = hashlib.sha1(f"{count} {text}".encode("utf-8", "replace")).hexdigest()[:12]
            count += 1
        self.ids.add(wanted)
        return wanted

    def _with_id(self, cell: dict) -> dict:
        return cell if self.with_ids else {key: value for key, value in cell.items() if key != "id"}


# ---- files of stubs (exercises/chNN_topic.py)


def merge_stub_files(base: str | None, upstream: str, mine: str) -> tuple[str, Report]:
    """The upstream file of stubs with the learner's sections in it: the rules of notebooks, a section for a cell.

    What would be a note or a raw cell becomes comments under a line `# ---- kept by course update ----`.
    """
    parts = [None if text is None else _sections(text) for text in (base, upstream, mine)]
    books = [None if part is None else {"nbformat": 4, "nbformat_minor": 5, "cells": part[1]} for part in parts]
    done = merge(books[0], books[1], books[2])
    started = parts[0][0] if parts[0] else parts[2][0] if _recorded(mine).get("top") == _digest(parts[2][0]) else None
    preamble = _preamble(started, parts[1][0], parts[2][0], done.report)
    record = next((line for line in upstream.splitlines() if line.startswith(RECORD)), "")
    return _written([preamble, *(_section_text(cell) for cell in done.notebook["cells"]), record]), done.report


def same_stub_file(one: str, other: str) -> bool:
    """Whether two files of stubs say the same, blank lines at the ends apart."""
    return one.strip().splitlines() == other.strip().splitlines()


def _written(parts: list[str]) -> str:
    return "\n\n".join(part.strip("\n") + "\n" for part in parts if part.strip("\n"))


def _sections(text: str) -> tuple[str, list[dict]]:
    """The preamble, and a cell for each section."""
    recorded = _recorded(text)
    lines = [line for line in text.splitlines() if not line.startswith(RECORD)]
    starts = [i for i, line in enumerate(lines) if SECTION.match(line)]
    cells = []
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        name = SECTION.match(lines[start])["name"]
        body = "\n".join(lines[start + 1 if name else start : stop]).strip("\n")
        metadata = {"header": lines[start], "tags": [TAG + name]} if name else {}
        if name and recorded.get(name) == _digest("\n".join(lines[start:stop])):
            metadata["course"] = {"stub": _digest(body)}
        cells.append({"cell_type": "code", "metadata": metadata, "source": body})
    return "\n".join(lines[: starts[0]] if starts else lines).strip("\n"), cells


def _recorded(text: str) -> dict[str, str]:
    """The hashes that a generated file carries in its last line: {section: hash}."""
    line = next((line for line in reversed(text.splitlines()) if line.startswith(RECORD)), "")
    return dict(re.findall(r"(\w+) ([0-9a-f]{12})(?:,|$)", line))


def _section_text(cell: dict) -> str:
    text = source_of(cell)
    if cell["cell_type"] == "code":
        header = cell["metadata"].get("header")
        if header and not _tags(cell):  # a section whose exercise is gone: no longer an exercise to anyone who reads the file
            header = KEPT
        return f"{header}\n{text}" if header else text
    commented = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    return f"{KEPT}\n{commented}"


def _preamble(base: str | None, upstream: str, mine: str, report: Report) -> str:
    """The imports: upstream's, with the lines that the learner added below them."""
    if mine.strip() in (upstream.strip(), (base or "").strip()):
        return upstream
    if base is not None and base.strip() == upstream.strip():
        return mine
    known = (upstream if base is None else base).splitlines()
    added = [line[2:] for line in difflib.ndiff(known, mine.splitlines()) if line.startswith("+ ")]
    added = [line for line in added if line.strip() and line not in upstream.splitlines()]
    if not added:
        return upstream
    text = "\n".join(added)
    together = f"{upstream}\n\n{text}"
    try:
        ast.parse(together)
    except (SyntaxError, ValueError):
        report.not_placed.append(
            Entry("the lines before the first exercise", "they do not fit below the new imports, so they stand there as comments", mine)
        )
        return f"{upstream}\n\n" + "\n".join(f"# {line}".rstrip() for line in mine.splitlines())
    report.edited.append(Entry("the lines before the first exercise", "what you added stands below the course's imports", text))
    return together
