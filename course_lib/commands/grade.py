"""`course grade`: grade what somebody handed in, files or a folder of submissions, and write a report. Touches no answer book."""

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
FILES   A file named like a chapter (ch03_online_softmax.py) is graded on every exercise of that chapter; any other file on
        the exercises that it defines.
FOLDER  One entry a student: a folder of answer files (chNN_topic.py) and notebooks, or a single file. They are graded in
        parallel on the chapters that the class handed in (or --chapter), everybody with the same seed. A file that cannot be
        read, an endless loop, a crash is the verdict of that submission and of no other.
        --output NAME says where the report goes, whose lines are written as they are known. The same command goes on where
        it was stopped; submissions that changed are graded again, --again grades all.
          json         NAME            JSON lines: a head, then one object a student
          csv          NAME            one row a student and exercise, and NAME-totals.csv: one row a student
          junit        NAME            one test suite a student
          gradescope, classroom50      NAME is a folder: one file a student
        For each format but json the report itself stands beside it, as NAME.jsonl (in the folder: grades.jsonl).
        Answers that need a person are listed at the end: `course review NAME.jsonl`.

In a CSV (UTF-8; --bom marks it for Excel) what would be read as a formula starts with an apostrophe. What is blocked (it
needs hardware that is not here) counts in no total.
Exit code: 0 once the report is written, whatever the grades; 2 where that was not possible.
"""


def main(argv: list[str]) -> int:
    from course_lib.grading import export

    parser = Parser(
        prog="course grade",
        description="Grade files of answers, or a folder of submissions.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files of answers, or one folder of submissions")
    parser.add_argument("--format", choices=export.FORMATS, default="json")
    parser.add_argument("--output", metavar="PATH", default="-", help="the report; - (the default) is standard output")
    parser.add_argument("--seed", type=int, help="the values that answers are called with; drawn once where it is not given")
    parser.add_argument("--jobs", type=int, metavar="N", help="submissions graded at the same time; default: one a core")
    parser.add_argument("--chapter", type=int, action="append", metavar="N", help="grade these chapters and no other; may be repeated")
    parser.add_argument("--again", action="store_true", help="grade everything again")
    parser.add_argument("--bom", action="store_true", help="begin CSV files with a byte order mark: Excel then reads them as UTF-8")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit:
        return 0
    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:
        raise UsageError("grade: --seed takes a whole number from 0 on.")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UsageError("grade: --jobs takes a whole number from 1 on.")
    if any(Path(name).is_dir() for name in arguments.paths if "\0" not in name):
        from course_lib.commands import grade_folder

        if len(arguments.paths) > 1:
            raise UsageError("grade takes files, or one folder of submissions, and not both.")
        return grade_folder.main(Path(arguments.paths[0]), arguments)
    return _files(arguments)


def _files(arguments: argparse.Namespace) -> int:
    for option in ("jobs", "chapter", "again"):
        if getattr(arguments, option):
            raise UsageError(f"grade: --{option} is for a folder of submissions.")
    texts = [(name, read_text(name, "grade")) for name in arguments.paths]
    verdicts = [_verdict(exercise, text, name, arguments.seed) for name, text in texts for exercise in _exercises(name, text)]
    students = [Path(name).name for name, text in texts for _ in _exercises(name, text)]
    _write(arguments.output, _report(arguments.format, verdicts, students), arguments.bom and arguments.format == "csv")
    return 0


def _report(format: str, verdicts: list[Verdict], files: list[str]) -> str:
    from course_lib.grading import export

    if format == "junit":
        return export.junit(verdicts)
    if format == "csv":
        by_file = {name: [v for v, file in zip(verdicts, files, strict=True) if file == name] for name in dict.fromkeys(files)}
        return export.csv_rows(by_file)
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


def _write(target: str, text: str, bom: bool) -> None:
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8-sig" if bom else "utf-8", newline="")
    except OSError as error:
        raise UsageError(f"grade: {target} cannot be written ({error.strerror or error}).") from None
