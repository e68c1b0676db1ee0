"""The report of `course grade FOLDER`: JSON lines, written as the grading goes, and read again to go on where it stopped.

The first line is the head (seed, exercises, versions), then one line a submission; of two lines of one student the later
counts. A line that a crash cut short is left out. Decisions of `course review` lie beside it, in NAME.review.json, and
hold for the very answer that was looked at.
"""

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from course_lib.commands.cli import UsageError
from course_lib.commands.grade_batch import Graded, as_line, verdicts_of
from course_lib.grading.verdict import Diagnosis, Verdict
from course_lib.source import fingerprint

FORMAT, REVIEW_FORMAT = "course/grades/v1", "course/review/v1"


@dataclass
class Report:
    """A report on disk (path None: only in memory)."""

    path: Path | None
    head: dict
    lines: dict[str, dict] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.head["seed"]

    def has(self, student: str, fingerprint: str, exercises: list[str]) -> bool:
        """Whether this very submission is graded already, on all these exercises."""
        line = self.lines.get(student)
        return line is not None and line["fingerprint"] == fingerprint and {r["exercise"] for r in line["results"]} >= set(exercises)

    def add(self, graded: Graded) -> None:
        line = as_line(graded)
        self.lines[line["student"]] = line
        if self.path is not None:
            _append(self.path, line)

    def verdicts(self, students: Iterable[str] | None = None) -> dict[str, list[Verdict]]:
        """The verdicts of each student, with what a person decided."""
        decided = decisions(self.path) if self.path is not None else {}
        names = self.lines if students is None else [name for name in students if name in self.lines]
        return {name: [_decided(one, name, self.lines[name], decided) for one in verdicts_of(self.lines[name])] for name in sorted(names)}


def start(path: Path | None, seed: int, exercises: list[str]) -> Report:
    """A new report; an older one at that place is overwritten."""
    head = {"format": FORMAT, "seed": seed, "exercises": exercises, "date": _now(), "versions": versions()}
    if path is not None:
        _write(path, json.dumps(head) + "\n")
    return Report(path, head)


def load(path: Path) -> Report:
    """The report at that place. UsageError where it is none."""
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8 text'}).") from None
    found = [line for line in map(_line, texts) if line is not None]
    if not found or found[0].get("format") != FORMAT:
        raise UsageError(f"{path} is no report of `course grade FOLDER`. Give another name, or remove it.")
    if texts[-1]:  # a line cut short: what is added next must not hang on to it
        _append_text(path, "\n")
    return Report(path, found[0], {line["student"]: line for line in found[1:] if "student" in line})


def _line(text: str) -> dict | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("torch", "triton"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _append(path: Path, line: dict) -> None:
    _append_text(path, json.dumps(line) + "\n")


def _append_text(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(
            f"grade: {path} cannot be written ({error.strerror or error}). What is in it stays; run the same command to go on."
        ) from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"grade: {path} cannot be written ({error.strerror or error}).") from None


write = _write


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---------------------------------------------------------------- what a person decided


def review_file(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".jsonl") + ".review.json")


def decisions(path: Path) -> dict[tuple[str, str, str], dict]:
    """{(student, exercise, hash of the answer): the decision}. UsageError where the file cannot be read."""
    place = review_file(path)
    if not place.exists():
        return {}
    try:
        data = json.loads(place.read_text(encoding="utf-8"))
        if data["format"] != REVIEW_FORMAT:
            raise ValueError
        return {(one["student"], one["exercise"], one["answer"]): one for one in data["decisions"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{place} cannot be read as decisions of `course review`. Mend it or remove it.") from None


def decide(path: Path, student: str, exercise: str, text: str, decision: str, note: str) -> Path:
    """Record a decision; returns where. It is written beside and moved into place, so that a crash leaves the old file."""
    found = decisions(path)
    key = (student, exercise, fingerprint(text))
    found[key] = {"student": student, "exercise": exercise, "answer": key[2], "decision": decision, "note": note, "date": _now()}
    place = review_file(path)
    beside = place.with_name(place.name + ".tmp")
    _write(beside, json.dumps({"format": REVIEW_FORMAT, "decisions": list(found.values())}, indent=1) + "\n")
    os.replace(beside, place)
    return place


def _decided(verdict: Verdict, student: str, line: dict, decided: dict) -> Verdict:
    text = line.get("answers", {}).get(verdict.exercise)
    one = decided.get((student, verdict.exercise, fingerprint(text))) if text is not None and verdict.status == "needs_review" else None
    if one is None:
        return verdict
    said = one["note"] or f"A person looked at this answer and {one['decision']} it."
    if one["decision"] == "accepted":
        return replace(verdict, status="passed", points=verdict.max_points, diagnosis=Diagnosis("accepted-by-a-person", said))
    return replace(verdict, status="failed", points=0, diagnosis=Diagnosis("refused-by-a-person", said))
