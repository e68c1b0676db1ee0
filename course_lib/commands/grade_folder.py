"""`course grade FOLDER`: find the submissions, grade what is not graded yet, write the report in the format asked for."""

import argparse
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

from course_lib.commands import grade_batch, grade_report, grade_submissions
from course_lib.commands.cli import UsageError
from course_lib.grading import catalogue, export
from course_lib.grading.feedback import clean
from course_lib.grading.verdict import STATUSES, Verdict

_A_FILE_EACH = ("gradescope", "classroom50")


def main(folder: Path, arguments: argparse.Namespace) -> int:
    if arguments.format in _A_FILE_EACH and arguments.output == "-":
        raise UsageError(f"grade: {arguments.format} is one file a student: say with --output which folder they go to.")
    try:
        submissions, left_out = grade_submissions.find(folder)
    except OSError as error:
        raise UsageError(f"grade: {folder} cannot be listed ({error.strerror or error}).") from None
    if not submissions:
        raise UsageError(f"grade: {folder} holds no submission: a folder or a file (.py, .ipynb) a student.")
    chapter_files = {catalogue.file_of(exercise.chapter) for exercise in catalogue.exercises().values()}
    if any(path.parent == folder and path.name in chapter_files for one in submissions for path in one.files):
        raise UsageError(f"grade: {folder} looks like the work of one student. Name the folder above it, or the files themselves.")
    exercises = _exercises(arguments.chapter, submissions)
    report = _report(arguments, exercises)
    waiting = [one for one in submissions if not report.has(one.student, one.fingerprint, exercises)]
    if waiting:
        _warn_of_open_doors()
    _grade(waiting, exercises, report, arguments.jobs or _cores(), len(submissions))
    found = report.verdicts([one.student for one in submissions])
    verdicts = {student: [verdict for verdict in one if verdict.exercise in exercises] for student, one in found.items()}
    written = _write(arguments, report, verdicts)
    _say(verdicts, len(submissions) - len(waiting), left_out, written, report)
    return 0


def _warn_of_open_doors() -> None:
    """Said before strangers' code runs where it could write files."""
    from course_lib.grading.contain import containment

    found = containment()
    if not found["read_only"]:
        print(
            f"course: {found['sentence']} Here an answer could change files of yours, other submissions among them: "
            "grade in a container or a virtual machine, as a user who owns nothing else.",
            file=sys.stderr,
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _exercises(chapters: list[int] | None, submissions: list) -> list[str]:
    wanted = set(chapters) if chapters else grade_submissions.chapters_of(submissions)
    for number in sorted(wanted):
        if not catalogue.of_chapter(number):
            raise UsageError(f"grade: chapter {number:02d} has no exercises.")
    if not wanted:
        raise UsageError("grade: none of these submissions defines an exercise of the course. Say with --chapter which chapter was handed in.")
    return [exercise.name for exercise in catalogue.exercises().values() if exercise.chapter in wanted]


def _journal(arguments: argparse.Namespace) -> Path | None:
    """Where the report itself goes."""
    if arguments.output == "-":
        return None
    target = Path(arguments.output)
    if arguments.format in _A_FILE_EACH:
        try:
            target.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"grade: the folder {target} cannot be made ({error.strerror or error}).") from None
        return target / "grades.jsonl"
    if target.is_dir():
        raise UsageError(f"grade: {target} is a folder; give the name of a file.")
    return target if arguments.format == "json" else target.with_name(target.name + ".jsonl")


def _report(arguments: argparse.Namespace, exercises: list[str]) -> grade_report.Report:
    path = _journal(arguments)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10_000)
    if path is None or not path.exists() or path.stat().st_size == 0:
        return grade_report.start(path, seed, exercises)
    found = grade_report.load(path)  # with --again too: what is no report is not overwritten
    if arguments.again:
        return grade_report.start(path, seed, exercises)
    if arguments.seed is not None and arguments.seed != found.seed:
        raise UsageError(f"grade: {path} was begun with seed {found.seed}. Leave out --seed to go on, or grade everything with --again.")
    return found


def _grade(waiting: list, exercises: list[str], report: grade_report.Report, jobs: int, total: int) -> None:
    from tqdm import tqdm

    with tqdm(total=total, initial=total - len(waiting), unit="submission", file=sys.stderr, disable=not waiting) as bar:

        def done(graded: grade_batch.Graded) -> None:
            report.add(graded)
            bar.update()

        grade_batch.grade_all(waiting, exercises, report.seed, jobs, done)


# ---------------------------------------------------------------- what is written


def _write(arguments: argparse.Namespace, report: grade_report.Report, verdicts: dict[str, list[Verdict]]) -> list[Path]:
    """The report in the format asked for; returns the files."""
    if arguments.output == "-":
        sys.stdout.write(_on_stdout(arguments.format, report, verdicts))
        return []
    target = Path(arguments.output)
    if arguments.format == "json":
        return [target]
    if arguments.format == "junit":
        return _written({target: export.junit_class(verdicts)})
    if arguments.format == "csv":
        mark = "\ufeff" if arguments.bom else ""
        totals = target.with_name(f"{target.stem}-totals{target.suffix or '.csv'}")
        return _written({target: mark + export.csv_rows(verdicts), totals: mark + export.csv_totals(verdicts)})
    made = {"gradescope": export.gradescope, "classroom50": export.classroom50}[arguments.format]
    return _written({target / f"{student}.json": json.dumps(made(found), indent=2) + "\n" for student, found in verdicts.items()})


def _on_stdout(format: str, report: grade_report.Report, verdicts: dict[str, list[Verdict]]) -> str:
    if format == "junit":
        return export.junit_class(verdicts)
    if format == "csv":
        return export.csv_rows(verdicts)
    return "".join(json.dumps(line) + "\n" for line in [report.head, *(report.lines[name] for name in sorted(report.lines))])


def _written(files: dict[Path, str]) -> list[Path]:
    for path, text in files.items():
        grade_report.write(path, text)
    return list(files)


def _say(verdicts: dict[str, list[Verdict]], before: int, left_out: list[str], written: list[Path], report: grade_report.Report) -> None:
    """What came of it, on stderr: standard output may be the report."""
    count = Counter(verdict.status for found in verdicts.values() for verdict in found)
    counts = ", ".join(f"{count[status]} {status.replace('_', ' ')}" for status in STATUSES if count[status])
    again = f" ({before} graded before)" if before else ""
    lines = [f"{len(verdicts)} submission{'s' * (len(verdicts) != 1)}{again}: {counts}. Seed {report.seed}."]
    if written:
        names = [str(path) for path in written]
        lines.append(f"Written: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}.")
    if left_out:
        lines.append(f"Not graded, for they are neither folders nor .py nor .ipynb files: {', '.join(map(clean, left_out))}.")
    needing = [(name, verdict) for name, found in verdicts.items() for verdict in found if verdict.status == "needs_review"]
    if needing:
        lines.append(f"{len(needing)} {'answer needs' if len(needing) == 1 else 'answers need'} a person:")
        lines += [f"  {clean(name)}  {verdict.exercise}: {export.first_line(export.message(verdict))}" for name, verdict in needing]
        lines.append(f"See them with: course review {report.path}" if report.path else "Grade with --output to look at them with `course review`.")
    print("\n".join(lines), file=sys.stderr)
