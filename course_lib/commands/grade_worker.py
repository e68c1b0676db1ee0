"""One worker of `course grade FOLDER`: a process that reads submissions and has a judge of its own.

    python -m course_lib.commands.grade_worker

One JSON line in: {"files", "root", "exercises", "seed", "trouble"}. JSON lines out: {"at": exercise} before each check, and at the
end {"results": [verdicts], "answers": {exercise: text of an answer that needs a person}}. Everything that students wrote is
parsed here, so that a text which brings Python itself down costs this process and nothing else.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from course_lib.commands import grade_submissions
from course_lib.grading import answer, attempt, book, catalogue
from course_lib.grading.client import Judge
from course_lib.grading.verdict import Verdict


def main() -> None:
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    judge = Judge()
    judge.start()
    out.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        out.write(json.dumps(grade(judge, json.loads(line), lambda name: out.write(json.dumps({"at": name}) + "\n"))) + "\n")
    judge.close()


def grade(judge: Judge, wanted: dict, at: Callable[[str], object]) -> dict:
    """The verdicts on one submission; `at` is told of each exercise before its check."""
    texts = [] if wanted["trouble"] else grade_submissions.read([Path(name) for name in wanted["files"]], Path(wanted["root"]))
    stubs = book.stubs_by_name()
    results, answers = [], {}
    for name in wanted["exercises"]:
        at(name)
        verdict, text = _graded(judge, name, texts, stubs, wanted["seed"], wanted["trouble"])
        results.append(asdict(verdict))
        if verdict.status == "needs_review":
            answers[name] = text
    return {"results": results, "answers": answers}


def _graded(judge: Judge, name: str, texts: list, stubs: dict, seed: int, trouble: list | None) -> tuple[Verdict, str]:
    exercise = catalogue.find(name)
    if trouble:
        status = "not_attempted" if trouble[0] == "no-answer" else "error"
        return attempt.plain_verdict(exercise, status, *trouble), ""
    try:
        text = grade_submissions.answer_to(exercise, texts, stubs)
    except answer.AnswerError as error:
        return attempt.refused(exercise, error).verdict, ""
    except grade_submissions.Ambiguous as error:
        return attempt.plain_verdict(exercise, "error", "ambiguous", str(error)), ""
    except (RecursionError, MemoryError):
        return attempt.plain_verdict(exercise, "error", "syntax", "The submission is nested too deeply for Python to read."), ""
    if answer.is_stub(name, text, exercise.stub):
        return attempt.plain_verdict(exercise, "not_attempted", "stub", "This is still the text that was given."), text
    return judge.check(name, text, seed), text


if __name__ == "__main__":
    main()
