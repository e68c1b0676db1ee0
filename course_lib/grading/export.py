"""Verdicts as the reports that other systems read: plain JSON, Gradescope, JUnit, Classroom 50, CSV. Pure functions.

The formats follow Gradescope's `results.json`, the JUnit XML that CI systems read, and `classroom50/result/v1`, whose
scores are integers; `schemas/` holds a JSON schema of each, and the tests hold every report against it.

A blocked exercise counts neither as failed nor as passed, so its points are in no total: Gradescope shows it without a
score and without a status, JUnit as skipped, CSV in a column of its own, and Classroom 50, which knows only passed and
not passed, is not told of it. An answer that needs a person (`needs_review`) has no score at Gradescope until the person has
decided (`course review`); Classroom 50 and JUnit, which cannot wait, count it as not passed.
"""

import csv
import io
import os
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone

from course_lib.grading.feedback import clean
from course_lib.grading.verdict import STATUSES, Verdict

FORMATS = ("json", "gradescope", "junit", "classroom50", "csv")
CSV_COLUMNS = ("student", "exercise", "chapter", "status", "points", "max_points", "diagnosis", "message", "seconds", "seed")
TOTAL_COLUMNS = ("student", "points", "max_points", "percent", "blocked_points", *STATUSES)
_UNDECIDED = {"blocked": "Not graded here: it needs hardware that is not here.", "needs_review": "A person looks at this answer; the score follows."}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def plain(verdicts: Sequence[Verdict]) -> list[dict]:
    """The contract's objects."""
    return [verdict.contract() for verdict in verdicts]


def message(verdict: Verdict) -> str:
    """One text for a report: the diagnosis, else the first case that did not pass."""
    if verdict.diagnosis:
        return clean(verdict.diagnosis.message)
    return clean(next((case.message for case in verdict.cases if case.status != "passed" and case.message), verdict.status.replace("_", " ")))


