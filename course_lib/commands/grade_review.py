"""`course review`: the answers of a grade report that need a person, and what the person decided about them."""

import argparse
import sys
from pathlib import Path

from course_lib.commands.cli import Parser, UsageError
from course_lib.grading.verdict import Verdict

_MORE = """
  course review grades.jsonl                                   the answers that wait for a person
  course review grades.jsonl ada merge_states                  one of them: what was seen, and its text
  course review grades.jsonl ada merge_states --accept         full points; or --refuse --note "Calls SDPA."

Decisions are kept in grades.review.json, beside the report, and hold for the very text that was looked at. Run the same
`course grade` again to have them in the CSV or in another format: nothing is graded twice.
"""


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="course review",
        description="Look at the answers that need a person.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("report", nargs="?", metavar="REPORT", help="the .jsonl file that `course grade FOLDER --output` wrote")
    parser.add_argument("student", nargs="?", metavar="STUDENT")
    parser.add_argument("exercise", nargs="?", metavar="EXERCISE")
    decision = parser.add_mutually_exclusive_group()
    decision.add_argument("--accept", action="store_const", dest="decision", const="accepted", help="full points")
    decision.add_argument("--refuse", action="store_const", dest="decision", const="refused", help="no points")
    parser.add_argument("--note", default="", metavar="TEXT", help="what the student reads beside the decision")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit:
        return 0
    if arguments.report is None:
        raise UsageError(
            "review takes the report of `course grade FOLDER --output`, a .jsonl file. A deck of the course's questions comes with chapter 21."
        )
    if arguments.student and not arguments.exercise:
        raise UsageError("review takes a student and an exercise, as in: course review REPORT STUDENT EXERCISE --accept")
    if (arguments.decision or arguments.note) and not arguments.exercise:
        raise UsageError("review --accept, --refuse and --note are about one answer: course review REPORT STUDENT EXERCISE --accept")
    if arguments.note and not arguments.decision:
        raise UsageError("review --note goes with --accept or --refuse.")
    return _review(arguments)


def _review(arguments: argparse.Namespace) -> int:
    from course_lib.commands import grade_report

    report = grade_report.load(Path(arguments.report))
    waiting = {(name, v.exercise): v for name, verdicts in _as_graded(report).items() for v in verdicts if v.status == "needs_review"}
    if not arguments.student:
        return _list(report, waiting)
    verdict = waiting.get((arguments.student, arguments.exercise))
    if verdict is None:
        raise UsageError(
            f"review: {arguments.student} has no answer to {arguments.exercise} that needs a person. `course review {arguments.report}` lists them."
        )
    text = report.lines[arguments.student]["answers"][arguments.exercise]
    if arguments.decision:
        place = grade_report.decide(report.path, arguments.student, arguments.exercise, text, arguments.decision, arguments.note)
        print(f"{arguments.student}, {arguments.exercise}: {arguments.decision}, kept in {place.name}.")
        return 0
    _show(arguments.student, verdict, text)
    return 0


def _as_graded(report) -> dict[str, list[Verdict]]:
    """The verdicts before any person decided."""
    from course_lib.commands.grade_batch import verdicts_of

    return {name: verdicts_of(line) for name, line in sorted(report.lines.items())}


def _list(report, waiting: dict[tuple[str, str], Verdict]) -> int:
    """The answers and their decisions; exit code 1 while one waits."""
    from course_lib.grading.export import first_line, message
    from course_lib.grading.feedback import clean

    now = {(name, v.exercise): v for name, verdicts in report.verdicts().items() for v in verdicts}
    open_ = 0
    for (student, exercise), verdict in waiting.items():
        later = now[student, exercise]
        open_ += later.status == "needs_review"
        state = {"needs_review": "waits", "passed": "accepted", "failed": "refused"}[later.status]
        print(f"{state:<9} {clean(student)}  {exercise}  {verdict.max_points} points: {first_line(message(verdict))}")
    total = f"{len(waiting)} {'answer needs' if len(waiting) == 1 else 'answers need'} a person, {open_} of them without a decision."
    print(total if waiting else "No answer needs a person.")
    return 1 if open_ else 0


def _show(student: str, verdict: Verdict, text: str) -> None:
    from course_lib.grading.export import message
    from course_lib.grading.feedback import clean

    print(f"{clean(student)}, {verdict.exercise} (chapter {verdict.chapter:02d}, {verdict.max_points} points)\n{message(verdict)}")
    for case in verdict.cases:
        if case.status == "needs_review":
            print(f"  {clean(case.name)}: {clean(case.message)}")
    sys.stdout.write("\n" + clean(text.replace("\t", "    ")).rstrip("\n") + "\n")
