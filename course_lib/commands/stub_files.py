"""Bring a learner's work into a newer version of a file of stubs (exercises/chNN_topic.py). Pure: text in, text out.

The rules are those of notebooks, a section for a cell: see `notebook_merge`.
"""

import ast
import difflib
import re

from course_lib.commands.notebook_cells import TAG, source_of, tags
from course_lib.commands.notebook_merge import Entry, Report, merge
from course_lib.source import RECORD, digest, recorded

SECTION = re.compile(r"^# (?:%% exercise (?P<name>\w+)\b|%%|---- kept by course update)")
KEPT = "# ---- kept by course update ----"


def merge_stub_files(base: str | None, upstream: str, mine: str) -> tuple[str, Report]:
    """The upstream file of stubs with the learner's sections in it: the rules of notebooks, a section for a cell.

    What would be a note or a raw cell becomes comments under a line `# ---- kept by course update ----`.
    """
    parts = [None if text is None else _sections(text) for text in (base, upstream, mine)]
    books = [None if part is None else {"nbformat": 4, "nbformat_minor": 5, "cells": part[1]} for part in parts]
    done = merge(books[0], books[1], books[2])
    started = parts[0][0] if parts[0] else parts[2][0] if recorded(mine).get("top") == digest(parts[2][0]) else None
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
    known = recorded(text)
    lines = [line for line in text.splitlines() if not line.startswith(RECORD)]
    starts = [i for i, line in enumerate(lines) if SECTION.match(line)]
    cells = []
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=False):  # one shorter where there is no section
        name = SECTION.match(lines[start])["name"]
        body = "\n".join(lines[start + 1 if name else start : stop]).strip("\n")
        metadata = {"header": lines[start], "tags": [TAG + name]} if name else {}
        if name and known.get(name) == digest("\n".join(lines[start:stop])):
            metadata["course"] = {"stub": digest(body)}
        cells.append({"cell_type": "code", "metadata": metadata, "source": body})
    return "\n".join(lines[: starts[0]] if starts else lines).strip("\n"), cells


def _section_text(cell: dict) -> str:
    text = source_of(cell)
    if cell["cell_type"] == "code":
        header = cell["metadata"].get("header")
        if header and not tags(cell):  # a section whose exercise is gone: no longer an exercise to anyone who reads the file
            header = KEPT
        return f"{header}\n{text}" if header else text
    commented = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    return f"{KEPT}\n{commented}"


def _preamble(base: str | None, upstream: str, mine: str, report: Report) -> str:
    """The imports: upstream's, with the lines that the learner added below them."""
    if mine.strip() in ("", upstream.strip(), (base or "").strip()):
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
