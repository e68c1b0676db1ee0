"""Bring a learner's work into a newer version of a notebook. Pure: dicts in, dicts out.

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

import copy
import hashlib
import re
from dataclasses import dataclass, field

from course_lib.commands.notebook_cells import (
    OWN,
    TAG,
    NotANotebook,
    as_generated,
    check_notebook,
    exercise_of,
    keeps,
    matched,
    said,
    same_work,
    signature,
    source_of,
    tags,
    text_of,
    title,
)

__all__ = ["Entry", "Merge", "NotANotebook", "Report", "check_notebook", "exercise_of", "merge", "same_work", "signature", "source_of"]

PREDICTION = re.compile(r"\s*(?:\w+\s*=\s*)?predict\(")


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


def merge(base: dict | None, upstream: dict, mine: dict, *, outputs: bool = False) -> Merge:
    """The upstream notebook with the learner's work in it. The three are left as they are.

    Cells of the course come without outputs, the learner's own keep theirs. `outputs=True` leaves upstream's too: for an
    `upstream` that is itself a learner's notebook.
    """
    return _Merger(base, upstream, mine, outputs).run()


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
        self.base_of = matched(self.mine, self.base)
        self.upstream_of = self._through_base()

    def _through_base(self) -> dict[int, int]:
        newer = matched(self.base, self.upstream)
        found = {i: newer[b] for i, b in self.base_of.items() if b in newer}
        rest = {i: cell for i, cell in self.mine.items() if i not in self.base_of}
        free = {u: cell for u, cell in self.upstream.items() if u not in found.values()}
        found |= matched(rest, free)
        present = {u for i, u in found.items() if source_of(self.mine[i]).strip() or not source_of(self.upstream[u]).strip()}
        for u in sorted(newer.values()):
            if u not in present:
                self.report.came_back.append(Entry(title(self.upstream[u]), "you had deleted this cell of the course", source_of(self.upstream[u])))
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
        return not source_of(cell).strip() or as_generated(cell) or (i in self.base_of and text_of(cell) == text_of(self.base[self.base_of[i]]))

    def _known(self, i: int, cell: dict, u: int) -> None:
        """A cell that upstream has too."""
        if text_of(cell) == text_of(self.upstream[u]) or self._is_untouched(i, cell):
            return
        if exercise_of(self.upstream[u]):
            self._answer(i, cell, u)
        elif i in self.base_of and PREDICTION.match(source_of(cell)) and text_of(self.base[self.base_of[i]]) == text_of(self.upstream[u]):
            self.answers[u] = source_of(cell)  # the same question: the guess is part of the learner's work
            self.report.placed.append(Entry(title(cell), "", source_of(cell)))
        elif not self.has_base:
            self.report.only_saved.append(Entry(title(cell), "the course's version of this cell replaced yours", source_of(cell)))
        else:
            self.report.edited.append(Entry(title(cell), "the course's cell stands above your version of it", source_of(cell)))
            self.after[u] += [
                self._note("**Your version of the cell above**, kept by `course update`. Delete it when you no longer need it."),
                self._own_cell(cell),
            ]

    def _answer(self, i: int, cell: dict, u: int) -> None:
        new, name, text = self.upstream[u], exercise_of(self.upstream[u]), source_of(cell)
        wanted, offered = signature(source_of(new), name), signature(text, name)
        started = signature(source_of(self.base[self.base_of[i]]), name) if i in self.base_of else {}
        if (offered and keeps(wanted, offered)) or (i in self.base_of and wanted == started):
            self.answers[u] = text
            changed = i in self.base_of and text_of(self.base[self.base_of[i]]) != text_of(new)
            self.report.placed.append(Entry(name, "its stub changed: read the new statement" if changed else "", text))
        else:
            was = said(started or offered)
            why = f"its signature was {was} and is now {said(wanted)}" if was else f"it asks for {said(wanted)}, and your cell does not define that"
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
            self.report.edited.append(Entry(title(cell), "the course no longer has this cell; your version of it stays", source_of(cell)))
            self.after[anchor].append(self._note("**Your version of a cell that the course no longer has**, kept by `course update`."))
        elif exercise_of(cell) and exercise_of(cell) not in {exercise_of(new) for new in self.upstream.values()}:
            self.report.not_placed.append(
                Entry(exercise_of(cell), "the course no longer has this exercise here; your cell stays as a cell of your own", source_of(cell))
            )
        elif source_of(cell).strip():
            self.report.own.append(Entry(title(cell), "", source_of(cell)))
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
            made["metadata"]["tags"] = [tag for tag in tags(cell) if not tag.startswith(TAG)]
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