def _counted(verdicts: Iterable[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.status != "blocked"]


# ---------------------------------------------------------------- Gradescope


def gradescope(verdicts: Sequence[Verdict]) -> dict:
    """`/autograder/results/results.json`. `score` is the sum of the tests' scores."""
    return {
        "score": sum(verdict.points for verdict in verdicts if verdict.status not in _UNDECIDED),
        "execution_time": round(sum(verdict.seconds for verdict in verdicts), 3),
        "output_format": "text",
        "test_output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [_gradescope_test(verdict, number) for number, verdict in enumerate(verdicts, 1)],
    }


def _gradescope_test(verdict: Verdict, number: int) -> dict:
    score: dict = {"score": verdict.points, "max_score": verdict.max_points, "status": "passed" if verdict.status == "passed" else "failed"}
    said = message(verdict)
    if verdict.status in _UNDECIDED:  # without score and status Gradescope shows neither a tick nor a cross
        score, said = {}, f"{_UNDECIDED[verdict.status]} {said}"
    return {
        "name": clean(verdict.exercise),
        "number": f"{verdict.chapter}.{number}",
        **score,
        "output": said,
        "output_format": "text",
        "tags": [verdict.status, f"chapter {verdict.chapter:02d}"],
        "visibility": "visible",
        "extra_data": {
            "status": verdict.status,
            "diagnosis": verdict.diagnosis.id if verdict.diagnosis else None,
            "tier": verdict.tier,
            "points": verdict.points,
            "max_points": verdict.max_points,
        },
    }


# ---------------------------------------------------------------- JUnit


def junit(verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: one test case an exercise."""
    return junit_class({"course": verdicts})


def junit_class(submissions: Mapping[str, Sequence[Verdict]]) -> str:
    """JUnit XML of several submissions: one test suite a student."""
    everything = [verdict for verdicts in submissions.values() for verdict in verdicts]
    root = ElementTree.Element("testsuites", {"name": "course", **_junit_totals(everything)})
    for student, verdicts in submissions.items():
        suite = ElementTree.SubElement(root, "testsuite", {"name": _one_line(_xml(student)), **_junit_totals(verdicts)})
        for verdict in verdicts:
            _junit_case(suite, verdict)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _junit_totals(verdicts: Sequence[Verdict]) -> dict[str, str]:
    count = {kind: sum(_junit_kind(v) == kind for v in verdicts) for kind in ("failure", "error", "skipped")}
    return {
        "tests": str(len(verdicts)),
        "failures": str(count["failure"]),
        "errors": str(count["error"]),
        "skipped": str(count["skipped"]),
        "time": f"{sum(round(v.seconds, 3) for v in verdicts):.3f}",
    }


def _junit_case(suite: ElementTree.Element, verdict: Verdict) -> None:
    attributes = {"classname": f"chapter_{verdict.chapter:02d}", "name": _one_line(_xml(verdict.exercise)), "time": f"{verdict.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    kind = _junit_kind(verdict)
    if kind:
        text = _xml(message(verdict))
        node = ElementTree.SubElement(case, kind, {"message": first_line(text), **({"type": verdict.status} if kind != "skipped" else {})})
        node.text = text


def _junit_kind(verdict: Verdict) -> str | None:
    if verdict.status == "passed":
        return None
    return {"blocked": "skipped", "not_attempted": "failure", "failed": "failure"}.get(verdict.status, "error")


def _xml(text: str) -> str:
    """The text without what XML 1.0 cannot hold."""
    return _NOT_XML.sub("", clean(text))


# ---------------------------------------------------------------- Classroom 50


def classroom50(verdicts: Sequence[Verdict], environment: Mapping[str, str] | None = None) -> dict:
    """`result.json` of `classroom50/result/v1`. The course, the assignment and the links come from the runner's environment."""
    env = os.environ if environment is None else environment
    counted = _counted(verdicts)
    return {
        "schema": "classroom50/result/v1",
        "classroom": env.get("CLASSROOM", ""),
        "assignment": env.get("ASSIGNMENT", ""),
        "assignment_type": env.get("ASSIGNMENT_TYPE", "individual"),
        "owner": env.get("OWNER", ""),
        "submission": env.get("SUBMISSION_TAG", ""),
        "commit": env.get("COMMIT_URL", ""),
        "release": env.get("RELEASE_URL", ""),
        "review": env.get("REVIEW_URL", ""),
        "datetime": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "score": sum(_whole(verdict.points) for verdict in counted),
        "max-score": sum(_whole(verdict.max_points) for verdict in counted),
        "tests": [
            {
                "test-name": clean(verdict.exercise),
                "passed": verdict.status == "passed",
                "score": _whole(verdict.points),
                "max-score": _whole(verdict.max_points),
                "status": verdict.status,
                "message": message(verdict),
            }
            for verdict in counted
        ],
    }


def _whole(points: float) -> int:
    if points != int(points):
        raise ValueError(f"Classroom 50 takes whole points, and these are {points}")
    return int(points)


# ---------------------------------------------------------------- CSV


def csv_rows(submissions: Mapping[str, Sequence[Verdict]]) -> str:
    """One row a student and exercise."""
    rows = [
        (
            student,
            verdict.exercise,
            verdict.chapter,
            verdict.status,
            verdict.points,
            verdict.max_points,
            verdict.diagnosis.id if verdict.diagnosis else "",
            "" if verdict.status == "passed" else first_line(message(verdict)),
            f"{verdict.seconds:.3f}",
            verdict.details.get("seed", ""),
        )
        for student, verdicts in submissions.items()
        for verdict in verdicts
    ]
    return _table(CSV_COLUMNS, rows)


def csv_totals(submissions: Mapping[str, Sequence[Verdict]]) -> str:
    """One row a student. `points` and `max_points` leave out what is blocked; `blocked_points` says how much that is."""
    rows = []
    for student, verdicts in submissions.items():
        points, most = (sum(getattr(v, what) for v in _counted(verdicts)) for what in ("points", "max_points"))
        blocked = sum(v.max_points for v in verdicts if v.status == "blocked")
        counts = [sum(v.status == status for v in verdicts) for status in STATUSES]
        rows.append((student, points, most, f"{100 * points / most:.1f}" if most else "", blocked, *counts))
    return _table(TOTAL_COLUMNS, rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # RFC 4180
    writer.writerow(columns)
    writer.writerows([cell(value) if isinstance(value, str) else value for value in row] for row in rows)
    return out.getvalue()


def cell(text: str) -> str:
    """A text as a spreadsheet must read it: on one line, and never as a formula (an apostrophe is put before what starts like one)."""
    text = _one_line(clean(text))
    seen = next((letter for letter in text if unicodedata.category(letter)[0] not in "CZ"), "")  # not a space, not an invisible mark
    return f"'{text}" if seen and seen in "=+-@\uff1d\uff0b\uff0d\uff20" else text


def _one_line(text: str) -> str:
    return re.sub(r"[\t\n\r\v\f\u2028\u2029]+", " ", text)


def first_line(text: str) -> str:
    return next((line.strip() for line in text.split("\n") if line.strip()), "")
