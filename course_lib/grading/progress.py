"""What the course remembers of each exercise (`.course/progress.json`), and the overview that `progress()` draws.

A record that cannot be read is moved aside, said in a sentence, and begun anew. Knows nothing of how answers are graded.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from course_lib import paths
from course_lib.chapters import CHAPTERS
from course_lib.grading import book, catalogue
from course_lib.grading.verdict import Verdict
from course_lib.source import Exercise

_EMPTY = {
    "status": "not_attempted",
    "points": 0,
    "max_points": 0,
    "attempts": 0,
    "accepted": None,
    "first_passed": None,
    "last": None,
    "hints_shown": 0,
    "solution_shown": False,
    "diagnosis": None,
}


def path() -> Path:
    return paths.records() / "progress.json"


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(text: str) -> dict[str, dict]:
    """{exercise: entry}; ValueError where the text is not a record of ours."""
    data = json.loads(text)
    entries = data.get("exercises") if isinstance(data, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError("no record of exercises")
    return data


def _load() -> tuple[dict, list[str]]:
    """(the whole record, what the reader should know). BookError where the file cannot be read at all."""
    try:
        return _parsed(path().read_text(encoding="utf-8")), []
    except FileNotFoundError:
        return {"exercises": {}}, []
    except OSError as error:
        raise book.trouble(error, path()) from error
    except (ValueError, RecursionError):
        aside = path().with_name(f"progress.unreadable-{time.time_ns()}.json")
        sentence = f"{book.short(path())} could not be read, so progress begins anew. "
        try:
            os.replace(path(), aside)
        except OSError:
            return {"exercises": {}}, [sentence + "Your answers in answers/ are untouched."]
        return {"exercises": {}}, [sentence + f"The old file lies in {book.short(aside)}; your answers in answers/ are untouched."]


def _entry(data: dict, name: str) -> dict:
    """An entry with every field present and of its type, whatever was in the file."""
    stored = data["exercises"].get(name, {})
    return {**stored, **{k: stored[k] if k in stored and _same_kind(stored[k], v) else v for k, v in _EMPTY.items()}}


def _same_kind(value: object, empty: object) -> bool:
    if empty is None:
        return value is None or isinstance(value, str)
    return type(value) is type(empty)


def entries() -> tuple[dict[str, dict], list[str]]:
    """({exercise: its entry} for every exercise of the course, notes for the reader). Never raises for what is in the file."""
    try:
        with book.locked():
            data, notes = _load()
    except book.BookError as error:
        data, notes = {"exercises": {}}, [str(error)]
    return {name: _entry(data, name) for name in catalogue.exercises()}, notes


def update(name: str, change: Callable[[dict], None]) -> list[str]:
    """Change one entry, under the lock. Returns notes for the reader; BookError where it cannot be written."""
    with book.locked():
        data, notes = _load()
        entry = _entry(data, name)
        change(entry)
        data["exercises"][name] = entry
        book.replace(path(), json.dumps(data, indent=1) + "\n")
    return notes


def record(exercise: Exercise, verdict: Verdict, accepted: str | None) -> list[str]:
    """Remember one graded attempt. What has passed stays passed; `accepted` is the fingerprint of what now stands in answers/."""

    def change(entry: dict) -> None:
        entry["attempts"] += 1
        entry["last"] = _now()
        entry["max_points"] = exercise.points
        entry["points"] = max(entry["points"], verdict.points)
        entry["diagnosis"] = verdict.diagnosis.id if verdict.diagnosis else None
        if verdict.status == "passed":
            entry["status"] = "passed"
            entry["first_passed"] = entry["first_passed"] or entry["last"]
            entry["accepted"] = accepted or entry["accepted"]
        elif entry["status"] != "passed":
            entry["status"] = verdict.status

    return update(exercise.name, change)


def forget(exercise: Exercise) -> list[str]:
    """After a reset: not attempted, nothing accepted. When it first passed, and the hints seen, stay on record."""

    def change(entry: dict) -> None:
        entry.update(status="not_attempted", points=0, accepted=None, diagnosis=None)

    return update(exercise.name, change)


def next_exercise(after: Exercise | None = None) -> Exercise | None:
    """What to do next: the next exercise of the chapter that has not passed, core ones before the others; then the next chapter's."""
    passed = {name for name, entry in entries()[0].items() if entry["status"] == "passed"}
    everything = list(catalogue.exercises().values())
    open_ = [exercise for exercise in everything if exercise.name not in passed and exercise is not after]
    if after is not None:
        here = [e for e in open_ if e.chapter == after.chapter]
        later = [e for e in here if everything.index(e) > everything.index(after)] + [
            e for e in here if everything.index(e) < everything.index(after)
        ]
        open_ = later + [e for e in open_ if e.chapter > after.chapter] + [e for e in open_ if e.chapter < after.chapter]
    return next((e for e in open_ if e.level == "core"), next(iter(open_), None))


# ---------------------------------------------------------------- the overview


@dataclass(frozen=True)
class Row:
    """One exercise in the overview."""

    name: str
    level: str
    minutes: int
    points: int
    max_points: int
    state: str  # passed, tried, open
    words: str


@dataclass(frozen=True)
class Overview:
    """Where the reader is: (title, rows) of each chapter with exercises, the sums, what comes next, notes."""

    chapters: tuple[tuple[str, tuple[Row, ...]], ...]
    points: int
    max_points: int
    passed: int
    core_passed: int
    core: int
    next: str
    notes: tuple[str, ...]


def overview(number: int | None = None) -> Overview:
    """All of it, or one chapter's part."""
    known, notes = entries()
    chapters = []
    for chapter in (c for c in CHAPTERS if number in (None, c.number)):
        rows = tuple(_row(exercise, known[exercise.name]) for exercise in catalogue.of_chapter(chapter.number))
        if rows:
            chapters.append((f"{chapter.number:02d}  {chapter.title}", rows))
    rows = [row for _, rows in chapters for row in rows]
    core = [row for row in rows if row.level == "core"]
    following = next_exercise()
    return Overview(
        chapters=tuple(chapters),
        points=sum(row.points for row in rows),
        max_points=sum(row.max_points for row in rows),
        passed=sum(row.state == "passed" for row in rows),
        core_passed=sum(row.state == "passed" for row in core),
        core=len(core),
        next=following_words(following),
        notes=tuple(notes),
    )


def following_words(exercise: Exercise | None) -> str:
    if exercise is None:
        return "Every exercise there is has passed."
    return f"Next: {exercise.name} (chapter {exercise.chapter:02d}, {exercise.level}, about {exercise.minutes} minutes)."


_STATES = {
    "passed": "passed",
    "not_attempted": "not started",
    "failed": "not right yet",
    "error": "stopped with an error",
    "timeout": "took too long",
    "blocked": "needs other hardware",
    "needs_review": "waits for a person to look",
}


def _row(exercise: Exercise, entry: dict) -> Row:
    state = {"passed": "passed", "not_attempted": "open"}.get(entry["status"], "tried")
    words = _STATES.get(entry["status"], "not started")
    if entry["attempts"]:
        words += f", {entry['attempts']} attempt{'s' if entry['attempts'] != 1 else ''}"
    return Row(exercise.name, exercise.level, exercise.minutes, min(entry["points"], exercise.points), exercise.points, state, words)
