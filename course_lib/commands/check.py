"""`course check`: which exercises are meant, where each answer lies, what is printed."""

import argparse
import json
import sys
from pathlib import Path

from course_lib.commands.cli import Parser, UsageError, find_exercise
from course_lib.source import Exercise

_MORE = """
Without --file the answer is what stands in answers/ (an edited file in exercises/ is taken over first).
Exit code: 0 all passed, 1 not all passed, 2 the command cannot be understood or a file cannot be read.

--json writes one object for one NAME, and a list of such objects otherwise:
  {"exercise", "chapter", "status", "points", "max_points", "diagnosis": {"id", "message"} or null,
   "cases": [{"name", "status", "message", "seconds"}], "tier", "seconds"}
  status: passed, failed, not_attempted, error, timeout, blocked, needs_review
"""


def main(argv: list[str]) -> int:
    parser = Parser(
        prog="course check", description="Grade exercises.", epilog=_MORE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="exercises, as in `course progress`")
    parser.add_argument("--chapter", type=int, metavar="N", help="every exercise of one chapter")
    parser.add_argument("--all", action="store_true", help="every exercise of the course")
    parser.add_argument("--file", metavar="PATH", help="grade this file as the answer")
    parser.add_argument("--seed", type=int, help="repeat the values of an earlier check")
    parser.add_argument("--json", metavar="PATH", help="write the result there; - is standard output, and then nothing else goes there")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit:
        return 0
    exercises = _wanted(arguments)
    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:
        raise UsageError("check: --seed takes a whole number from 0 on.")
    text = read_text(arguments.file, "--file") if arguments.file else None
    _writable(arguments.json)
    outcomes = _graded(exercises, arguments, text)
    verdicts = [outcome.verdict for outcome in outcomes]
    if arguments.json:
        one = len(arguments.names) == 1
        _write_json(arguments.json, verdicts[0].contract() if one else [verdict.contract() for verdict in verdicts])
    return 0 if all(verdict.status == "passed" for verdict in verdicts) else 1


def _wanted(arguments: argparse.Namespace) -> list[Exercise]:
    """The exercises meant, each once, in the order given."""
    from course_lib.chapters import chapter
    from course_lib.grading import catalogue

    if sum([bool(arguments.names), arguments.chapter is not None, arguments.all]) != 1:
        raise UsageError("check takes the names of exercises, or --chapter N, or --all. For example: course check merge_states")
    if arguments.names:
        return [find_exercise(name) for name in dict.fromkeys(arguments.names)]
    if arguments.all:
        return list(catalogue.exercises().values())
    try:
        chapter(arguments.chapter)
    except ValueError as error:
        if not catalogue.of_chapter(arguments.chapter):
            raise UsageError(f"check: {error}.") from None
    exercises = catalogue.of_chapter(arguments.chapter)
    if not exercises:
        numbers = sorted({exercise.chapter for exercise in catalogue.exercises().values()})
        raise UsageError(f"check: chapter {arguments.chapter:02d} has no exercises yet; there are some in {', '.join(f'{n:02d}' for n in numbers)}.")
    return exercises


def read_text(name: str, option: str) -> str:
    """A file of answers as text; UsageError in a sentence."""
    path = Path(name)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"{option}: there is no file {name}.") from None
    except IsADirectoryError:
        raise UsageError(f"{option}: {name} is a folder; give a file of Python.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option}: {name} is not UTF-8 text; give a file of Python.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{option}: {name} cannot be read ({getattr(error, 'strerror', None) or error}).") from None


def _writable(target: str | None) -> None:
    """Find out before grading, not after it."""
    if not target or target == "-":
        return
    path = Path(target)
    if path.is_dir():
        raise UsageError(f"--json: {target} is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise UsageError(f"--json: there is no folder {path.parent}.")


def _write_json(target: str, result: object) -> None:
    text = json.dumps(result, indent=2, ensure_ascii=True) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--json: {target} cannot be written ({error.strerror or error}).") from None


def _graded(exercises: list[Exercise], arguments: argparse.Namespace, text: str | None) -> list:
    """Grade one after another; each panel is shown as soon as it is known."""
    from course_lib.grading import feedback

    outcomes = []
    for exercise in exercises:
        outcome = _outcome(exercise, arguments, text)
        outcomes.append(outcome)
        if arguments.json == "-":
            for note in outcome.notes:
                print(f"course: {feedback.clean(note)}", file=sys.stderr)
            continue
        if len(outcomes) > 1:
            print()
        feedback.print_panel(feedback.verdict_panel(outcome.verdict, exercise, outcome.extra(shell=True)), sys.stdout)
        sys.stdout.flush()
    if len(outcomes) > 1 and arguments.json != "-":
        verdicts = [outcome.verdict for outcome in outcomes]
        passed = sum(verdict.status == "passed" for verdict in verdicts)
        print(f"\n{passed} of {len(verdicts)} passed, {sum(v.points for v in verdicts)} of {sum(v.max_points for v in verdicts)} points.")
    return outcomes


def _outcome(exercise: Exercise, arguments: argparse.Namespace, text: str | None):
    from course_lib.grading import answer, attempt

    if text is None:
        return attempt.from_book(exercise, arguments.seed)
    try:
        built = answer_in(exercise, text, arguments.file)
    except answer.AnswerError as error:
        return attempt.refused(exercise, error)
    return attempt.grade(exercise, built, arguments.seed)


def answer_in(exercise: Exercise, text: str, where: str) -> str:
    """The exercise's answer in a file: its section where the file has sections, else out of the whole file. AnswerError."""
    from course_lib.earlier import section_in_place
    from course_lib.grading import answer, book

    section = section_in_place(text, exercise.name)
    return answer.from_file(exercise.name, section if section is not None else text, where, book.stubs_by_name())
