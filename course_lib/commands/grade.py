"""`course grade`: grade files of answers that somebody handed in, and write a report. Touches no answer book."""

import argparse
import json
import re
import sys
from pathlib import Path

from course_lib.commands.check import answer_in, read_text
from course_lib.commands.cli import Parser, UsageError
from course_lib.grading.verdict import Verdict
from course_lib.source import Exercise

_MORE = """
A file named like a chapter (ch03_online_softmax.py) is graded on every exercise of that chapter; any other file on the
exercises that it defines. Exit code: 0 once the report is written, whatever the grades; 2 where that was not possible.
"""


def main(argv: list[str]) -> int:
    from course_lib.grading import export

    parser = Parser(
        prog="course grade",
        description="Grade files of answers.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files of answers")
    parser.add_argument("--format", choices=export.FORMATS, default="json")
    parser.add_argument("--output", metavar="PATH", default="-", help="the report; - (the default) is standard output")
    parser.add_argument("--seed", type=int)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit:
        return 0
    texts = [(name, read_text(name, "grade")) for name in arguments.paths]
    verdicts = [_verdict(exercise, text, name, arguments.seed) for name, text in texts for exercise in _exercises(name, text)]
    _write(arguments.output, _report(arguments.format, verdicts))
    return 0


def _report(format: str, verdicts: list[Verdict]) -> str:
    from course_lib.grading import export

    if format == "junit":
        return export.junit(verdicts)
    made = {"json": export.plain, "gradescope": export.gradescope, "classroom50": export.classroom50}[format](verdicts)
    return json.dumps(made, indent=2) + "\n"


def _exercises(name: str, text: str) -> list[Exercise]:
    """Which exercises a file is an answer to."""
    from course_lib.grading import answer, catalogue

    chapter = re.match(r"ch(\d\d)_", Path(name).name)
    if chapter and catalogue.of_chapter(int(chapter[1])):
        return catalogue.of_chapter(int(chapter[1]))
    found = [exercise for exercise in catalogue.exercises().values() if answer.defines(exercise.name, [answer.Cell(text)])]
    if not found:
        answer_error = _syntax_error(name, text)
        raise UsageError(answer_error or f"grade: {name} defines no exercise of the course (`course progress` lists them).")
    return found


def _syntax_error(name: str, text: str) -> str | None:
    from course_lib.grading import answer

    try:
        answer.require_python(text, name)
    except answer.AnswerError as error:
        return f"grade: {error}"
    return None


def _verdict(exercise: Exercise, text: str, name: str, seed: int | None) -> Verdict:
    from course_lib.grading import answer, attempt

    try:
        built = answer_in(exercise, text, name)
    except answer.AnswerError as error:
        return attempt.refused(exercise, error).verdict
    if answer.is_stub(exercise.name, built, exercise.stub):
        return attempt.plain_verdict(exercise, "not_attempted", "stub", "This is still the text that was given.")
    return attempt.judged(exercise, built, seed)


def _write(target: str, text: str) -> None:
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"grade: {target} cannot be written ({error.strerror or error}).") from None
