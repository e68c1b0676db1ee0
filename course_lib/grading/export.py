"""Verdicts as the reports that other systems read: plain JSON, Gradescope, JUnit, Classroom 50. Pure functions.

The formats follow Gradescope's `results.json`, the JUnit XML that CI systems read, and `classroom50/result/v1`, whose
scores are integers. A blocked exercise counts neither as failed nor as passed.
"""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from course_lib.grading.feedback import clean
from course_lib.grading.verdict import Verdict

FORMATS = ("json", "gradescope", "junit", "classroom50")


def plain(verdicts: Sequence[Verdict]) -> list[dict]:
    """The contract's objects."""
    return [verdict.contract() for verdict in verdicts]


def message(verdict: Verdict) -> str:
    """One text for a report: the diagnosis, else the first case that did not pass."""
    if verdict.diagnosis:
        return clean(verdict.diagnosis.message)
    return clean(next((case.message for case in verdict.cases if case.status != "passed" and case.message), verdict.status.replace("_", " ")))


def gradescope(verdicts: Sequence[Verdict]) -> dict:
    """`/autograder/results/results.json`."""
    return {
        "score": sum(verdict.points for verdict in verdicts),
        "execution_time": round(sum(verdict.seconds for verdict in verdicts), 3),
        "output_format": "text",
        "stdout_visibility": "hidden",
        "tests": [
            {
                "name": verdict.exercise,
                "number": f"{verdict.chapter}.{number}",
                "score": verdict.points,
                "max_score": verdict.max_points,
                "status": "passed" if verdict.status == "passed" else "failed",
                "output": message(verdict),
                "output_format": "text",
                "tags": [verdict.status, f"chapter {verdict.chapter:02d}"],
                "visibility": "visible",
                "extra_data": {"status": verdict.status, "diagnosis": verdict.diagnosis.id if verdict.diagnosis else None, "tier": verdict.tier},
            }
            for number, verdict in enumerate(verdicts, 1)
        ],
    }


def junit(verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: one test case an exercise."""
    count = {kind: sum(_junit_kind(v) == kind for v in verdicts) for kind in ("failure", "error", "skipped")}
    totals = {
        "tests": str(len(verdicts)),
        "failures": str(count["failure"]),
        "errors": str(count["error"]),
        "skipped": str(count["skipped"]),
        "time": f"{sum(v.seconds for v in verdicts):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "course", **totals})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "course", **totals})
    for verdict in verdicts:
        attributes = {"classname": f"chapter_{verdict.chapter:02d}", "name": verdict.exercise, "time": f"{verdict.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        kind = _junit_kind(verdict)
        if kind:
            text = message(verdict)
            node = ElementTree.SubElement(case, kind, {"message": text.split("\n")[0], **({"type": verdict.status} if kind != "skipped" else {})})
            node.text = text
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _junit_kind(verdict: Verdict) -> str | None:
    if verdict.status == "passed":
        return None
    return {"blocked": "skipped", "not_attempted": "failure", "failed": "failure"}.get(verdict.status, "error")


def classroom50(verdicts: Sequence[Verdict], environment: Mapping[str, str] | None = None) -> dict:
    """`result.json` of `classroom50/result/v1`. The course, the assignment and the links come from the runner's environment."""
    env = os.environ if environment is None else environment
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
        "score": int(sum(verdict.points for verdict in verdicts)),
        "max-score": int(sum(verdict.max_points for verdict in verdicts)),
        "tests": [
            {
                "test-name": verdict.exercise,
                "passed": verdict.status == "passed",
                "score": int(verdict.points),
                "max-score": int(verdict.max_points),
                "status": verdict.status,
                "message": message(verdict),
            }
            for verdict in verdicts
        ],
    }
